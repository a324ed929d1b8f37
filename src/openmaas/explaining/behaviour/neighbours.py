"""Which training examples are the most like an input, and whether they agree with the model.

In the spirit of Papernot and McDaniel, "Deep k-Nearest Neighbors", 2018,
https://arxiv.org/abs/1803.04765, who look at the layers of the network itself; here texts are
compared by a deployed embedding model, and rows by their standardised columns, so that any model
can be asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

SOURCE = "after Papernot and McDaniel 2018, https://arxiv.org/abs/1803.04765"

Array = NDArray[Any]
Matrix = NDArray[np.float64]


class Neighbour(Struct, frozen=True):
    row: int  # of the data set, from 0
    shown: str
    label: str  # or the number that is to be told
    similarity: float  # cosine, −1 … 1


class Nearest(Struct, frozen=True, kw_only=True):
    """The training examples that are the most like one input."""

    row: int | None  # of the data set; None: the caller gave it
    shown: str
    true: str | None
    predicted: str
    confidence: float | None  # None: a number is predicted
    agreement: float | None  # share of the examples that have the label that is predicted
    examples: list[Neighbour]  # the most similar first


class Neighbours(Struct, frozen=True, kw_only=True):
    by: str  # what makes vectors of texts or rows
    searched: int  # training rows
    training_rows: int  # in all
    found: list[Nearest]
    source: str = SOURCE


def nearest(queries: Matrix, vectors: Matrix, k: int) -> tuple[NDArray[np.int64], Matrix]:
    """The most similar of some vectors.

    Args:
        queries: ``[queries, dimensions]``, and ``vectors`` ``[vectors, dimensions]``; a vector of
            zeros is like nothing.

    Returns:
        Places and cosines, ``[queries, min(k, vectors)]``, the most similar first.
    """
    return most_similar(_unit(queries) @ _unit(vectors).T, k)


def most_similar(cosines: Matrix, k: int) -> tuple[NDArray[np.int64], Matrix]:
    """The ``k`` largest of each row, the largest first; of equals, the first."""
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosines, order, 1)


def row_cosines(queries: Sequence[Array], rows: Sequence[Array]) -> Matrix:
    """Cosines between rows of a table, ``[queries, rows]``.

    Number columns are standardised by what ``rows`` are like (one that is missing is their mean);
    a category stands for a vector with a one in its value's place, so that two that are the same
    add 1.

    Args:
        queries, rows: an array for each column, of numbers ``[rows, …]`` or of texts ``[rows]``.
    """
    dots = np.zeros((len(queries[0]), len(rows[0])))
    own, theirs = np.zeros(len(queries[0])), np.zeros(len(rows[0]))
    for asked, known in zip(queries, rows, strict=True):
        if known.dtype.kind in "OU":
            dots += asked[:, None] == known[None, :]
            own += 1
            theirs += 1
            continue
        left, right = _standardised(asked, known)
        dots += left @ right.T
        own += (left**2).sum(1)
        theirs += (right**2).sum(1)
    lengths = np.sqrt(own)[:, None] * np.sqrt(theirs)[None, :]
    found: Matrix = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return found


def _standardised(asked: Array, known: Array) -> tuple[Matrix, Matrix]:
    left, right = (np.asarray(one, np.float64).reshape(len(one), -1) for one in (asked, known))
    there = np.isfinite(right)
    count = np.maximum(there.sum(0), 1)
    mean = np.where(there, right, 0).sum(0) / count
    spread = np.sqrt((np.where(there, right - mean, 0) ** 2).sum(0) / count)
    # A column that never varies tells nothing apart.
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-12)
    left, right = (np.where(np.isfinite(one), one - mean, 0) * scale for one in (left, right))
    return left, right


def _unit(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Matrix = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
