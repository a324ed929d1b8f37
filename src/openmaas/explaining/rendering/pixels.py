"""Tensors as images: which ones are, their colours, and smaller ones of large ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_CHANNELS = (1, 2, 3, 4)
_STRIP = 8  # times as long as wide: nobody sees anything in it


def plane(array: Array) -> Array | None:
    """Rows × columns of an image's attributions, summed over channels; ``None``: it is none."""
    array = _alone(array)
    if array.ndim == 3 and array.shape[2] in _CHANNELS:
        array = np.asarray(array.sum(axis=2))
    elif array.ndim == 3 and array.shape[0] in _CHANNELS:  # as PyTorch's models have it
        array = np.asarray(array.sum(axis=0))
    if array.ndim != 2 or not array.size or max(array.shape) > _STRIP * min(array.shape):
        return None
    return array


def pixels(given: Any) -> Array | None:
    """Rows × columns × red, green and blue of an input, 0 to 255; ``None``: it is no image."""
    try:
        array = _alone(np.asarray(given, dtype=np.float64))
    except (ValueError, TypeError):
        return None
    if array.ndim not in (2, 3) or not array.size:
        return None
    if array.ndim == 3 and array.shape[2] not in _CHANNELS:
        if array.shape[0] not in _CHANNELS:
            return None
        array = np.moveaxis(array, 0, 2)
    array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(array.min()), float(array.max())
    if array.ndim == 3 and array.shape[2] >= 3 and low >= 0 and high <= 255:
        scaled = array[:, :, :3] * (255 if high <= 1 else 1)  # the two that files have
        return np.asarray(scaled)
    grey = array if array.ndim == 2 else array.mean(axis=2)
    low, high = float(grey.min()), float(grey.max())
    grey = (grey - low) * (255 / (high - low)) if high > low else np.zeros_like(grey)
    return np.asarray(np.repeat(grey[:, :, None], 3, axis=2))


def _alone(array: Array) -> Array:
    """Without the leading axes of a single row."""
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]
    return array


def blocks(shape: tuple[int, ...], rows: int, columns: int) -> int:
    """How many values on a side make one cell, so that so many rows and columns suffice."""
    return max(1, math.ceil(shape[0] / rows), math.ceil(shape[1] / columns))


def summed(values: Array, side: int) -> Array:
    """Attributions of blocks: shares add up."""
    return values if side == 1 else _folded(values, side).sum(axis=(1, 3))


def averaged(image: Array, side: int) -> Array:
    """An image of blocks; those at the edge are filled with its last pixels."""
    if side == 1:
        return image
    tall, wide = (-size % side for size in image.shape[:2])
    padded = np.pad(image, ((0, tall), (0, wide), (0, 0)), mode="edge")
    return np.stack(
        [_folded(padded[:, :, at], side).mean(axis=(1, 3)) for at in range(image.shape[2])], axis=2
    )


def _folded(values: Array, side: int) -> Array:
    tall, wide = (-size % side for size in values.shape)
    padded = np.pad(values, ((0, tall), (0, wide)))
    return padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side)
