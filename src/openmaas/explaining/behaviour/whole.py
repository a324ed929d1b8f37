"""How a model behaves on rows whose truth is known: what it needs, how sure it is, what it takes
for what.

Pure computation over arrays and one ``predict``, which asks the model; who calls says where rows
come from and what a row looks like to people.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import EngineFailed
from openmaas.explaining.behaviour.answered import are_probabilities, probabilities
from openmaas.explaining.behaviour.calibration import Calibration, calibration
from openmaas.explaining.behaviour.confusion import Confusion, confusion, surest_mistakes
from openmaas.explaining.behaviour.importance import (
    Importances,
    Outputs,
    Place,
    Predict,
    accuracy_error,
    permutation_importance,
    rmse,
)
from openmaas.explaining.behaviour.neighbours import (
    Matrix,
    Nearest,
    Neighbour,
    Neighbours,
    most_similar,
)
from openmaas.explaining.behaviour.report import Part

ASKED_ABOUT = 3  # of the surest mistakes, whose neighbours are looked for where no input is given
SHOWN = 200  # characters of a text or row

Array = NDArray[Any]


class Rows(NamedTuple):
    """Rows of a data set as arrays whose first dimension is the row."""

    inputs: list[Array]  # of numbers, or of texts (dtype object)
    numbers: list[int]  # of each row, in the data set
    shown: Sequence[str]
    truths: list[str]  # as people read them


class Subject(NamedTuple):
    """A model and the rows that it is judged by."""

    predict: Predict
    rows: Rows
    labels: list[str] | None  # None: it tells numbers
    truth: Array  # [rows] the label's number, or float64 [rows, numbers]
    places: list[Place]  # columns whose importance is computed


class Training(NamedTuple):
    """What neighbours are looked for in."""

    rows: Rows
    of: int  # training rows in all
    by: str
    # (inputs of queries, inputs of training rows) → cosines [queries, training rows]
    similarity: Callable[[Sequence[Array], Sequence[Array]], Awaitable[Matrix]]
    given: Rows | None  # the caller's input, one row without truth; None: the surest mistakes
    k: int


class Found(NamedTuple):
    metrics: dict[str, float]
    importance: Importances | None
    calibration: Calibration | None
    confusion: Confusion | None
    neighbours: Neighbours | None
    notes: list[str]


class Numbers(NamedTuple):
    """Of one run."""

    repeats: int
    seed: int
    bins: int


def is_judged(parts: Sequence[Part], given: bool) -> bool:
    """Whether the rows with truth are needed: not for the neighbours of a given input alone."""
    return not given or any(part != "neighbours" for part in parts)


def passes(parts: Sequence[Part], rows: int, columns: int, repeats: int, *, given: bool) -> int:
    """Rows or texts that go through the model, at the most; vectors of neighbours not counted."""
    judged = rows if is_judged(parts, given) else 0
    permuted = rows * columns * repeats if "importance" in parts else 0
    return judged + permuted + (1 if given and "neighbours" in parts else 0)


async def whole(
    subject: Subject, training: Training | None, parts: Sequence[Part], numbers: Numbers
) -> Found:
    """Asks the model about all rows, and again for each column and repeat.

    Args:
        parts: that are possible: those of labels for a model that has labels, neighbours where
            there is ``training``.

    Raises:
        EngineFailed: the model answers what is not finite, or of another shape than the truth.
        OpenMaaSError: what ``predict`` raises.
    """
    notes: list[str] = []
    metrics: dict[str, float] = {}
    importance = reliability = confused = close = None
    judged = is_judged(parts, training is not None and training.given is not None)
    told: Outputs = np.empty((0, 0))
    predict = subject.predict
    if judged:
        outputs = _checked(await predict(subject.rows.inputs), subject)
        told = _as_told(outputs, subject, notes)
        metrics = _metrics(told, subject)
        if "importance" in parts:
            importance = await _importance(subject, metrics, outputs, numbers)
    if "calibration" in parts:
        reliability = calibration(told, subject.truth, numbers.bins)
    if "confusion" in parts:
        assert subject.labels is not None
        confused = confusion(
            told,
            subject.truth,
            subject.labels,
            subject.rows.numbers,
            subject.rows.shown,
        )
    if "neighbours" in parts:
        assert training is not None
        close = await _neighbours(subject, training, told, notes)
    return Found(metrics, importance, reliability, confused, close, notes)


# --- parts -----------------------------------------------------------------------------------


async def _importance(
    subject: Subject, metrics: dict[str, float], outputs: Outputs, numbers: Numbers
) -> Importances:
    plain = subject.labels is None or are_probabilities(outputs)
    error = rmse(subject.truth)
    if subject.labels is not None:
        wrong = accuracy_error(subject.truth)

        def error(found: Outputs) -> float:
            return wrong(probabilities(found, plain=plain))

    columns = await permutation_importance(
        subject.predict,
        subject.rows.inputs,
        subject.places,
        lambda found: error(_checked(found, subject)),
        error(outputs),
        repeats=numbers.repeats,
        seed=numbers.seed,
    )
    metric: Literal["accuracy", "rmse"] = "rmse" if subject.labels is None else "accuracy"
    return Importances(metric=metric, baseline=metrics[metric], columns=columns)


async def _neighbours(
    subject: Subject, training: Training, told: Outputs, notes: list[str]
) -> Neighbours:
    asked = training.given
    if asked is None:
        places = surest_mistakes(told, subject.truth)[:ASKED_ABOUT].tolist()
        if not places:
            notes.append("neighbours: the model mistakes none of the rows; give an input")
        asked, told = taken(subject.rows, places), told[places]
    else:
        outputs = _checked(await subject.predict(asked.inputs), subject, rows=1)
        told = _as_told(outputs, subject, notes)
    found: list[Nearest] = []
    if len(asked.shown):
        cosines = await training.similarity(asked.inputs, training.rows.inputs)
        order, similar = most_similar(cosines, training.k)
        found = [
            _nearest(subject, training, asked, at, told[at], order[at].tolist(), similar[at])
            for at in range(len(asked.shown))
        ]
    return Neighbours(
        by=training.by, searched=len(training.rows.numbers), training_rows=training.of, found=found
    )


def _nearest(
    subject: Subject, training: Training, asked: Rows, at: int, told: Outputs,
    order: list[int], similar: Matrix,
) -> Nearest:  # fmt: skip
    known = training.rows
    labels = subject.labels
    predicted = shown_numbers(told) if labels is None else labels[int(told.argmax())]
    agree = [known.truths[place] == predicted for place in order]
    return Nearest(
        row=asked.numbers[at] if asked.numbers else None,
        shown=asked.shown[at],
        true=asked.truths[at] if asked.truths else None,
        predicted=predicted,
        confidence=None if labels is None else float(told.max()),
        agreement=None if labels is None else sum(agree) / len(agree),
        examples=[
            Neighbour(known.numbers[place], known.shown[place], known.truths[place], float(cosine))
            for place, cosine in zip(order, similar, strict=True)
        ],
    )


def _metrics(told: Outputs, subject: Subject) -> dict[str, float]:
    if subject.labels is not None:
        return {"accuracy": float((told.argmax(1) == subject.truth).mean())}
    error = told - subject.truth
    found = {"rmse": float(np.sqrt((error**2).mean())), "mae": float(np.abs(error).mean())}
    spread = float(((subject.truth - subject.truth.mean(0)) ** 2).sum())
    if spread > 0:
        found["r2"] = 1 - float((error**2).sum()) / spread
    return found


# --- what a model answers ------------------------------------------------------------------------


def _as_told(outputs: Outputs, subject: Subject, notes: list[str]) -> Outputs:
    if subject.labels is None:
        return outputs
    plain = are_probabilities(outputs)
    note = "the model's numbers are no probabilities: their softmax is what is called confidence"
    if not plain and note not in notes:
        notes.append(note)
    return probabilities(outputs, plain=plain)


def _checked(outputs: Outputs, subject: Subject, rows: int | None = None) -> Outputs:
    rows = len(subject.rows.shown) if rows is None else rows
    width = subject.truth.shape[1] if subject.labels is None else len(subject.labels)
    fits = outputs.shape == (rows, width) or (
        outputs.shape == (rows, 1) and subject.labels is not None and width == 2
    )
    if not fits:
        raise EngineFailed(f"the model answers {outputs.shape} where {(rows, width)} is true")
    if not np.isfinite(outputs).all():
        raise EngineFailed("the model gave a number that is not finite")
    return outputs


# --- rows ----------------------------------------------------------------------------------------


def taken(rows: Rows, places: Sequence[int]) -> Rows:
    """Rows at some places."""
    return Rows(
        [one[list(places)] for one in rows.inputs],
        [rows.numbers[at] for at in places],
        [rows.shown[at] for at in places],
        [rows.truths[at] for at in places],
    )


def shortened(text: str) -> str:
    """A text on one line, no longer than is shown of it."""
    line = " ".join(text[: 4 * SHOWN].split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def shown_numbers(values: Array) -> str:
    return ", ".join(f"{value:.6g}" for value in values.reshape(-1)[:10].tolist())
