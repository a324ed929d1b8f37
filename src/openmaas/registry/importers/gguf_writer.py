"""Writes a decoder as GGUF with 8-bit matrices (Q8_0), the one form that is read exactly.

OpenVINO GenAI rounds the minima of Q4_1 and Q4_K blocks to whole steps, which is heard: of a
135M model it shifted log-probabilities by up to 3 nats. From Q8_0 it computes what llama.cpp
and NumPy do, and no slower. Sources: ggml's ``gguf.md``, and ``quantize_row_q8_0_ref``.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from openmaas.registry.importers.decoder_reference import Array, Weights

ALIGNMENT = 32
_F32, _F16, _Q8_0 = 0, 1, 8
_BLOCK = 32


def write(path: Path, metadata: dict[str, Any], weights: Weights) -> None:
    """
    Args:
        metadata: str, bool, int (as uint32), float (as float32), and lists of str or int.
        weights: one tensor at a time is held in memory.
    """
    plan = [(name, weights.shape(name), _kind(weights.shape(name))) for name in weights.names()]
    with open(path, "xb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, len(plan), len(metadata)))
        for key, value in metadata.items():
            out.write(_text(key) + _value(value))
        offset = 0
        for name, shape, kind in plan:
            out.write(_text(name) + struct.pack("<I", len(shape)))
            out.write(struct.pack(f"<{len(shape)}Q", *shape[::-1]))
            out.write(struct.pack("<IQ", kind, offset))
            offset += _padded(_size(shape, kind))
        _pad(out)
        for name, _, kind in plan:
            out.write(_packed(weights(name), kind))
            _pad(out)


def quantized(values: Array) -> NDArray[np.uint8]:
    """Q8_0: blocks of 32, each a float16 scale and 32 signed bytes."""
    blocks = values.reshape(-1, _BLOCK)
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    bytes_ = np.rint(blocks * inverse).astype(np.int8).view(np.uint8)
    return np.concatenate([scale.astype("<f2").view(np.uint8), bytes_], axis=1)


def _kind(shape: tuple[int, ...]) -> int:
    if len(shape) == 1:
        return _F32
    return _Q8_0 if shape[-1] % _BLOCK == 0 else _F16


def _size(shape: tuple[int, ...], kind: int) -> int:
    elements = int(np.prod(shape, dtype=np.int64))
    return {_F32: elements * 4, _F16: elements * 2, _Q8_0: elements // _BLOCK * 34}[kind]


def _packed(values: Array, kind: int) -> bytes:
    if kind == _Q8_0:
        return quantized(values).tobytes()
    return values.astype("<f4" if kind == _F32 else "<f2").tobytes()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + np.array(value, dtype="<i4").tobytes()


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _pad(out: BinaryIO) -> None:
    out.write(b"\0" * (_padded(out.tell()) - out.tell()))
