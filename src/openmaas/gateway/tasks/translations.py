"""Texts in another language."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from msgspec import Struct

from openmaas.errors import InvalidRequest
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tasks.common import (
    TEXTS_AT_ONCE,
    Language,
    TaskBody,
    TaskUsage,
    event,
    hidden,
    restored,
    restored_pieces,
    texts,
    used,
)
from openmaas.serving import ranking
from openmaas.serving.asking import Asking
from openmaas.tasks.asking import together
from openmaas.tasks.languages import check as check_language
from openmaas.tasks.languages import detect, own_code
from openmaas.tasks.translate import Piece, translate
from openmaas.tasks.translate import score as mean_score


class TranslateBody(TaskBody, forbid_unknown_fields=True, kw_only=True):
    target: Language
    source: Language | None = None  # None: detected, of each text by itself
    stream: bool | None = None


class Translation(Struct):
    index: int
    translation: str
    source: str
    target: str
    score: float | None  # the model's mean probability of what it wrote; None for chat models
    model: str
    version: str


class TranslateAnswer(Struct):
    data: list[Translation]
    usage: TaskUsage


class TranslationDelta(Struct):
    index: int
    delta: str


class Route(NamedTuple):
    """Which model translates a text, and between which of its own codes."""

    model: Asking
    source: str
    target: str


def pairs(models: Sequence[Asking]) -> str:
    """What deployed translators know, for people."""
    known = [
        f"{_few(model.info.source_languages)} → {_few(model.info.target_languages)} ({model.name})"
        for model in models
    ]
    return "; ".join(known) or "none"


def _few(codes: Sequence[str]) -> str:
    return ", ".join(codes[:12]) + (f" and {len(codes) - 12} more" if len(codes) > 12 else "")


def route(models: Sequence[Asking], source: str, target: str) -> Route:
    """
    Raises:
        InvalidRequest: no model knows the pair.
    """
    for model in models:
        if model.info.task == "chat":
            return Route(model, source, target)
        from_code = own_code(source, model.info.source_languages)
        to_code = own_code(target, model.info.target_languages)
        if from_code is not None and to_code is not None and from_code != to_code:
            return Route(model, from_code, to_code)
    raise InvalidRequest(
        f"no deployed model translates {source} → {target}; those that are deployed know: "
        f"{pairs(models)}. A chat model translates any pair, if it is named as the model",
        param="target",
    )


async def routes(exchange: Exchange, body: TranslateBody, found: list[str]) -> list[Route]:
    """A route for each text.

    Raises:
        InvalidRequest: a code that no language has, or a pair that no model knows.
    """
    check_language(body.target, "target")
    if body.source is not None:
        check_language(body.source, "source")
        if body.source == body.target:
            raise InvalidRequest("source and target are the same language", param="target")
    if body.model is not None:
        order = ranking.translates_somehow
        models = [await exchange.pipeline.asking(exchange.ticket, body.model, "translate", order)]
    else:
        models = await exchange.pipeline.able(exchange.ticket, ranking.translates)
    return await ways(models, found, body.source, body.target)


async def ways(
    models: Sequence[Asking], found: list[str], source: str | None, target: str
) -> list[Route]:
    among = sorted({code for model in models for code in model.info.source_languages})
    through = []
    for text in found:
        one = await asyncio.to_thread(detect, text, among) if source is None else source
        through.append(route(models, one, target))
    return through


async def translate_texts(exchange: Exchange) -> None:
    """Texts in another language."""
    body = exchange.decode(await exchange.body(), TranslateBody)
    found = texts(body.input, exchange.limits)
    through = await routes(exchange, body, found)
    if body.stream:
        await exchange.relay(_translation_events(exchange, found, through))
        return
    data = await exchange.complete(translations(exchange, found, through))
    await exchange.respond_json(TranslateAnswer(data=data, usage=used_by_all(through)))


async def translations(
    exchange: Exchange, found: list[str], through: list[Route]
) -> list[Translation]:
    gate = asyncio.Semaphore(TEXTS_AT_ONCE)
    seen = await hidden(exchange, found)

    async def one(index: int) -> Translation:
        way = through[index]
        async with gate:
            pieces = [
                piece async for piece in translate(way.model, seen[index], way.source, way.target)
            ]
        made = _translation(index, pieces, way)
        made.translation = await restored(exchange, made.translation)
        return made

    return await together(one(index) for index in range(len(found)))


def _translation(index: int, pieces: list[Piece], way: Route) -> Translation:
    return Translation(
        index,
        "".join(piece.text for piece in pieces),
        way.source,
        way.target,
        mean_score(pieces),
        way.model.name,
        way.model.version,
    )


async def _translation_events(
    exchange: Exchange, found: list[str], through: list[Route]
) -> AsyncGenerator[bytes, None]:
    ends = []
    seen = await hidden(exchange, found)
    for index, (text, way) in enumerate(zip(seen, through, strict=True)):
        pieces: list[Piece] = []
        texts = _noted(translate(way.model, text, way.source, way.target), pieces)
        async with aclosing(restored_pieces(exchange, texts)) as told:
            async for piece in told:
                yield event(TranslationDelta(index, piece))
        ends.append(_translation(index, pieces, way))
    yield event(TranslateAnswer(data=ends, usage=used_by_all(through)))


async def _noted(
    pieces: AsyncGenerator[Piece, None], noted: list[Piece]
) -> AsyncGenerator[str, None]:
    """Their texts; of the pieces the rest is noted."""
    async for piece in pieces:
        noted.append(piece._replace(text=""))
        yield piece.text


def used_by_all(through: list[Route]) -> TaskUsage:
    each = [used(model) for model in {way.model.name: way.model for way in through}.values()]
    return TaskUsage(
        sum(one.prompt_tokens for one in each),
        sum(one.completion_tokens for one in each),
        sum(one.total_tokens for one in each),
    )


ENDPOINTS = [
    Endpoint(
        "POST", "/v1/translate", translate_texts, "openai", "Texts in another language",
        body=TranslateBody, response=TranslateAnswer, task="translate",
    ),
]  # fmt: skip
