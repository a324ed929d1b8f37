"""Kernel SHAP: Shapley values as the weighted least squares of a linear surrogate.

Sources: Lundberg and Lee 2017, "A Unified Approach to Interpreting Model Predictions"; Covert and
Lee 2021, "Improving KernelSHAP" (each coalition is drawn together with its complement). Intervals
are by the deviations of those pairs from the fit (White 1980's estimator of their covariance).
"""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.explaining import shapley
from openmaas.explaining.game import Game, Masks, Shares, Values

SOURCE = "Lundberg and Lee 2017, A Unified Approach to Interpreting Model Predictions"
_RIDGE = 1e-9  # keeps a sample that misses a part from being singular
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
    drawn = _draw(game.parts, pairs, np.random.default_rng(seed))
    masks = np.stack([drawn, ~drawn], axis=1).reshape(2 * pairs, game.parts)
    values = (await game.values(masks)) - baseline
    # Seconds of a processor, where there are many parts: others are answered meanwhile.
    shares, half = await asyncio.to_thread(_fitted, masks, values, instance - baseline)
    return Shares(shares, shares - half, shares + half, baseline, instance)


def _fitted(masks: Masks, values: Values, total: Values) -> tuple[_Floats, _Floats]:
    """Least squares under the condition that the shares add up to ``total`` (Lagrange), and half
    of their intervals' width.

    Args:
        masks: [2 · pairs, parts]: each coalition is followed by its complement.
        values: [2 · pairs, outputs], less the baseline's.
    """
    there = masks.astype(np.float64)
    pairs = len(there) // 2
    outer = there.T @ there / len(there)
    inverse = np.linalg.inv(outer + _RIDGE * np.eye(len(outer)))
    ones = inverse.sum(1)
    free = inverse @ (there.T @ values / len(there))
    shares = free - np.outer(ones, (free.sum(0) - total) / ones.sum())
    onto = inverse - np.outer(ones, ones) / ones.sum()  # what of a deviation remains
    half = np.empty_like(shares)
    free_pairs = max(1, pairs - len(outer) + 1)  # the others were fitted (MacKinnon, White 1985)
    for output in range(values.shape[1]):
        missed = values[:, output] - there @ shares[:, output]
        of_pairs = (there * missed[:, None]).reshape(pairs, 2, -1).mean(1)
        half[:, output] = 1.96 * (of_pairs @ onto).std(0, ddof=1) / np.sqrt(free_pairs)
    return shares, half + shapley.ROUNDING


def _draw(parts: int, pairs: int, rng: np.random.Generator) -> Masks:
    """Coalitions whose sizes have the Shapley kernel's weights: (parts − 1) ÷ (size · (parts −
    size)), so that all samples count the same."""
    sizes = np.arange(1, parts)
    weights = 1 / (sizes * (parts - sizes))
    chosen = rng.choice(sizes, pairs, p=weights / weights.sum())
    ranks = rng.random((pairs, parts)).argsort(1).argsort(1)
    masks: Masks = ranks < chosen[:, None]
    return masks


def _pairs(parts: int, budget: int) -> int:
    least = 2 + 4 * parts
    if budget < least:
        raise InvalidRequest(
            f"kernel SHAP of {parts} parts takes a budget of {least} passes at the least, not "
            f"{budget}; or explain by a coarser unit",
            param="budget",
        )
    return (budget - 2) // 2
