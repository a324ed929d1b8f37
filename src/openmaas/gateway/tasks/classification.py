"""Labels of texts; sentiment is one kind of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.openai_parameters import Count
from openmaas.gateway.tasks.common import TaskAnswer, TaskBody, hidden, texts, used
from openmaas.serving import ranking
from openmaas.tasks.classify import classify, methods

if TYPE_CHECKING:
    import numpy as np

    from openmaas.serving.asking import Asking

Label = Annotated[str, Meta(min_length=1, max_length=200)]
Template = Annotated[str, Meta(min_length=2, max_length=1000)]
LABELS = 1000  # of one call


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


async def labelled(
    exchange: Exchange,
    model: Asking,
    found: list[str],
    labels: list[str] | None,
    *,
    multi_label: bool,
    template: str | None = None,
) -> tuple[list[str], np.ndarray]:
    """As ``tasks.classify``, by the caller's redaction policy."""
    seen = await hidden(exchange, found)
    seen_labels = None if labels is None else await hidden(exchange, labels, "labels")
    if template is not None:
        (template,) = await hidden(exchange, [template], "hypothesis_template")
    names, scores = await exchange.complete(
        classify(model, seen, seen_labels, multi_label=multi_label, template=template)
    )
    return names if labels is None else labels, scores


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
    model = await exchange.pipeline.asking(exchange.ticket, body.model, what, order)
    await _classify(exchange, model, found, body)


async def sentiment(exchange: Exchange) -> None:
    """Whether texts are negative, neutral or positive."""
    body = exchange.decode(await exchange.body(), TaskBody)
    found = texts(body.input, exchange.limits)
    model = await exchange.pipeline.asking(
        exchange.ticket, body.model, "tell sentiment", ranking.feels
    )
    await _classify(exchange, model, found, ClassifyBody(input=body.input))


async def _classify(
    exchange: Exchange, model: Asking, found: list[str], body: ClassifyBody
) -> None:
    labels, scores = await labelled(
        exchange,
        model,
        found,
        body.labels,
        multi_label=bool(body.multi_label),
        template=body.hypothesis_template,
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


ENDPOINTS = [
    Endpoint(
        "POST", "/v1/classify", classify_texts, "openai", "Labels of texts",
        body=ClassifyBody, response=ClassifyAnswer, task="classify",
    ),
    Endpoint(
        "POST", "/v1/sentiment", sentiment, "openai", "Sentiment of texts",
        body=TaskBody, response=ClassifyAnswer, task="sentiment",
    ),
]  # fmt: skip
