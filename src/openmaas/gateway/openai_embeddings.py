"""OpenAI's POST /v1/embeddings."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from openmaas.errors import EngineFailed, OpenMaaSError
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.openai_completions import Texts, texts
from openmaas.gateway.openai_parameters import Count, ModelName, refuse
from openmaas.inference import Embed, Embedded

Encoding = Literal["float", "base64"]


class EmbeddingBody(Struct, forbid_unknown_fields=True, kw_only=True):
    model: ModelName
    input: Texts
    encoding_format: Encoding | None = None
    dimensions: Count | None = None
    user: Any = None  # refused: end users are not recorded


REFUSED: dict[str, tuple[Any, ...]] = {"user": ()}


class Embedding(Struct):
    index: int
    embedding: Sequence[float] | str  # base64: float32, little-endian
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct):
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


def answer(embedded: Embedded, model: str, encoding: Encoding) -> EmbeddingList:
    """
    Raises:
        EngineFailed: the model gave a number that is not finite.
    """
    size = embedded.dimensions * 4
    rows = [embedded.data[at : at + size] for at in range(0, len(embedded.data), size)]
    made: Sequence[str | tuple[float, ...]]
    if encoding == "base64":
        made = [base64.b64encode(row).decode() for row in rows]
    else:
        unpack = struct.Struct(f"<{embedded.dimensions}f").unpack
        vectors = [unpack(row) for row in rows]
        # Of finite float32 numbers a sum is finite too.
        if not all(map(math.isfinite, map(sum, vectors))):
            raise EngineFailed("the model gave an embedding that is not finite")
        made = vectors
    return EmbeddingList(
        data=[Embedding(index, vector) for index, vector in enumerate(made)],
        model=model,
        usage=EmbeddingUsage(embedded.usage.input_tokens, embedded.usage.input_tokens),
    )


async def embeddings(exchange: Exchange) -> None:
    """Embeds texts or token ids."""
    body = exchange.decode(await exchange.body(), EmbeddingBody)
    refuse(body, REFUSED)
    neutral = Embed(inputs=texts(body.input, "input"), dimensions=body.dimensions)
    call = await exchange.pipeline.submit(exchange.ticket, body.model, neutral)
    (event,) = await exchange.collect(call)
    if not isinstance(event, Embedded):
        raise OpenMaaSError("the worker answered with something else than embeddings")
    await exchange.respond_json(answer(event, call.model, body.encoding_format or "float"))


def endpoints() -> list[Endpoint]:
    return [
        Endpoint(
            "POST",
            "/v1/embeddings",
            embeddings,
            "openai",
            "Embed texts",
            body=EmbeddingBody,
            response=EmbeddingList,
            task="embed",
        )
    ]
