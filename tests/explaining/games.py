"""Made-up models whose Shapley values are known, or can be computed by their definition."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np

from openmaas.explaining.game import Game, Masks, Values


def game(function: Callable[[Any], Any], parts: int, **how: Any) -> Game:
    """Of a function of floats [coalitions, parts], 1 where a part is there."""

    async def play(masks: Masks) -> Values:
        found = np.asarray(function(masks.astype(np.float64)), np.float64)
        return found[:, None] if found.ndim == 1 else found

    return Game(parts, play, **how)


def curved(parts: int, seed: int) -> Callable[[Any], Any]:
    """Two outputs in which parts act together."""
    rng = np.random.default_rng(seed)
    weights, pairs = rng.normal(size=parts), rng.normal(size=(parts, parts)) / 2

    def function(there: Any) -> Any:
        inner = there @ weights + np.einsum("ni,ij,nj->n", there, pairs, there)
        return np.stack([np.tanh(inner), 1 / (1 + np.exp(-inner))], axis=1)

    return function


def by_definition(function: Callable[[Any], Any], parts: int) -> Any:
    """The mean contribution over every order: parts! of them."""
    total: Any = 0.0
    orders = list(permutations(range(parts)))
    for order in orders:
        there = np.zeros((parts + 1, parts))
        for step, part in enumerate(order):
            there[step + 1 :, part] = 1
        gains = np.diff(np.asarray(function(there)), axis=0)
        own = np.empty_like(gains)
        own[list(order)] = gains
        total = total + own
    return total / len(orders)
