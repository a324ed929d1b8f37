"""Shapley values: each part's mean contribution over all orders in which parts may come.

Sources: Shapley 1953; Castro, Gómez and Tejada 2009, "Polynomial calculation of the Shapley value
based on sampling"; Mitchell et al. 2022, "Sampling Permutations for Shapley Value Estimation" (each
order is drawn together with its reverse, which halves the variance and more).
"""

from __future__ import annotations

from math import factorial

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.explaining.game import Game, Masks, Shares, Values, all_masks

SOURCE = "Castro et al. 2009, Polynomial calculation of the Shapley value based on sampling"
LEAST_PAIRS = 3  # of an order and its reverse, for an interval
ROUNDING = 1e-9  # of sums: a sample without any variance is exact but for that
EXACT_PARTS = 12  # up to which all coalitions may be asked about
# Student's t at 97.5 %, for 1, 2 … degrees of freedom; beyond, the normal distribution's.
T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def passes(parts: int, budget: int) -> int:
    """Coalitions that are asked about at the most.

    Raises:
        InvalidRequest: the budget is too small for so many parts.
    """
    if exact(parts, budget):
        return 1 << parts
    return 2 + 2 * _pairs(parts, budget) * (parts - 1)


def exact(parts: int, budget: int) -> bool:
    """Whether all coalitions are asked about: then the values are no estimates."""
    return parts <= EXACT_PARTS and 1 << parts <= budget


async def shapley(game: Game, budget: int, seed: int) -> Shares:
    """Exact where the budget covers all coalitions, else estimates with 95 % intervals. Either way
    the shares add up to f(all) − f(none)."""
    if exact(game.parts, budget):
        return await enumerate_all(game)
    return await sample(game, _pairs(game.parts, budget), seed)


async def enumerate_all(game: Game) -> Shares:
    """By the definition: marginal contributions to every coalition, weighted."""
    parts = game.parts
    masks = all_masks(parts)
    values = await game.values(masks)
    sizes = masks.sum(1)
    weights = np.array(
        [factorial(size) * factorial(parts - size - 1) for size in range(parts)], np.float64
    ) / factorial(parts)
    shares = np.empty((parts, values.shape[1]))
    for part in range(parts):
        without = np.flatnonzero(~masks[:, part])
        gains = values[without | (1 << part)] - values[without]
        shares[part] = weights[sizes[without]] @ gains
    return Shares(shares, baseline=values[0], instance=values[-1])


async def sample(game: Game, pairs: int, seed: int) -> Shares:
    """Of so many orders and their reverses. Orders are drawn one after another, so that more of
    them with the same seed begin with the same ones."""
    baseline, instance = await game.ends()
    parts = game.parts
    orders = _orders(parts, pairs, seed)
    values = await game.values(_prefixes(orders))
    steps = values.reshape(2 * pairs, parts - 1, -1)
    ends = [np.broadcast_to(end, (2 * pairs, 1, steps.shape[2])) for end in (baseline, instance)]
    gains = np.diff(np.concatenate([ends[0], steps, ends[1]], axis=1), axis=1)
    own = np.empty_like(gains)  # by part, not by place in the order
    np.put_along_axis(own, orders[:, :, None], gains, axis=1)
    means = own.reshape(pairs, 2, parts, -1).mean(1)
    shares, half = means.mean(0), interval(means)
    return Shares(shares, shares - half, shares + half, baseline, instance)


def interval(samples: Values) -> Values:
    """Half of the width of the mean's 95 % interval, over the first axis (Student's t)."""
    count = len(samples)
    t = T[count - 2] if count - 2 < len(T) else 1.96
    half: Values = t * samples.std(0, ddof=1) / np.sqrt(count)
    return half + ROUNDING


def _orders(parts: int, pairs: int, seed: int) -> NDArray[np.int64]:
    """[2 · pairs, parts]; each even row is followed by its reverse."""
    rng = np.random.default_rng(seed)
    orders = np.empty((2 * pairs, parts), np.int64)
    for at in range(pairs):
        orders[2 * at] = rng.permutation(parts)
        orders[2 * at + 1] = orders[2 * at, ::-1]
    return orders


def _prefixes(orders: NDArray[np.int64]) -> Masks:
    """The coalitions on the way of each order, without the first and the last:
    [orders · (parts − 1), parts]."""
    places = np.argsort(orders, axis=1)
    reached = np.arange(1, orders.shape[1])
    masks: Masks = places[:, None, :] < reached[None, :, None]
    return masks.reshape(-1, orders.shape[1])


def _pairs(parts: int, budget: int) -> int:
    found = (budget - 2) // (2 * max(1, parts - 1))
    if found < LEAST_PAIRS:
        least = 2 + 2 * LEAST_PAIRS * max(1, parts - 1)
        raise InvalidRequest(
            f"Shapley values of {parts} parts take a budget of {least} passes at the least, not "
            f"{budget}; or explain by a coarser unit",
            param="budget",
        )
    return found
