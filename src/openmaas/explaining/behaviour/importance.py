"""How much worse a model is where it does not know a column: permutation importance.

Breiman, "Random Forests", Machine Learning 45 (2001), section 10, of any model and any error as in
Fisher, Rudin and Dominici, "All Models are Wrong, but Many are Useful", JMLR 20 (2019). One
column's values are dealt out anew among the rows, and the model answers again. Columns that say
the same hide one another: where either is enough, neither is missed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

SOURCE = "Breiman 2001; Fisher et al. 2019, https://jmlr.org/papers/v20/18-760.html"

Array = NDArray[Any]
Outputs = NDArray[np.float64]
Metric = Literal["accuracy", "rmse"]
# Arrays whose first dimension is the row → [rows, numbers]. An array that is the very same one as
# in an earlier call need not be read anew.
Predict = Callable[[Sequence[Array]], Awaitable[Outputs]]


class Place(NamedTuple):
    """A column that can be dealt out anew."""

    name: str
    block: int  # which of the arrays …
    at: int | None = None  # … and which number of its rows; None: all of the row


class Importance(Struct, frozen=True):
    column: str
    mean: float  # how much the accuracy falls, or the RMSE rises
    deviation: float  # standard deviation over the repeats
    repeats: list[float]  # each one's


class Importances(Struct, frozen=True, kw_only=True):
    metric: Metric
    baseline: float  # the metric with every column as it is
    columns: list[Importance]  # the most important first
    source: str = SOURCE


async def permutation_importance(
    predict: Predict,
    inputs: Sequence[Array],
    places: Sequence[Place],
    error: Callable[[Outputs], float],
    baseline: float,
    *,
    repeats: int,
    seed: int,
) -> list[Importance]:
    """
    Args:
        inputs: arrays whose first dimension is the row.
        error: of the outputs of all rows; the less the better.
        baseline: the error of the rows as they are.

    Returns:
        How much the error rises without each column, the most first. Each column is dealt out by
        a generator of its own, so that a seed gives the same whichever others there are.

    Raises:
        OpenMaaSError: what ``predict`` raises.
    """
    rows = len(inputs[0])
    found = []
    for number, place in enumerate(places):
        drawn = np.random.default_rng([seed, number])
        rises = []
        for _ in range(repeats):
            dealt = list(inputs)
            dealt[place.block] = _dealt(inputs[place.block], place.at, drawn.permutation(rows))
            rises.append(error(await predict(dealt)) - baseline)
        mean, deviation = float(np.mean(rises)), float(np.std(rises))
        found.append(Importance(place.name, mean, deviation, rises))
    return sorted(found, key=lambda one: (-one.mean, one.column))


def _dealt(block: Array, at: int | None, order: NDArray[np.int64]) -> Array:
    if at is None:
        return block[order]
    made = block.copy()
    made[:, at] = block[order, at]
    return made


def accuracy_error(truth: NDArray[np.int64]) -> Callable[[Outputs], float]:
    """The share of rows whose likeliest label is not the true one."""
    return lambda outputs: float((outputs.argmax(1) != truth).mean())


def rmse(truth: Outputs) -> Callable[[Outputs], float]:
    """Root of the mean squared error over all numbers of all rows, ``[rows, numbers]``."""
    return lambda outputs: float(np.sqrt(((outputs - truth) ** 2).mean()))
