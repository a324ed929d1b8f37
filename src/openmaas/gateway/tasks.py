"""The language tasks as typed endpoints: tokenize, classify, sentiment, rerank."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest, PayloadTooLarge
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.openai_parameters import Count, ModelName
from openmaas.inference import Tokenize, Tokenized
from openmaas.serving import ranking
from openmaas.tasks.asking import together
from openmaas.tasks.classify import classify, methods
from openmaas.tasks.languages import base, detect, own_code
from openmaas.tasks.languages import check as check_language
from openmaas.tasks.rerank import rerank
from openmaas.tasks.summarize import Length, Style, condense, extract, method
from openmaas.tasks.translate import Piece, translate
from openmaas.tasks.translate import score as mean_score

if TYPE_CHECKING:
    import numpy as np

    from openmaas.config import Limits
    from openmaas.serving.asking import Asking

Input = str | Annotated[list[str], Meta(min_length=1)]
Label = Annotated[str, Meta(min_length=1, max_length=200)]
Template = Annotated[str, Meta(min_length=2, max_length=1000)]
Language = Annotated[str, Meta(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$")]
LABELS = 1000  # of one call
TEXTS_AT_ONCE = 8  # of those that take a task several requests


class TaskBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every task takes."""

    model: ModelName | None = None  # None: the deployed one that does the task best
    input: Input


class TaskUsage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TaskAnswer(Struct, kw_only=True):
    """What every task answers."""

    model: str
    version: str
    usage: TaskUsage


def texts(given: Input, limits: Limits, param: str = "input") -> list[str]:
    """One text or several, none of them empty or too long.

    Raises:
        InvalidRequest, PayloadTooLarge: one is.
    """
    found = [given] if isinstance(given, str) else given
    if len(found) > limits.inputs:
        raise InvalidRequest(
            f"{param}: {len(found)} texts are over the limit of {limits.inputs}", param=param
        )
    for index, text in enumerate(found):
        if not text.strip():
            raise InvalidRequest(f"{param} {index} is empty", param=param)
    total = sum(map(len, found))
    if total > limits.text_characters:
        raise PayloadTooLarge(
            f"{param} has {total} characters; the limit of one call is {limits.text_characters}",
            param=param,
        )
    return found


def used(model: Asking) -> TaskUsage:
    tokens = model.usage
    total = tokens.input_tokens + tokens.output_tokens
    return TaskUsage(tokens.input_tokens, tokens.output_tokens, total)


# --- tokenize ------------------------------------------------------------------------------


class Token(Struct):
    id: int
    text: str  # U+FFFD where a character is split between tokens
    bytes: list[int]


class TokenList(Struct):
    index: int
    count: int
    tokens: list[Token]


class TokenizeAnswer(TaskAnswer, kw_only=True):
    data: list[TokenList]


async def tokenize(exchange: Exchange) -> None:
    """Splits texts as a model does."""
    body = exchange.decode(await exchange.body(), TaskBody)
    found = texts(body.input, exchange.limits)
    model = await exchange.pipeline.asking(body.model, "tokenize", ranking.tokenizes)
    answer = await exchange.complete(model.ask(Tokenize(inputs=found)))
    assert isinstance(answer, Tokenized)
    data = [
        TokenList(
            index,
            len(one),
            [Token(id, piece.decode(errors="replace"), [*piece]) for id, piece in one],
        )
        for index, one in enumerate(answer.outputs)
    ]
    await exchange.respond_json(
        TokenizeAnswer(model=model.name, version=model.version, usage=used(model), data=data)
    )


# --- classify and sentiment ------------------------------------------------------------------


class ClassifyBody(TaskBody, forbid_unknown_fields=True, kw_only=True):
    labels: list[Label] | None = None  # None: the model's own
    multi_label: bool | None = None
    hypothesis_template: Template | None = None  # "This text is about {}."
    top_k: Count | None = None  # so many labels of each text, the likeliest first


class LabelScore(Struct):
    label: str
    score: float


class Classification(Struct):
    index: int
    label: str  # of the highest score
    score: float
    scores: list[LabelScore]  # the highest first


class ClassifyAnswer(TaskAnswer, kw_only=True):
    method: str
    data: list[Classification]


