"""Rows as a network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Rows(NamedTuple):
    """Arrays whose first dimension is the row; perhaps mapped, with some rows of them meant."""

    inputs: list[Array]  # in the order of the network's inputs
    targets: Array
    weights: Array | None = None  # of each row's loss
    places: NDArray[np.int64] | None = None  # numbers of the rows that are meant; None: all

    @property
    def size(self) -> int:
        return len(self.targets if self.places is None else self.places)

    @property
    def bytes(self) -> int:
        """Of all rows in the types that they are computed with."""
        return self.size * sum(
            compact(one[:1]).nbytes for one in (*self.inputs, self.targets) if len(one)
        )

    def take(self, which: slice | NDArray[np.int64]) -> Rows:
        """Rows of these numbers, in this order, in memory."""
        places = which if self.places is None else self.places[which]
        return Rows(
            [compact(one[places]) for one in self.inputs],
            compact(self.targets[places]),
            None if self.weights is None else compact(self.weights[places]),
        )


def compact(array: Array) -> Array:
    """In a type that all backends compute with: float32, int32, uint8, int8 or bool."""
    if array.dtype.kind == "f":
        return np.asarray(array, np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1:
        return np.asarray(array, np.int32)
    return np.asarray(array)


def near_divisor(count: int, wanted: int) -> int:
    """A batch size from ``wanted / 2`` to ``wanted`` that leaves no rest, if there is one."""
    if count <= wanted:
        return max(1, count)
    exact: Sequence[int] = [size for size in range(wanted, wanted // 2, -1) if count % size == 0]
    return exact[0] if exact else wanted
