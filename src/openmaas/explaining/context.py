"""Which parts of a prompt an answer is due to: what its probability loses without them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.explaining.ablations import branching

Floats = NDArray[np.float64]
# Natural log-probabilities of the answer, float64[n], where of the prompt these parts alone are
# kept, bool[n, parts].
Score = Callable[[NDArray[np.bool_]], Awaitable[Floats]]

PENALTY = 0.01  # of the LASSO, as in the authors' code: on the logit of an answer token
_FOLDS = 5
_ROUNDS = 10_000
_TOLERANCE = 1e-10
_SURE = -1e-9  # the log-probability beyond which an answer is certain: a logit of 20.7


class Shares(msgspec.Struct, frozen=True, kw_only=True):
    """``attributions``, float64[parts]: in nats of the answer's log-probability (leave one out) or
    of its logit (ContextCite)."""

    attributions: Floats
    whole: float  # log-probability of the answer to the whole prompt
    nothing: float  # … and to what remains where no part is kept
    fit: float | None = None  # R² of the surrogate on ablations that it was not fitted to
    ablations: int


async def leave_one_out(score: Score, parts: int) -> Shares:
    """What the answer's log-probability loses without each part alone.

    A part that others repeat has no share, and neither have they.
    """
    masks = np.concatenate(
        (np.ones((1, parts), bool), np.zeros((1, parts), bool), ~np.eye(parts, dtype=bool))
    )
    found = await score(masks)
    return Shares(
        attributions=found[0] - found[2:],
        whole=float(found[0]),
        nothing=float(found[1]),
        ablations=len(masks),
    )


async def context_cite(
    score: Score, parts: int, samples: int, seed: int, *, tokens: int = 1
) -> Shares:
    """ContextCite (Cohen-Wang et al. 2024, arXiv:2409.00729): a sparse linear surrogate of the
    logit of the answer's probability, fitted to random ablations; its weights are the shares.

    The probability is that of the whole answer, as in the paper. Of a long one it is near zero,
    and its logit as good as its logarithm; ``tokens`` of it scale the penalty, so that an answer
    twice as long does not get half as sparse an explanation.

    Half of the parts are kept on average, as in the paper, but ablations are drawn so that many
    begin alike (``ablations.branching``). ``fit`` is by five-fold cross-validation, without
    ablations of its own; ``None``: the answer is equally likely in all.
    """
    drawn = await asyncio.to_thread(branching, parts, samples, seed)
    ends = np.stack((np.ones(parts, bool), np.zeros(parts, bool)))
    found = await score(np.concatenate((ends, drawn)))
    target = logit(found[2:]) / tokens
    inputs = drawn.astype(np.float64)
    # Seconds of a processor, where there are many parts: others are answered meanwhile.
    weights, _ = await asyncio.to_thread(lasso, inputs, target, PENALTY)
    return Shares(
        attributions=weights * tokens,
        whole=float(found[0]),
        nothing=float(found[1]),
        fit=await asyncio.to_thread(_fit, inputs, target, seed),
        ablations=len(drawn) + 2,
    )


def logit(logprobs: Floats) -> Floats:
    """log p/(1 − p) of log p, for any p that is not 1: 1 − p is not computed as such."""
    sure = np.minimum(logprobs, _SURE)
    result: Floats = sure - np.log(-np.expm1(sure))
    return result


def lasso(inputs: Floats, target: Floats, penalty: float) -> tuple[Floats, float]:
    """Weights and intercept that minimise |y − Xw − b|²/2n + penalty·|w|₁, of X standardised
    (Tibshirani 1996), by coordinate descent; the weights are of X as it is given.

    Args:
        inputs: ``n × parts``; a constant column gets no weight.
        target: ``n``.
    """
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    varies = scale > 0
    columns = np.where(varies, (inputs - centre) / np.where(varies, scale, 1.0), 0.0)
    middle = float(target.mean())
    count = len(target)
    gram = columns.T @ columns / count
    aims = columns.T @ (target - middle) / count
    weights = np.zeros(inputs.shape[1])
    pulls = aims.copy()  # aims − gram·weights
    for _ in range(_ROUNDS):
        moved = 0.0
        for at in np.flatnonzero(varies):
            alone = pulls[at] + weights[at]  # the columns' variance is 1
            new = np.sign(alone) * max(0.0, abs(alone) - penalty)
            step = new - weights[at]
            if step:
                weights[at] = new
                pulls -= gram[:, at] * step
                moved = max(moved, abs(step))
        if moved <= _TOLERANCE:
            break
    weights = np.where(varies, weights / np.where(varies, scale, 1.0), 0.0)
    return weights, middle - float(centre @ weights)


def _fit(inputs: Floats, target: Floats, seed: int) -> float | None:
    spread = float(np.square(target - target.mean()).sum())
    if len(target) < _FOLDS or spread <= _TOLERANCE:
        return None
    order = np.random.default_rng(seed).permutation(len(target))
    missed = 0.0
    for fold in range(_FOLDS):
        out = order[fold::_FOLDS]
        rest = np.setdiff1d(order, out)
        weights, intercept = lasso(inputs[rest], target[rest], PENALTY)
        missed += float(np.square(target[out] - inputs[out] @ weights - intercept).sum())
    return 1.0 - missed / spread
