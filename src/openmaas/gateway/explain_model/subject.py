"""A model and rows of a data set, made into what ``explaining`` computes with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.explaining.behaviour.importance import Place
from openmaas.explaining.behaviour.neighbours import Matrix, row_cosines
from openmaas.explaining.behaviour.report import OF_LABELS
from openmaas.explaining.behaviour.whole import Rows, Subject, Training, is_judged, taken
from openmaas.gateway.explain_model.asking import Answers, Form
from openmaas.gateway.explain_model.data import Data, Sampled, Shown, Trained
from openmaas.gateway.explain_model.plan import NO_LABELS, ExplainModelBody, Plan
from openmaas.serving.asking import Asking
from openmaas.training.datasets import DatasetRecord

Array = NDArray[Any]
Input = str | dict[str, Any] | list[Any]


class Gathered(NamedTuple):
    subject: Subject
    training: Training | None
    plan: Plan
    target: str
    notes: list[str]


async def gather(
    data: Data,
    body: ExplainModelBody,
    how: Form,
    trained: Trained,
    record: DatasetRecord,
    made: Plan,
    answers: Answers,
    embedding: Asking | None,
) -> Gathered:
    """
    Raises:
        InvalidRequest: the rows are not as the model reads them, or the input is not.
    """
    notes: list[str] = []
    if trained.dataset == record.id and body.split == "train":
        notes.append("the model was trained on these rows: it is better on them than on others")
    known = judged = None
    if made.training:
        known = await data.sample(record, how, trained, "train", made.training, body.seed)
    if is_judged(made.parts, body.input is not None):
        judged = await data.sample(record, how, trained, body.split, made.rows, body.seed)
    rows = judged or known
    if rows is None:  # nothing at all is possible
        rows = await data.sample(record, how, trained, body.split, 1, body.seed)
    labels = _labels(how, rows)
    subject = _subject(answers, how, rows, labels, notes)
    if labels is None:
        for part in OF_LABELS:
            made = made.without(part, NO_LABELS)
        if body.input is None:
            made = made.without("neighbours", f"{NO_LABELS}: give an input")
    made = made._replace(rows=0 if judged is None else len(subject.rows.numbers))
    training = None
    if known is not None and "neighbours" in made.parts:
        training = Training(
            rows=known.rows,
            of=(record.description.splits["train"] if record.description else 0),
            by="standardised columns" if embedding is None else
               f"{embedding.name}@{embedding.version}",
            similarity=_by_rows if embedding is None else _by_texts(answers, embedding),
            given=None if body.input is None else given_row(body.input, how, known),
            k=body.k,
        )  # fmt: skip
    return Gathered(subject, training, made, rows.target, notes)


def _labels(how: Form, sampled: Sampled) -> list[str] | None:
    """Those of the model's numbers; without a word on them, 0, 1 …, if that is what is true."""
    if sampled.labels is None:
        return None
    if how.labels is not None:
        return how.labels
    numbers = [str(at) for at in range(how.width)]
    if how.width < 2 or not set(sampled.labels) <= set(numbers):
        raise InvalidRequest(
            f"the model answers {how.width} numbers, and nothing says which labels they are of",
            param="model",
        )
    return numbers


def _subject(
    answers: Answers, how: Form, sampled: Sampled, labels: list[str] | None, notes: list[str]
) -> Subject:
    rows = sampled.rows
    places = _places(how, sampled)
    if labels is None:
        return Subject(answers, rows, None, sampled.values, places)
    numbers = {label: at for at, label in enumerate(labels)}
    truth = [numbers.get(label, -1) for label in sampled.labels or []]
    known = [at for at, number in enumerate(truth) if number >= 0]
    if not known:
        raise InvalidRequest(
            f"the model knows none of the labels in {sampled.target}; it has: "
            + ", ".join(labels)[:500],
            param="dataset",
        )
    if len(known) < len(truth):
        notes.append(
            f"{len(truth) - len(known)} rows have labels that the model does not know, and are "
            "left out"
        )
        rows = taken(rows, known)
    return Subject(answers, rows, labels, np.array(truth)[known], places)


def _places(how: Form, sampled: Sampled) -> list[Place]:
    inputs = sampled.rows.inputs
    if how.reads == "texts":
        return []
    if len(inputs) == 1 and inputs[0].ndim == 2 and inputs[0].shape[1] > 1:
        name = how.ports[0].name
        names = sampled.columns or [f"{name}[{at}]" for at in range(inputs[0].shape[1])]
        return [Place(one, 0, at) for at, one in enumerate(names)]
    if sampled.columns:
        return [Place(sampled.columns[0], 0)]
    return [Place(port.name, at) for at, port in enumerate(how.ports)]


# --- neighbours --------------------------------------------------------------------------------


async def _by_rows(queries: Sequence[Array], rows: Sequence[Array]) -> Matrix:
    return await asyncio.to_thread(row_cosines, queries, rows)


def _by_texts(answers: Answers, embedding: Asking) -> Any:
    async def similarity(queries: Sequence[Array], rows: Sequence[Array]) -> Matrix:
        asked = await answers.vectors(embedding, queries[0].tolist())
        known = await answers.vectors(embedding, rows[0].tolist())
        return asked @ known.T

    return similarity


def given_row(given: Input, how: Form, known: Sampled) -> Rows:
    """The caller's input as one row.

    Raises:
        InvalidRequest: it is not as the model reads rows.
    """
    if how.reads == "texts":
        if not isinstance(given, str) or not given.strip():
            raise InvalidRequest("the model reads texts: input is one, not empty", param="input")
        text = [np.array([given], object)]
        return Rows(text, [], Shown([""], text), [])
    names = [port.name for port in how.ports]
    if isinstance(given, list) and len(names) == 1:
        given = {names[0]: given}
    if isinstance(given, dict) and len(names) == 1 and set(given) == set(known.columns):
        given = {names[0]: [given[name] for name in known.columns]}
    if not isinstance(given, dict) or set(given) != set(names):
        raise InvalidRequest(
            f"input is an object with a value for each of: {', '.join(names)[:1000]}",
            param="input",
        )
    inputs = [
        _cell(given[name], name, like) for name, like in zip(names, known.rows.inputs, strict=True)
    ]
    return Rows(inputs, [], Shown(names, inputs, known.columns), [])


def _cell(value: Any, name: str, like: Array) -> Array:
    if like.dtype == object:
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"input: {name!r} is a text", param="input")
        return np.array([value or ""], object)
    try:
        made = np.array(np.nan if value is None else value, "<f4")
        return made.reshape(1, *like.shape[1:])
    except (TypeError, ValueError, OverflowError):
        sides = "×".join(map(str, like.shape[1:])) or "one number"
        raise InvalidRequest(f"input: {name!r} is {sides}", param="input") from None
