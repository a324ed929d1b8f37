"""What texts say, in fewer words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import Struct

from openmaas.errors import UnsupportedParameter
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tasks.common import (
    TEXTS_AT_ONCE,
    Language,
    TaskAnswer,
    TaskBody,
    event,
    hidden,
    restored,
    restored_pieces,
    texts,
    used,
)
from openmaas.inference import ModelInfo
from openmaas.serving import ranking
from openmaas.tasks.asking import together
from openmaas.tasks.summarize import Length, Style, condense, extract, method, trained

if TYPE_CHECKING:
    from openmaas.serving.asking import Asking


class SummarizeBody(TaskBody, forbid_unknown_fields=True, kw_only=True):
    length: Length | None = None  # short: a sentence, medium: three, long: seven
    style: Style | None = None
    language: Language | None = None  # of the summary; None: the text's own
    stream: bool | None = None


class Summary(Struct, omit_defaults=True):
    index: int
    summary: str
    scores: list[float] | None = None  # extractive: each sentence's share of centrality


class SummarizeAnswer(TaskAnswer, kw_only=True):
    method: str
    data: list[Summary]


async def summarize(exchange: Exchange) -> None:
    """What texts say, in fewer words."""
    body = exchange.decode(await exchange.body(), SummarizeBody)
    found = texts(body.input, exchange.limits)
    model = await exchange.pipeline.asking(
        exchange.ticket, body.model, "summarize", ranking.summarizes
    )
    check(model.info, body)
    if body.stream:
        await exchange.relay(_summary_events(exchange, model, found, body))
        return
    data = await exchange.complete(summaries(exchange, model, found, body))
    await exchange.respond_json(_answer(model, data))


def check(info: ModelInfo, body: SummarizeBody) -> None:
    """
    Raises:
        UnsupportedParameter: a length or language, of a network that was trained to its own.
    """
    for param in ("length", "language"):
        if info.task == "summarize" and getattr(body, param) is not None:
            raise UnsupportedParameter(
                f"{param} is what this model was trained on: leave it out", param=param
            )


async def _summary(
    model: Asking, text: str, body: SummarizeBody
) -> AsyncGenerator[tuple[str, list[float] | None], None]:
    wanted = (body.length or "medium", body.style or "paragraph", body.language)
    if model.info.task == "embed":
        yield await extract(model, text, *wanted)
        return
    if model.info.task == "summarize":
        yield await trained(model, text, body.style or "paragraph"), None
        return
    async for piece in condense(model, text, *wanted):
        yield piece, None


async def summaries(
    exchange: Exchange, model: Asking, found: list[str], body: SummarizeBody
) -> list[Summary]:
    gate = asyncio.Semaphore(TEXTS_AT_ONCE)
    seen = await hidden(exchange, found)

    async def one(index: int, text: str) -> Summary:
        async with gate:
            parts = [part async for part in _summary(model, text, body)]
        text = await restored(exchange, "".join(part for part, _ in parts).strip())
        return Summary(index, text, parts[0][1])

    return await together(one(index, text) for index, text in enumerate(seen))


def _answer(model: Asking, data: list[Summary]) -> SummarizeAnswer:
    return SummarizeAnswer(
        model=model.name,
        version=model.version,
        method=method(model.info.task),
        data=data,
        usage=used(model),
    )


class SummaryDelta(Struct):
    index: int
    delta: str


async def _summary_events(
    exchange: Exchange, model: Asking, found: list[str], body: SummarizeBody
) -> AsyncGenerator[bytes, None]:
    """A delta for each piece of each text in turn, then the rest of the answer."""
    for index, text in enumerate(await hidden(exchange, found)):
        pieces = (piece async for piece, _ in _summary(model, text, body))
        async with aclosing(restored_pieces(exchange, pieces)) as told:
            async for piece in told:
                yield event(SummaryDelta(index, piece))
    yield event(_answer(model, []))


ENDPOINTS = [
    Endpoint(
        "POST", "/v1/summarize", summarize, "openai", "What texts say, in fewer words",
        body=SummarizeBody, response=SummarizeAnswer, task="summarize",
    ),
]  # fmt: skip
