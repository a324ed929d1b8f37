"""Black-box explanations: a question about one answer, and the methods that can answer it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from openmaas.explaining import kernel_shap, occlusion, shapley
from openmaas.explaining.explanation import Attribution, Method, Trust, Unit
from openmaas.explaining.game import Game, Masks, Progress, Shares, Values

METHODS: dict[Method, str] = {
    "shapley": shapley.SOURCE,
    "occlusion": occlusion.SOURCE,
    "kernel_shap": kernel_shap.SOURCE,
}
"""Those of any model that answers at all, the usual one first, with their sources."""

SMALL, LARGE = 512, 4096  # passes, where nobody says how many
PASSES_PER_PART = 16


class Question(Protocol):
    """Why a model answered as it did."""

    unit: Unit
    parts: int
    outputs: list[tuple[list[int], str]]  # which numbers are explained: their places and names

    async def play(self, masks: Masks) -> Values:
        """[coalitions, outputs]: what the model answers where only some parts are there."""

    def told(self, shares: Shares, output: int) -> Any:
        """An output's attributions, for people."""


class Found(NamedTuple):
    attributions: list[Attribution]
    trust: Trust
    passes: int


def usual_budget(parts: int) -> int:
    """Passes that a sampling method may take, where nobody says how many."""
    return min(LARGE, max(SMALL, PASSES_PER_PART * parts))


def passes(method: Method, parts: int, budget: int) -> int:
    """How many a method takes at the most.

    Raises:
        InvalidRequest: the budget is too small for so many parts.
    """
    if method == "occlusion":
        return occlusion.passes(parts)
    if method == "shapley":
        return shapley.passes(parts, budget)
    return kernel_shap.passes(parts, budget)


async def answer(
    question: Question,
    method: Method,
    budget: int,
    seed: int,
    *,
    chunk: int,
    small: int = 1,
    busy: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> Found:
    """
    Args:
        chunk, small, busy: see ``Game``.

    Raises:
        InvalidRequest: the budget is too small.
        OpenMaaSError: the model did not answer.
    """
    most = passes(method, question.parts, budget)
    game = Game(
        question.parts, question.play, chunk=chunk, small=small, busy=busy, most=most,
        progress=progress,
    )  # fmt: skip
    if method == "occlusion":
        shares = await occlusion.occlusion(game)
    else:
        found = shapley.shapley if method == "shapley" else kernel_shap.kernel_shap
        shares = await found(game, budget, seed)
    return Found(_attributions(question, shares), _trust(method, shares, most), game.passes)


def _attributions(question: Question, shares: Shares) -> list[Attribution]:
    assert shares.baseline is not None
    assert shares.instance is not None
    errors = shares.error
    assert errors is not None
    return [
        Attribution(
            baselineOutputValue=float(shares.baseline[at]),
            instanceOutputValue=float(shares.instance[at]),
            featureAttributions=question.told(shares, at),
            outputIndex=index,
            outputDisplayName=name,
            approximationError=float(errors[at]),
        )
        for at, (index, name) in enumerate(question.outputs)
    ]


def _trust(method: Method, shares: Shares, most: int) -> Trust:
    error = None if shares.error is None else float(shares.error.max())
    if method == "occlusion":
        note = (
            "occlusion takes one part away at a time: what several parts say together is in no "
            "share, so that the shares need not add up"
        )
        return Trust(completeness_error=error, converged=None, notes=[note])
    if shares.low is None or shares.high is None:
        note = "exact: every coalition was asked about"
        return Trust(completeness_error=error, converged=None, interval=0.0, notes=[note])
    half = float(np.mean(shares.high - shares.low) / 2)
    wide = half > np.abs(shares.values).max(initial=0.0) / 2
    note = "the intervals are wide beside the shares: a larger budget says more"
    return Trust(
        completeness_error=error, converged=None, interval=half, notes=[note] if wide else []
    )
