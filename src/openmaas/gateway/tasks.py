"""The language tasks as typed endpoints: tokenize, classify, sentiment, rerank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest, PayloadTooLarge
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.openai_parameters import Count, ModelName
from openmaas.inference import Tokenize, Tokenized
from openmaas.serving import ranking
from openmaas.tasks.classify import classify, methods
from openmaas.tasks.rerank import rerank

if TYPE_CHECKING:
    import numpy as np

    from openmaas.config import Limits
    from openmaas.serving.asking import Asking

Input = str | Annotated[list[str], Meta(min_length=1)]
Label = Annotated[str, Meta(min_length=1, max_length=200)]
Template = Annotated[str, Meta(min_length=2, max_length=1000)]
LABELS = 1000  # of one call


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
    ]  # fmt: skip
