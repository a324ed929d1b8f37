"""OpenAI's POST /v1/completions: raw prompts, with echo and log-probabilities."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any

from msgspec import Meta

from openmaas.errors import InvalidRequest
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.openai_completions_answer import Completion, CompletionStream, answer
from openmaas.gateway.openai_parameters import (
    Alternatives,
    Count,
    Sampled,
    TokenId,
    include_usage,
    refuse,
    sampling,
)
from openmaas.gateway.openai_stream import stream
from openmaas.inference import Complete

DEFAULT_MAX_TOKENS = 16  # OpenAI's

TokenIds = Annotated[list[TokenId], Meta(min_length=1)]
# One text, one list of token ids, or a list of several of one kind.
Texts = str | Annotated[list[str | TokenId | TokenIds], Meta(min_length=1)]


class CompletionBody(Sampled, forbid_unknown_fields=True, kw_only=True):
    """The body of a text completion. Fields typed ``Any`` are refused unless they ask for
    nothing (``REFUSED``)."""

    prompt: Texts
    max_tokens: Count | None = None
    echo: bool | None = None
    logprobs: Alternatives | None = None
    best_of: Any = None
    suffix: Any = None


REFUSED: dict[str, tuple[Any, ...]] = {"best_of": (1,), "suffix": ("",), "user": ()}


def texts(given: Texts, param: str) -> list[str | list[int]]:
    """Separate inputs, each a text or a list of token ids.

    Raises:
        InvalidRequest: a list that mixes kinds.
    """
    if isinstance(given, str):
        return [given]
    kind = type(given[0])
    if any(type(item) is not kind for item in given):
        raise InvalidRequest(f"{param} mixes texts, token ids and lists of token ids", param=param)
    if kind is int:
        return [given]  # type: ignore[list-item]  # all of it are token ids
    return given  # type: ignore[return-value]  # none of it is a bare token id


def request(body: CompletionBody) -> Complete:
    """
    Raises:
        InvalidRequest: a list of prompts that mixes kinds.
        UnsupportedParameter: something that this server does not do.
    """
    n = 1 if body.n is None else body.n
    refuse(body, REFUSED | ({"best_of": (n,)} if n > 1 else {}))
    limit = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    return Complete(
        prompts=texts(body.prompt, "prompt"),
        sampling=sampling(body, max_tokens=limit, logprobs=body.logprobs),
        n=n,
        echo=bool(body.echo),
    )


async def completions(exchange: Exchange) -> None:
    """Continues prompts, whole or as server-sent events."""
    body = exchange.decode(await exchange.body(), CompletionBody)
    usage = include_usage(body)
    call = await exchange.pipeline.submit(exchange.ticket, body.model, request(body))
    id = "cmpl-" + secrets.token_hex(12)
    created = int(time.time())
    if body.stream:
        form = CompletionStream(id, created, call.model, call.version, include_usage=usage)
        await stream(exchange, call, form)
        return
    events = await exchange.collect(call)
    await exchange.respond_json(answer(events, id, created, call.model, call.version))


def endpoints() -> list[Endpoint]:
    return [
        Endpoint(
            "POST",
            "/v1/completions",
            completions,
            "openai",
            "Continue raw prompts",
            body=CompletionBody,
            response=Completion,
            task="complete",
        )
    ]
