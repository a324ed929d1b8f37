"""A GGUF's tensors as float32, unpacked here and not by the engine that is being checked.

Source of the block layouts: ggml's ``ggml-quants.c`` (dequantize_row_*).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmaas.registry.gguf import TENSOR_TYPES, Header

Array = NDArray[np.float32]
Blocks = NDArray[np.uint8]  # [blocks, bytes of a block]

_BYTES = {name: (elements, size) for name, elements, size in TENSOR_TYPES.values()}


class GgufWeights:
    """Weights by GGUF's own names, each [out, in] or [width]."""

    def __init__(self, path: Path, header: Header) -> None:
        self._file = np.memmap(path, dtype=np.uint8, mode="r")
        self._entries = {entry.name: entry for entry in header.tensors}

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """[out, in] or [width]."""
        return self._entries[name].shape[::-1]

    def __call__(self, name: str) -> Array:
        entry = self._entries[name]
        raw = self._file[entry.offset : entry.offset + entry.size]
        blocks = raw.reshape(-1, _BYTES[entry.type][1])
        values: Array = UNPACK[entry.type](blocks).reshape(entry.shape[::-1])
        return values

    def rows(self, name: str, at: list[int]) -> Array:
        """Some rows of a matrix: of a large embedding only these are unpacked."""
        entry = self._entries[name]
        elements, size = _BYTES[entry.type]
        raw = self._file[entry.offset : entry.offset + entry.size]
        table = raw.reshape(entry.shape[1], entry.shape[0] // elements * size)
        values: Array = UNPACK[entry.type](table[at].reshape(-1, size))
        return values.reshape(len(at), entry.shape[0])


def bfloat16(bits: NDArray[np.uint16]) -> Array:
    """float32 of the bits of bfloat16, which are its upper half."""
    values: Array = (bits.astype(np.uint32) << 16).view(np.float32)
    return values


def _half(blocks: Blocks, at: int) -> Array:
    """The float16 at byte ``at`` of each block, as a column."""
    part: Array = blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)
    return part


def _nibbles(blocks: Blocks) -> NDArray[np.uint8]:
    return np.concatenate([blocks & 15, blocks >> 4], axis=1)


def _q4_0(blocks: Blocks) -> Array:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Blocks) -> Array:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _q5_0(blocks: Blocks) -> Array:
    return _half(blocks, 0) * (_fives(blocks[:, 2:]).astype(np.float32) - 16)


def _q5_1(blocks: Blocks) -> Array:
    return _half(blocks, 0) * _fives(blocks[:, 4:]) + _half(blocks, 2)


def _fives(blocks: Blocks) -> NDArray[np.uint8]:
    """Four bytes of fifth bits, then 16 bytes of nibbles."""
    fifth = np.unpackbits(blocks[:, 0:4], axis=1, bitorder="little")
    whole: NDArray[np.uint8] = _nibbles(blocks[:, 4:20]) | np.left_shift(fifth, 4, dtype=np.uint8)
    return whole


def _q8_0(blocks: Blocks) -> Array:
    return _half(blocks, 0) * blocks[:, 2:].copy().view(np.int8)


def _q4_k(blocks: Blocks) -> Array:
    quants = blocks[:, 16:144].reshape(-1, 4, 32)
    return _scaled(blocks, np.stack([quants & 15, quants >> 4], axis=2).reshape(-1, 8, 32))


def _q5_k(blocks: Blocks) -> Array:
    quants = blocks[:, 48:176].reshape(-1, 4, 32)
    fours = np.stack([quants & 15, quants >> 4], axis=2).reshape(-1, 8, 32)
    fifth = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[None, :, None]) & 1
    return _scaled(blocks, fours | (fifth << 4))


def _scaled(blocks: Blocks, groups: NDArray[np.uint8]) -> Array:
    """Eight groups of 32, each with a 6-bit scale and a 6-bit minimum."""
    packed = blocks[:, 4:16]
    low, high, both = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 63, (both & 15) | ((low >> 6) << 4)], axis=1)
    minima = np.concatenate([high & 63, (both >> 4) | ((high >> 6) << 4)], axis=1)
    scale = (_half(blocks, 0) * scales)[..., None]
    result: Array = scale * groups - (_half(blocks, 2) * minima)[..., None]
    return result


def _q6_k(blocks: Blocks) -> Array:
    """Sixteen groups of 16, each with an 8-bit scale."""
    low = blocks[:, 0:128].reshape(-1, 2, 64)
    high = blocks[:, 128:192].reshape(-1, 2, 32)
    fours = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    twos = np.stack([(high >> shift) & 3 for shift in (0, 2, 4, 6)], axis=2)
    quants = (fours | (twos << 4)).astype(np.float32).reshape(-1, 16, 16) - 32
    scales = blocks[:, 192:208].copy().view(np.int8).astype(np.float32)
    result: Array = (_half(blocks, 208) * scales)[..., None] * quants
    return result


UNPACK: dict[str, Callable[[Any], Array]] = {
    "F32": lambda blocks: blocks.copy().view(np.float32),
    "F16": lambda blocks: blocks.copy().view(np.float16).astype(np.float32),
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "BF16": lambda blocks: bfloat16(blocks.copy().view(np.uint16)),
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
