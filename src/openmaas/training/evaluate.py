"""How good a network is on rows that it has not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openmaas.training.rows import Array
from openmaas.training.task import Confusion

MAX_CONFUSED = 100  # labels beyond which a matrix tells nobody anything


def classes(
    wanted: Array, outputs: Array, labels: list[str]
) -> tuple[dict[str, float], Confusion | None]:
    """Accuracy, macro-F1 (of the labels that are there or told) and which is taken for which.

    Args:
        wanted: class numbers [N], or one-hot [N, labels], or of two classes 0 and 1 [N, 1].
        outputs: [N, labels], or [N, 1]: how likely the second of two.
    """
    truth, told = _numbers(wanted), _numbers(outputs)
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (truth, told), 1)
    right = counts.diagonal()
    seen = counts.sum(0) + counts.sum(1)
    f1 = 2 * right[seen > 0] / seen[seen > 0]
    metrics = {"accuracy": float(right.sum() / len(truth)), "macro_f1": float(f1.mean())}
    if len(labels) > MAX_CONFUSED:
        return metrics, None
    return metrics, Confusion(labels, counts.tolist())


def numbers(wanted: Array, outputs: Array) -> dict[str, float]:
    """Mean absolute error, root of the mean squared error, and R² over all numbers of a row.

    Args:
        wanted, outputs: of the same shape, [N, …].
    """
    truth = np.asarray(wanted, np.float64).reshape(len(wanted), -1)
    told = np.asarray(outputs, np.float64).reshape(len(truth), -1)
    error = told - truth
    spread = float(((truth - truth.mean(0)) ** 2).sum())
    found = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}
    if spread > 0:
        found["r2"] = 1.0 - float((error**2).sum()) / spread
    return found


def _numbers(values: Array) -> NDArray[np.int64]:
    if values.ndim == 1:
        return values.astype(np.int64)
    if values.shape[1] == 1:
        return (values[:, 0] > 0.5).astype(np.int64)
    found: NDArray[np.int64] = values.argmax(1)
    return found
