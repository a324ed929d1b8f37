"""Which label a model takes for which, and the mistakes that it is the surest of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

MOST_LABELS = 100  # beyond which a matrix tells nobody anything
MISTAKES = 20


class Mistake(Struct, frozen=True):
    row: int  # of the data set, from 0
    shown: str  # the text or the row, shortened
    true: str
    predicted: str
    confidence: float  # the model's, in what it predicted


class LabelQuality(Struct, frozen=True):
    label: str
    rows: int  # that have it
    precision: float | None  # of those that are told to have it; None: none is
    recall: float | None  # of those that have it; None: none does


class Confusion(Struct, frozen=True, kw_only=True):
    labels: list[str]
    matrix: list[list[int]] | None  # rows: true, columns: predicted; None: too many labels
    accuracy: float
    macro_f1: float  # of the labels that are there or told
    by_label: list[LabelQuality]  # of labels without a matrix none
    mistakes: list[Mistake]  # the surest first
    mistaken: int  # rows in all


def confusion(
    probabilities: NDArray[np.float64],
    truth: NDArray[np.int64],
    labels: Sequence[str],
    rows: Sequence[int],
    shown: Sequence[str],
) -> Confusion:
    """
    Args:
        probabilities: ``[rows, labels]``.
        truth: ``[rows]``: the number of the label that is true.
        rows: each one's number in the data set.
        shown: what people see of each.
    """
    told = probabilities.argmax(1)
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (truth, told), 1)
    right, have, are_told = counts.diagonal(), counts.sum(1), counts.sum(0)
    seen = have + are_told > 0
    f1 = 2 * right[seen] / (have + are_told)[seen]
    few = len(labels) <= MOST_LABELS
    wrong = surest_mistakes(probabilities, truth)
    return Confusion(
        labels=list(labels) if few else [],
        matrix=counts.tolist() if few else None,
        accuracy=float(right.sum() / len(truth)),
        macro_f1=float(f1.mean()),
        by_label=[
            LabelQuality(
                label,
                int(have[at]),
                float(right[at] / are_told[at]) if are_told[at] else None,
                float(right[at] / have[at]) if have[at] else None,
            )
            for at, label in enumerate(labels)
        ]
        if few
        else [],
        mistakes=[
            Mistake(
                int(rows[at]),
                shown[at],
                labels[truth[at]],
                labels[told[at]],
                float(probabilities[at, told[at]]),
            )
            for at in wrong[:MISTAKES].tolist()
        ],
        mistaken=len(wrong),
    )


def surest_mistakes(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Places of the rows that it is wrong about, the surest first, then as the rows come."""
    told = probabilities.argmax(1)
    wrong = np.flatnonzero(told != truth)
    order: NDArray[np.int64] = wrong[np.argsort(-probabilities[wrong, told[wrong]], kind="stable")]
    return order
