"""Writes answers with a Keras encoder and decoder, always the likeliest next piece.

``encoder``: ``source`` int32 [B, S] → memory [B, S, D], then the decoder's first states [B, U].
``decoder``: of ``source``, ``memory`` and ``state_0`` … what it takes, with ``token`` int32 [B, 1],
the last one, or ``tokens`` [B, T], all so far, and ``position`` [B, 1], the last one's place →
scores [B, V], then the next states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.training.pieces import BEGIN, END, PADDING

BATCH = 64


class Answer(NamedTuple):
    text: str
    margin: float  # by how much each of its pieces was ahead of the next best one, at least


def write(
    encoder: Any,
    decoder: Any,
    source: NDArray[np.int32],
    length: int,
    pause: Callable[[], None],
) -> list[tuple[list[int], float]]:
    """Of each source the answer's ids, without its end, and its margin.

    Args:
        length: ids of an answer at most, its end included.
        pause: called between batches.
    """
    found: list[tuple[list[int], float]] = []
    for start in range(0, len(source), BATCH):
        pause()
        part = source[start : start + BATCH]
        # One shape alone, which is compiled once.
        padded = np.pad(part, [(0, BATCH - len(part)), (0, 0)], mode="edge")
        ids, margins = _batch(encoder, decoder, padded, length)
        for row, margin in zip(ids[: len(part)], margins, strict=False):
            ended = np.flatnonzero(row == END)
            found.append((row[: ended[0] if len(ended) else length].tolist(), float(margin)))
    return found


def _batch(
    encoder: Any, decoder: Any, source: NDArray[np.int32], length: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    names = [str(one._keras_history.operation.name) for one in decoder.inputs]
    memory, *states = _arrays(encoder.predict_on_batch(source))
    given: dict[str, Any] = {"source": source, "memory": memory}
    tokens = np.full((len(source), length), PADDING, np.int32)
    tokens[:, 0] = BEGIN
    answer = np.full((len(source), length), END, np.int32)
    margins = np.full(len(source), np.inf)
    going = np.ones(len(source), bool)
    for at in range(length):
        given |= {f"state_{number}": one for number, one in enumerate(states)}
        given |= {"token": tokens[:, at : at + 1], "tokens": tokens}
        given["position"] = np.full((len(source), 1), at, np.int32)
        scores, *states = _arrays(decoder.predict_on_batch([given[name] for name in names]))
        best = scores.argmax(1)
        two = np.partition(scores, -2, axis=1)[:, -2:]
        margins[going] = np.minimum(margins, two[:, 1] - two[:, 0])[going]
        answer[going, at] = best[going]
        going &= best != END
        if not going.any():
            break
        if at + 1 < length:
            tokens[:, at + 1] = answer[:, at]
    return answer, margins


def _arrays(outputs: Any) -> list[NDArray[Any]]:
    several = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [np.asarray(one) for one in several]
