"""Reads Marian's own binary model files, 8-bit ones as they are: integers and their scale.

Source: the format as Marian writes it: version and count of tensors, of each (bytes of name,
type, rank, bytes of data), then all names, all shapes, a gap for alignment, all data. An
``intgemm8`` matrix is stored transposed and followed by the number that it was multiplied with.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConversionFailed

VERSION = 1
MAX_TENSORS, MAX_NAME, MAX_RANK = 10_000, 200, 4
_FLOAT32, _INT8, _INTGEMM8 = 0x404, 0x101, 0x4101
_SETTINGS = "special:model.yml"
_HEADER = struct.Struct("<4Q")


class Tensor(msgspec.Struct, frozen=True):
    """``values`` ÷ ``scale``; matrices of eight bits are [out, in], as a linear layer has them."""

    values: NDArray[Any]  # int8 or float32
    scale: float  # 1 of float32

    def floats(self) -> NDArray[np.float32]:
        return self.values.astype(np.float32) / np.float32(self.scale)


class MarianFile:
    """All tensors of a file, by name, and its settings as text.

    Raises:
        ArtifactRefused: the file is damaged.
        ConversionFailed: a tensor of a type that is not read here.
    """

    def __init__(self, path: Path) -> None:
        self._data = np.memmap(path, dtype=np.uint8, mode="r")
        self._used: set[str] = set()
        self._tensors: dict[str, tuple[int, tuple[int, ...], NDArray[np.uint8]]] = {}
        try:
            self._index()
        except (struct.error, UnicodeDecodeError, IndexError):
            raise ArtifactRefused(f"{path.name} is damaged: it ends too early.") from None
        self.settings = self._settings()

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def unused(self) -> set[str]:
        """Names of the tensors that nobody has asked for yet."""
        return set(self._tensors) - self._used

    def rows(self, name: str) -> int:
        """The first number of a tensor's shape; 0 where there is no such tensor."""
        shape = self._tensors[name][1] if name in self._tensors else ()
        return shape[0] if shape else 0

    def __call__(self, name: str, *shape: int) -> Tensor:
        """
        Args:
            shape: what it must be, as Marian counts: [in, out] of a linear layer.

        Raises:
            ArtifactRefused, ConversionFailed
        """
        if name not in self._tensors:
            raise ArtifactRefused(f"The model has no {name}.")
        self._used.add(name)
        kind, found, raw = self._tensors[name]
        if found != shape:
            raise ArtifactRefused(f"{name} has the shape {list(found)}, not {list(shape)}.")
        count = math.prod(shape)
        if kind == _FLOAT32 and len(raw) >= 4 * count:
            values = raw[: 4 * count].view("<f4")
            if not np.isfinite(values).all():
                raise ArtifactRefused(f"{name} holds values that are no finite numbers.")
            return Tensor(values.reshape(shape), 1.0)
        if kind == _INTGEMM8 and len(shape) == 2 and len(raw) >= count + 4:
            scale = float(raw[count : count + 4].view("<f4")[0])
            if not (math.isfinite(scale) and scale > 0):
                raise ArtifactRefused(f"{name} has no scale.")
            # The table of words is used as it is, all others from the other side.
            turned = shape if name == "Wemb" else shape[::-1]
            return Tensor(raw[:count].view(np.int8).reshape(turned), scale)
        raise ConversionFailed(f"{name} is of a type that is not read here: {kind:#x}.")

    def _index(self) -> None:
        data: Any = self._data
        version, count = struct.unpack_from("<2Q", data, 0)
        if version != VERSION or count > MAX_TENSORS:
            raise ArtifactRefused("This is no model file of Marian, or of another version.")
        at = 16
        headers = [_HEADER.unpack_from(data, at + 32 * one) for one in range(count)]
        at += 32 * count
        names = []
        for length, _, rank, _ in headers:
            if not 0 < length <= MAX_NAME or rank > MAX_RANK:
                raise ArtifactRefused("The model file is damaged: a name or shape is too long.")
            names.append(self._data[at : at + length - 1].tobytes().decode("ascii"))
            at += length
        shapes = []
        for _, _, rank, _ in headers:
            shapes.append(struct.unpack_from(f"<{rank}I", data, at))
            at += 4 * rank
        (gap,) = struct.unpack_from("<Q", data, at)
        at += 8 + gap
        for name, shape, (_, kind, _, size) in zip(names, shapes, headers, strict=True):
            if size > len(self._data) - at:
                raise ArtifactRefused(f"The model file is damaged: {name} is beyond its end.")
            if name in self._tensors:
                raise ArtifactRefused(f"The model file is damaged: two tensors are named {name}.")
            self._tensors[name] = (kind, shape, np.asarray(self._data[at : at + size]))
            at += size

    def _settings(self) -> dict[str, str]:
        kind, _, raw = self._tensors.get(_SETTINGS, (0, (), np.zeros(0, np.uint8)))
        if kind != _INT8:
            raise ArtifactRefused("The model file holds no settings.")
        lines = raw.tobytes().decode(errors="replace").rstrip("\0").splitlines()
        pairs = [line.partition(":") for line in lines if not line.startswith((" ", "-"))]
        return {name: value.strip().strip('"') for name, _, value in pairs}
