"""Kernel SHAP: Shapley values as the weighted least squares of a linear surrogate.

Sources: Lundberg and Lee 2017, "A Unified Approach to Interpreting Model Predictions"; Covert and
Lee 2021, "Improving KernelSHAP" (each coalition is drawn together with its complement). Intervals
are of the bootstrap (Efron 1979) over those pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.explaining import shapley
from openmaas.explaining.game import Game, Masks, Shares, Values

SOURCE = "Lundberg and Lee 2017, A Unified Approach to Interpreting Model Predictions"
RESAMPLES = 200
_RIDGE = 1e-9  # keeps a resample that misses a part from being singular
_Floats = NDArray[np.float64]


def passes(parts: int, budget: int) -> int:
    """Coalitions that are asked about at the most.

    Raises:
        InvalidRequest: the budget is too small for so many parts.
    """
    if shapley.exact(parts, budget):
        return 1 << parts
    return 2 + 2 * _pairs(parts, budget)


async def kernel_shap(game: Game, budget: int, seed: int) -> Shares:
    """Exact where the budget covers all coalitions, else estimates with 95 % intervals. Either way
    the shares add up to f(all) − f(none)."""
    if shapley.exact(game.parts, budget):
        return await shapley.enumerate_all(game)
    return await sample(game, _pairs(game.parts, budget), seed)


async def sample(game: Game, pairs: int, seed: int) -> Shares:
    """Of so many coalitions and their complements."""
    baseline, instance = await game.ends()
    rng = np.random.default_rng(seed)
    drawn = _draw(game.parts, pairs, rng)
    masks = np.stack([drawn, ~drawn], axis=1).reshape(2 * pairs, game.parts)
    values = (await game.values(masks)) - baseline
    # Of each pair its part of the normal equations.
    there = masks.astype(np.float64).reshape(pairs, 2, -1)
    outer = np.einsum("kpi,kpj->kij", there, there) / 2
    moments = np.einsum("kpi,kpo->kio", there, values.reshape(pairs, 2, -1)) / 2
    total = instance - baseline
    shares = _solve(outer.mean(0), moments.mean(0), total)
    again = []
    for _ in range(RESAMPLES):
        weights = rng.multinomial(pairs, np.full(pairs, 1 / pairs)) / pairs
        again.append(
            _solve(np.tensordot(weights, outer, 1), np.tensordot(weights, moments, 1), total)
        )
    half = 1.96 * np.std(again, axis=0, ddof=1) + shapley.ROUNDING
    return Shares(shares, shares - half, shares + half, baseline, instance)


def _draw(parts: int, pairs: int, rng: np.random.Generator) -> Masks:
    """Coalitions whose sizes have the Shapley kernel's weights: (parts − 1) ÷ (size · (parts −
    size)), so that all samples count the same."""
    sizes = np.arange(1, parts)
    weights = 1 / (sizes * (parts - sizes))
    chosen = rng.choice(sizes, pairs, p=weights / weights.sum())
    ranks = rng.random((pairs, parts)).argsort(1).argsort(1)
    masks: Masks = ranks < chosen[:, None]
    return masks


def _solve(outer: _Floats, moments: _Floats, total: Values) -> _Floats:
    """Least squares under the condition that the shares add up to ``total`` (Lagrange)."""
    size = len(outer)
    inverse = np.linalg.inv(outer + _RIDGE * np.eye(size))
    free = inverse @ moments
    ones = inverse.sum(1)
    shares: _Floats = free - np.outer(ones, (free.sum(0) - total) / ones.sum())
    return shares


def _pairs(parts: int, budget: int) -> int:
    least = 2 + 4 * parts
    if budget < least:
        raise InvalidRequest(
            f"kernel SHAP of {parts} parts takes a budget of {least} passes at the least, not "
            f"{budget}; or explain by a coarser unit",
            param="budget",
        )
    return (budget - 2) // 2
