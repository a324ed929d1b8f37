"""Whether a model is right as often as it is sure: reliability diagram, ECE, MCE and Brier score.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
https://arxiv.org/abs/1706.04599: the confidence is the likeliest label's probability, in bins of
equal width that are open on the left. Brier, "Verification of Forecasts Expressed in Terms of
Probability", Monthly Weather Review 78 (1950).
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

SOURCE = "Guo et al. 2017, https://arxiv.org/abs/1706.04599"
FEW = 10  # rows in a bin below which its accuracy says little


class Bin(Struct, frozen=True):
    low: float  # confidences above this …
    high: float  # … up to this
    count: int
    confidence: float | None  # mean; None: it is empty
    accuracy: float | None


class Calibration(Struct, frozen=True, kw_only=True):
    bins: list[Bin]
    rows: int
    # mean |accuracy − confidence| of the bins, weighted by their rows, and the largest one
    expected_calibration_error: float
    maximum_calibration_error: float
    # mean of Σ (probability − truth)² over the labels: 0 (best) … 2
    brier_score: float
    mean_confidence: float
    accuracy: float
    source: str = SOURCE


def calibration(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], bins: int = 10
) -> Calibration:
    """
    Args:
        probabilities: ``[rows, labels]``; each row adds up to 1.
        truth: ``[rows]``: the number of the label that is true.
    """
    rows = len(truth)
    confidence = probabilities.max(1)
    right = (probabilities.argmax(1) == truth).astype(np.float64)
    # (low, high]: a confidence of exactly 0 is of the first bin
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    sure = np.bincount(which, confidence, bins)
    good = np.bincount(which, right, bins)
    full = counts > 0
    gaps = np.abs(good[full] - sure[full]) / counts[full]
    hot = np.zeros_like(probabilities)
    hot[np.arange(rows), truth] = 1
    return Calibration(
        bins=[
            Bin(
                float(edges[at]),
                float(edges[at + 1]),
                int(counts[at]),
                float(sure[at] / counts[at]) if counts[at] else None,
                float(good[at] / counts[at]) if counts[at] else None,
            )
            for at in range(bins)
        ],
        rows=rows,
        expected_calibration_error=float((gaps * counts[full]).sum() / rows),
        maximum_calibration_error=float(gaps.max()),
        brier_score=float(((probabilities - hot) ** 2).sum(1).mean()),
        mean_confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
    )
