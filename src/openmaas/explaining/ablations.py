"""Which parts are kept in each of several ablations of a text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NEAR = 12  # columns before one whose products with it count: all, of a short text
_TRIES = 64  # draws of a column, of which the one that is least like an earlier column is kept


def uniform(parts: int, samples: int, seed: int) -> NDArray[np.bool_]:
    """``samples × parts``: each part is kept or not, by a coin (ContextCite's own draw)."""
    return np.random.default_rng(seed).random((samples, parts)) < 0.5


def branching(parts: int, samples: int, seed: int) -> NDArray[np.bool_]:
    """``samples × parts``: drawn like ``uniform``, but so that many begin alike.

    The first parts are decided for several ablations at once: of ``d`` parts there are
    ``max(samples/4, 2d, samples^(d/parts))`` beginnings and not ``2^d``. As an engine reads each
    beginning once, that saves it about a third of its work. Each part is kept in half of the
    ablations (one more or less), and columns are drawn to be little like earlier ones and the
    products of two of them, as in a fractional factorial design (Box, Hunter & Hunter 2005,
    chapter 6): what two parts do together is not to pass for what a third does. With no more than
    ``samples`` subsets of the parts, each is one.
    """
    if parts < 30 and 1 << parts <= samples:
        numbers = np.arange(1 << parts)[:, None]
        every: NDArray[np.bool_] = (numbers >> np.arange(parts)[::-1]) & 1 == 1
        return every
    generator = np.random.default_rng(seed)
    groups = [np.arange(samples)]  # ablations that are alike so far
    columns: list[NDArray[np.bool_]] = []
    # The sum of all (signs of a column)ᵀ(signs of it) of columns so far and products of two.
    others = np.zeros((samples, samples))
    for depth in range(1, parts + 1):
        most = max(samples // 4, 2 * depth, int(np.ceil(samples ** (depth / parts))))
        wanted = min(samples, 2 * len(groups), most)
        groups.sort(key=len, reverse=True)
        split, whole = groups[: wanted - len(groups)], groups[wanted - len(groups) :]
        drawn = [_column(generator, split, whole, samples) for _ in range(_TRIES)]
        column = drawn[int(np.argmin(_likeness(drawn, others)))]
        sign = np.where(column, 1.0, -1.0)
        latest = [np.where(one, 1.0, -1.0) for one in columns[-_NEAR:]]
        added = np.array([sign, *(sign * one for one in latest)])
        others += added.T @ added
        columns.append(column)
        groups = [
            half for group in groups for half in (group[column[group]], group[~column[group]])
            if len(half)
        ]  # fmt: skip
    return np.stack(columns, axis=1)


def _column(
    generator: np.random.Generator,
    split: list[NDArray[np.int64]],
    whole: list[NDArray[np.int64]],
    samples: int,
) -> NDArray[np.bool_]:
    column = np.zeros(samples, np.bool_)
    balance = 0  # kept so far, less lost
    for at in generator.permutation(len(split)):
        group = generator.permutation(split[at])
        more = balance < 0 or (balance == 0 and generator.random() < 0.5)
        kept = (len(group) + 1) // 2 if more else len(group) // 2
        column[group[:kept]] = True
        balance += 2 * kept - len(group)
    for at in sorted(generator.permutation(len(whole)), key=lambda at: -len(whole[at])):
        keep = balance < 0 or (balance == 0 and generator.random() < 0.5)
        column[whole[at]] = keep
        balance += len(whole[at]) if keep else -len(whole[at])
    return column


def _likeness(drawn: list[NDArray[np.bool_]], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each column its squared correlations with others, added; of a constant one, infinite."""
    signs = np.where(np.array(drawn), 1.0, -1.0)
    likeness = np.einsum("is,st,it->i", signs, others, signs, optimize=True)
    constant = np.abs(signs.sum(axis=1)) == signs.shape[1]
    found: NDArray[np.float64] = np.where(constant, np.inf, likeness)
    return found