def check_labels(labels: Sequence[str] | None, *, multi_label: bool, param: str) -> None:
    """
    Raises:
        InvalidRequest: too few or too many labels, or one twice.
    """
    if labels is None:
        return
    least = 1 if multi_label else 2
    if not least <= len(labels) <= LABELS:
        raise InvalidRequest(
            f"{param} takes from {least} to {LABELS} labels, got {len(labels)}"
            + ("" if labels[1:] else "; with one alone every text has it, unless multi_label"),
            param=param,
        )
    if any(not label.strip() for label in labels):
        raise InvalidRequest(f"{param} has an empty label", param=param)
    if len(set(labels)) < len(labels):
        raise InvalidRequest(f"{param} names a label twice", param=param)


def ranked(labels: Sequence[str], scores: np.ndarray, most: int | None) -> list[LabelScore]:
    """Labels of one text, the highest score first."""
    order = (-scores).argsort(kind="stable")[:most]
    return [LabelScore(labels[index], float(scores[index])) for index in order]


async def classify_texts(exchange: Exchange) -> None:
    """Labels of texts, given ones or the model's own."""
    body = exchange.decode(await exchange.body(), ClassifyBody)
    found = texts(body.input, exchange.limits)
    many = bool(body.multi_label)
    check_labels(body.labels, multi_label=many, param="labels")
    own = body.labels is None
    what = "classify without labels given" if own else "classify"
    order = ranking.classifies if own else ranking.classifies_by_labels
    if body.model is not None:
        order = ranking.classifies_somehow
    model = await exchange.pipeline.asking(body.model, what, order)
    await _classify(exchange, model, found, body)


async def sentiment(exchange: Exchange) -> None:
    """Whether texts are negative, neutral or positive."""
    body = exchange.decode(await exchange.body(), TaskBody)
    found = texts(body.input, exchange.limits)
    model = await exchange.pipeline.asking(body.model, "tell sentiment", ranking.feels)
    await _classify(exchange, model, found, ClassifyBody(input=body.input))


async def _classify(
    exchange: Exchange, model: Asking, found: list[str], body: ClassifyBody
) -> None:
    labels, scores = await exchange.complete(
        classify(
            model,
            found,
            body.labels,
            multi_label=bool(body.multi_label),
            template=body.hypothesis_template,
        )
    )
    data = []
    for index, row in enumerate(scores):
        best = ranked(labels, row, body.top_k)
        data.append(Classification(index, best[0].label, best[0].score, best))
    await exchange.respond_json(
        ClassifyAnswer(
            model=model.name,
            version=model.version,
            method=methods(model.info.task),
            data=data,
            usage=used(model),
        )
    )


# --- rerank ----------------------------------------------------------------------------------


class Document(Struct, forbid_unknown_fields=True):
    text: str


class RerankBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """As Cohere's and Jina's clients send it."""

    model: ModelName | None = None
    query: str
    documents: Annotated[list[str | Document], Meta(min_length=1)]
    top_n: Count | None = None
    return_documents: bool | None = None


class Relevance(Struct, omit_defaults=True):
    index: int
    relevance_score: float
    document: Document | None = None


class RerankAnswer(TaskAnswer, kw_only=True):
    results: list[Relevance]  # the most relevant first


async def rerank_documents(exchange: Exchange) -> None:
    """Documents in the order of their relevance to a query."""
    body = exchange.decode(await exchange.body(), RerankBody)
    given = [one if isinstance(one, str) else one.text for one in body.documents]
    found = texts(given, exchange.limits, "documents")
    (query,) = texts(body.query, exchange.limits, "query")
    model = await exchange.pipeline.asking(body.model, "rerank", ranking.reranks)
    scores = await exchange.complete(rerank(model, query, found))
    order = (-scores).argsort(kind="stable")[: body.top_n]
    results = [
        Relevance(
            int(index),
            float(scores[index]),
            Document(found[index]) if body.return_documents else None,
        )
        for index in order
    ]
    await exchange.respond_json(
        RerankAnswer(model=model.name, version=model.version, results=results, usage=used(model))
    )


# --- summarize -------------------------------------------------------------------------------


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
    model = await exchange.pipeline.asking(body.model, "summarize", ranking.summarizes)
    if body.stream:
        await exchange.relay(_summary_events(model, found, body))
        return
    await exchange.respond_json(await exchange.complete(_summaries(model, found, body)))


async def _summary(
    model: Asking, text: str, body: SummarizeBody
) -> AsyncGenerator[tuple[str, list[float] | None], None]:
    wanted = (body.length or "medium", body.style or "paragraph", body.language)
    if model.info.task == "embed":
        yield await extract(model, text, *wanted)
        return
    async for piece in condense(model, text, *wanted):
        yield piece, None


