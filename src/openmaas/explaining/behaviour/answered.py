"""What a model answers as probabilities of labels that exclude one another."""

from __future__ import annotations

import numpy as np

from openmaas.explaining.behaviour.importance import Outputs

TOLERANCE = 1e-2  # within which probabilities of reduced precision add up to 1


def are_probabilities(outputs: Outputs) -> bool:
    """Whether each row is probabilities of labels that exclude one another; one number alone is
    the second of two labels' probability."""
    inside = bool((outputs >= -TOLERANCE).all() and (outputs <= 1 + TOLERANCE).all())
    return inside and (
        outputs.shape[1] == 1 or bool((np.abs(outputs.sum(1) - 1) <= TOLERANCE).all())
    )


def probabilities(outputs: Outputs, *, plain: bool) -> Outputs:
    """``[rows, labels]``, each row adding up to 1.

    Args:
        plain: they are probabilities already; else logits.
    """
    if outputs.shape[1] == 1:
        second = outputs if plain else 1 / (1 + np.exp(-np.clip(outputs, -700, 700)))
        return np.concatenate([1 - second, second], 1)
    if not plain:
        outputs = np.exp(outputs - outputs.max(1, keepdims=True))
    found = np.clip(outputs, 0, None)
    shares: Outputs = found / found.sum(1, keepdims=True)
    return shares
