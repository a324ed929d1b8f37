"""Whether attributions name what a model goes by: deletion and insertion curves, and what becomes
of the attributions where the model's weights are random.

Sources: Samek et al. 2017, "Evaluating the Visualization of What a Deep Neural Network Has Learned"
(the area over the deletion curve, and random orders beside it); Petsiuk, Das and Saenko 2018,
"RISE" (the areas under both curves); Adebayo et al. 2018, "Sanity Checks for Saliency Maps" (rank
correlations with what a network of random weights gets).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
Play = Callable[[Masks], Floats]  # [coalitions, parts] → of each the explained probability

RESAMPLES = 1000


class Areas(NamedTuple):
    """Of one input. Mean probabilities over the share of parts that is gone, or there."""

    deletion: float  # parts go, the one of the greatest attribution first
    insertion: float  # parts come, the one of the greatest attribution first
    whole: float  # the probability where nothing is gone

    @property
    def drop(self) -> float:
        """The area over the deletion curve: how much of the probability is gone, on average."""
        return self.whole - self.deletion


class Ratio(NamedTuple):
    """A ratio of two means over inputs, with the bootstrap's 95 % interval."""

    value: float
    low: float
    high: float


def order_of(attributions: Sequence[float] | Floats) -> NDArray[np.int64]:
    """Parts, the one of the greatest attribution first; as they come where they are equal."""
    order: NDArray[np.int64] = np.argsort(-np.asarray(attributions, np.float64), kind="stable")
    return order


def insertions(order: NDArray[np.int64]) -> Masks:
    """[parts + 1, parts]: nothing is there, then the first part of the order, … then all."""
    places = np.argsort(order)
    masks: Masks = places[None, :] < np.arange(len(order) + 1)[:, None]
    return masks


def deletions(order: NDArray[np.int64]) -> Masks:
    """[parts + 1, parts]: all is there, then all but the first part of the order, …"""
    return ~insertions(order)


def area(curve: Floats) -> float:
    """Under a curve over [0, 1] that is known at equal distances (trapezoids)."""
    return float(np.trapezoid(curve) / (len(curve) - 1))


def areas(play: Play, orders: Sequence[NDArray[np.int64]]) -> list[Areas]:
    """Of several orders of one input's parts. The model is asked about no coalition twice."""
    masks = np.concatenate(
        [part for order in orders for part in (deletions(order), insertions(order))]
    )
    different, where = np.unique(masks, axis=0, return_inverse=True)
    values = np.asarray(play(different), np.float64)[where.reshape(-1)]
    curves = values.reshape(len(orders), 2, -1)
    return [Areas(area(gone), area(come), float(gone[0])) for gone, come in curves]


def random_orders(parts: int, count: int, seed: int) -> list[NDArray[np.int64]]:
    chance = np.random.default_rng(seed)
    return [chance.permutation(parts) for _ in range(count)]


def mean_of(found: Sequence[Areas]) -> Areas:
    """Of several orders, such as random ones."""
    return Areas(*np.mean([tuple(one) for one in found], axis=0).tolist())


def ratio(over: Sequence[float], under: Sequence[float], seed: int = 0) -> Ratio:
    """Mean of ``over`` ÷ mean of ``under``; inputs are drawn again for the interval."""
    top, bottom = np.asarray(over, np.float64), np.asarray(under, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(top), (RESAMPLES, len(top)))
    with np.errstate(divide="ignore", invalid="ignore"):
        again = top[drawn].mean(1) / bottom[drawn].mean(1)
    low, high = np.percentile(again, [2.5, 97.5])
    return Ratio(float(top.mean() / bottom.mean()), float(low), float(high))


def drop_ratio(own: Sequence[Areas], chance: Sequence[Areas]) -> Ratio:
    """Area over the deletion curve ÷ that of random orders. Larger is better, chance is 1."""
    return ratio([one.drop for one in own], [one.drop for one in chance])


def most_drop(chance: Sequence[Areas]) -> float:
    """What ``drop_ratio`` is where the probability is 0 from the first part on: no method can have
    more."""
    return ratio([one.whole for one in chance], [one.drop for one in chance]).value


def deletion_ratio(own: Sequence[Areas], chance: Sequence[Areas]) -> Ratio:
    """Area under the deletion curve of random orders ÷ the method's. Larger is better, chance
    is 1."""
    return ratio([one.deletion for one in chance], [one.deletion for one in own])


def insertion_ratio(own: Sequence[Areas], chance: Sequence[Areas]) -> Ratio:
    """Area over the insertion curve, up to probability 1, of random orders ÷ the method's. Larger
    is better, chance is 1."""
    return ratio([1 - one.insertion for one in chance], [1 - one.insertion for one in own])


def spearman(one: Sequence[float] | Floats, other: Sequence[float] | Floats) -> float:
    """Rank correlation; equal numbers have their mean rank. 0 where all of one are equal."""
    ranks = [rankdata(np.asarray(each, np.float64)) for each in (one, other)]
    spread = [float(np.std(each)) for each in ranks]
    if not all(spread):
        return 0.0
    return float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean()))) / (
        spread[0] * spread[1]
    )