async def _summaries(model: Asking, found: list[str], body: SummarizeBody) -> SummarizeAnswer:
    gate = asyncio.Semaphore(TEXTS_AT_ONCE)

    async def one(index: int, text: str) -> Summary:
        async with gate:
            parts = [part async for part in _summary(model, text, body)]
        return Summary(index, "".join(part for part, _ in parts).strip(), parts[0][1])

    data = await together(one(index, text) for index, text in enumerate(found))
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
    model: Asking, found: list[str], body: SummarizeBody
) -> AsyncGenerator[bytes, None]:
    """A delta for each piece of each text in turn, then the rest of the answer."""
    for index, text in enumerate(found):
        async for piece, _ in _summary(model, text, body):
            yield event(SummaryDelta(index, piece))
    end = SummarizeAnswer(
        model=model.name,
        version=model.version,
        method=method(model.info.task),
        data=[],
        usage=used(model),
    )
    yield event(end) + b"data: [DONE]\n\n"


def event(value: Struct) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


# --- translate -------------------------------------------------------------------------------


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
        if base(body.source) == base(body.target) and body.source == body.target:
            raise InvalidRequest("source and target are the same language", param="target")
    if body.model is not None:
        models = [
            await exchange.pipeline.asking(body.model, "translate", ranking.translates_somehow)
        ]
    else:
        models = await exchange.pipeline.able(ranking.translates)
    among = {code for model in models for code in model.info.source_languages}
    ways = []
    for text in found:
        source = body.source
        if source is None:
            source = await asyncio.to_thread(detect, text, sorted(among))
        ways.append(route(models, source, body.target))
    return ways


async def translate_texts(exchange: Exchange) -> None:
    """Texts in another language."""
    body = exchange.decode(await exchange.body(), TranslateBody)
    found = texts(body.input, exchange.limits)
    ways = await routes(exchange, body, found)
    if body.stream:
        await exchange.relay(_translation_events(found, ways))
        return
    data = await exchange.complete(translations(found, ways))
    await exchange.respond_json(TranslateAnswer(data=data, usage=used_by_all(ways)))


async def translations(found: list[str], ways: list[Route]) -> list[Translation]:
    gate = asyncio.Semaphore(TEXTS_AT_ONCE)

    async def one(index: int) -> Translation:
        way = ways[index]
        async with gate:
            pieces = [
                piece async for piece in translate(way.model, found[index], way.source, way.target)
            ]
        return _translation(index, pieces, way)

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


async def _translation_events(found: list[str], ways: list[Route]) -> AsyncGenerator[bytes, None]:
    ends = []
    for index, (text, way) in enumerate(zip(found, ways, strict=True)):
        pieces = []
        async for piece in translate(way.model, text, way.source, way.target):
            pieces.append(piece._replace(text=""))
            yield event(TranslationDelta(index, piece.text))
        ends.append(_translation(index, pieces, way))
    yield event(TranslateAnswer(data=ends, usage=used_by_all(ways))) + b"data: [DONE]\n\n"


def used_by_all(ways: list[Route]) -> TaskUsage:
    each = [used(model) for model in {way.model.name: way.model for way in ways}.values()]
    return TaskUsage(
        sum(one.prompt_tokens for one in each),
        sum(one.completion_tokens for one in each),
        sum(one.total_tokens for one in each),
    )


def endpoints() -> list[Endpoint]:
    return [
        Endpoint(
            "POST", "/v1/tokenize", tokenize, "openai", "Split texts into tokens",
            body=TaskBody, response=TokenizeAnswer,
        ),
        Endpoint(
            "POST", "/v1/classify", classify_texts, "openai", "Labels of texts",
            body=ClassifyBody, response=ClassifyAnswer,
        ),
        Endpoint(
            "POST", "/v1/sentiment", sentiment, "openai", "Sentiment of texts",
            body=TaskBody, response=ClassifyAnswer,
        ),
        Endpoint(
            "POST", "/v1/rerank", rerank_documents, "openai", "Documents by relevance to a query",
            body=RerankBody, response=RerankAnswer,
        ),
        Endpoint(
            "POST", "/v1/summarize", summarize, "openai", "What texts say, in fewer words",
            body=SummarizeBody, response=SummarizeAnswer,
        ),
        Endpoint(
            "POST", "/v1/translate", translate_texts, "openai", "Texts in another language",
            body=TranslateBody, response=TranslateAnswer,
        ),
    ]  # fmt: skip
