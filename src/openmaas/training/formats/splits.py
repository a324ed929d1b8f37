"""Which rows are for training, which are held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openmaas.training.data import SPLITS
from openmaas.training.options import Fractions

NAMES = {"train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2}
TARGETS = ("label", "labels", "target", "class", "y", "category", "sentiment", "topic")


def assign(groups: NDArray[np.int64], fractions: Fractions, seed: int) -> NDArray[np.uint8]:
    """The split of each row, an index of SPLITS: of each group alike, up to one row.

    Args:
        groups: numbers from 0, which value of the target each row has; all 0: one group.

    Returns:
        The same for the same arguments. A group's last row is always for training.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    found = np.zeros(len(groups), np.uint8)
    start = 0
    for size in np.bincount(groups).tolist():
        if not size:
            continue
        # Rounded where the groups end, so that the sums over all are right to one row too.
        test, validation = (
            round(part * (start + size)) - round(part * start)
            for part in (fractions.test, fractions.validation)
        )
        test = min(test, size - 1)
        validation = min(validation, size - 1 - test)
        found[order[start : start + test]] = SPLITS.index("test")
        found[order[start + test : start + test + validation]] = SPLITS.index("validation")
        start += size
    return found


def target_of(names: list[str], given: str | None) -> str | None:
    """The column that is to be learned: the one that is given, else the one so called.

    Raises:
        KeyError: there is none of the name that is given.
    """
    if given is not None:
        if given not in names:
            raise KeyError(given)
        return given
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[one] for one in TARGETS if one in lower), None)
