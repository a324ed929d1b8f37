"""What a network's gradients say of one row: saliency, integrated gradients and SmoothGrad.

All three work on *leaves*, arrays of floating-point numbers: plain inputs, or vectors that were
looked up, whose numbers are added up. Of a linear network all three are its weights times how far
the input is from the baseline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from openmaas.errors import EngineFailed
from openmaas.inference import Attribute
from openmaas.runtimes.gradients_nodes import Array

MOST_SECONDS = 20.0  # of one explanation

Sums = tuple[Array, list[Array]]


class Field:
    """The explained number as a function of the leaves, and how often it was asked.

    Args:
        call: (points of each leaf [P, …], how much of each point's gradient is in each of two
            sums [2, P]) → the number at each point [P], and of each leaf both sums [2, …].
        instance: of each leaf what is explained, ``baseline``: what it is compared with.
        noisy: of each leaf what noise is added to; its shape, or one that broadcasts to it.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Array], Array], Sums],
        instance: Sequence[Array],
        baseline: Sequence[Array],
        noisy: Sequence[Array],
    ) -> None:
        self._call = call
        self.instance = [one.astype(np.float64) for one in instance]
        self.baseline = [one.astype(np.float64) for one in baseline]
        self.noisy = list(noisy)
        self.passes = 0

    def __call__(self, points: Sequence[Array], mix: Array) -> Sums:
        """
        Raises:
            EngineFailed: an answer or a gradient is not finite.
        """
        values, sums = self._call(points, mix)
        self.passes += mix.shape[1]
        if not all(np.isfinite(one).all() for one in (values, *sums)):
            raise EngineFailed("a gradient of this network is not a finite number here")
        return values, sums

    def on_the_way(self, shares: Array, mix: Array) -> Sums:
        """At points on the straight way from the baseline (share 0) to the instance (share 1)."""
        points = []
        for end, start in zip(self.instance, self.baseline, strict=True):
            along = shares.reshape(-1, *(1,) * end.ndim)
            # Exactly the ends at both ends.
            points.append((start * (1 - along) + end * along).astype(np.float32))
        return self(points, mix)


class Found(NamedTuple):
    """An explanation of one number; ``values`` of each leaf, in its shape."""

    values: list[Array]
    baseline_output: float
    instance_output: float
    error: float | None
    passes: int


def explain(field: Field, asked: Attribute) -> Found:
    return {
        "saliency": saliency,
        "integrated_gradients": integrated_gradients,
        "smoothgrad": smoothgrad,
    }[asked.method](field, asked)


def saliency(field: Field, asked: Attribute) -> Found:
    """(x − b)·∂f/∂x: what the number would lose on the way to the baseline if it went on as it
    begins; of a vector the sum over its numbers.

    Source: Simonyan, Vedaldi and Zisserman 2013, section 3 (the first-order expansion),
    https://arxiv.org/abs/1312.6034; with the input as a factor, so that it has a sign, Shrikumar et
    al. 2016, https://arxiv.org/abs/1605.01713.
    """
    (first, last), sums = _ends(field)
    return Found(_times_way(field, [one[0] for one in sums]), first, last, None, field.passes)


def smoothgrad(field: Field, asked: Attribute) -> Found:
    """Saliency by the mean gradient of ``steps`` copies with normal noise. The noise's deviation is
    ``noise`` times the range of the input's numbers; of a single number, times its distance from
    the baseline.

    Source: Smilkov et al. 2017, https://arxiv.org/abs/1706.03825.
    """
    (first, last), _ = _ends(field)
    chance = np.random.default_rng(asked.seed)
    spreads = [
        asked.noise * _range(one, base) * free
        for one, base, free in zip(field.instance, field.baseline, field.noisy, strict=True)
    ]
    totals = [np.zeros(one.shape) for one in field.instance]
    left = asked.steps
    while left:
        count = min(left, 64)
        points = [
            (one + spread * chance.standard_normal((count, *one.shape))).astype(np.float32)
            for one, spread in zip(field.instance, spreads, strict=True)
        ]
        _, sums = field(points, np.full((2, count), 1 / asked.steps))
        for total, one in zip(totals, sums, strict=True):
            total += one[0]
        left -= count
    return Found(_times_way(field, totals), first, last, None, field.passes)


def integrated_gradients(field: Field, asked: Attribute) -> Found:
    """(x − b)·∫₀¹ ∂f/∂x (b + α(x − b)) dα; of a vector the sum over its numbers. All of them add
    up to f(x) − f(b), and ``error`` is how far they are from that.

    The integral is the trapezoidal rule's, of at least ``steps`` intervals, or Simpson's on the
    same points where that adds up better. Intervals are halved, keeping what is known, until the
    error is within the tolerance, there would be more than ``most_steps``, or they would take so
    long that the process were believed to hang.

    Source: Sundararajan, Taly and Yan 2017, https://arxiv.org/abs/1703.01365.
    """
    began = time.monotonic()
    count = max(1, -(-asked.steps // 2))  # intervals of the coarse rule; the fine has twice as many
    shares = np.arange(2 * count + 1) / (2 * count)
    ends = np.where((shares == 0) | (shares == 1), 0.5, 1.0)
    even = np.arange(2 * count + 1) % 2 == 0
    values, sums = field.on_the_way(shares, np.stack([ends * even, ~even]) / count)
    coarse, between = [one[0] for one in sums], [one[1] for one in sums]
    first, last = float(values[0]), float(values[-1])
    allowed = asked.tolerance * max(1.0, abs(last - first))
    while True:
        fine = [(a + b) / 2 for a, b in zip(coarse, between, strict=True)]
        simpson = [(4 * b - a) / 3 for a, b in zip(coarse, fine, strict=True)]
        found = [_error(field, mean, last - first) for mean in (fine, simpson)]
        best = min(found, key=lambda one: one[1])
        count *= 2
        late = time.monotonic() - began > MOST_SECONDS / 2  # as many points again take as long
        if best[1] <= allowed or 2 * count > asked.most_steps or late:
            return Found(best[0], first, last, best[1], field.passes)
        coarse = fine
        shares = (np.arange(count) + 0.5) / count
        _, sums = field.on_the_way(shares, np.full((2, count), 1 / count))
        between = [one[0] for one in sums]


def _ends(field: Field) -> tuple[tuple[float, float], list[Array]]:
    """The number at baseline and instance, and the gradient at the instance."""
    values, sums = field.on_the_way(np.array([0.0, 1.0]), np.array([[0.0, 1.0], [0.0, 0.0]]))
    return (float(values[0]), float(values[1])), sums


def _error(field: Field, means: list[Array], wanted: float) -> tuple[list[Array], float]:
    """Attributions, and by how much they miss what they are to add up to."""
    parts = _times_way(field, means)
    return parts, abs(sum(float(one.sum()) for one in parts) - wanted)


def _times_way(field: Field, gradients: Sequence[Array]) -> list[Array]:
    """Gradients times how far the instance is from the baseline."""
    return [
        (end - start) * one
        for end, start, one in zip(field.instance, field.baseline, gradients, strict=True)
    ]


def _range(instance: Array, baseline: Array) -> float:
    if instance.size > 1 and float(np.ptp(instance)):
        return float(np.ptp(instance))
    return float(np.abs(instance - baseline).max(initial=0.0))
