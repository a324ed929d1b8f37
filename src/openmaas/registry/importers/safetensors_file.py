"""Reads safetensors: the header is checked against the file's size, tensors become float32.

Source: the format's own description (8 bytes of length, JSON, then the data).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers.gguf_weights import bfloat16

Array = NDArray[np.float32]

MAX_HEADER = 64 << 20
MAX_RANK = 8
_FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # its bits
}

_Length = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[_Length]
    data_offsets: tuple[_Length, _Length]


class SafetensorsFolder:
    """All tensors of a folder's ``*.safetensors``, whichever file each is in.

    Raises:
        ArtifactRefused: a header is damaged, lies about sizes, or two files share a name.
    """

    def __init__(self, folder: Path) -> None:
        self._entries: dict[str, tuple[_Entry, NDArray[np.uint8]]] = {}
        self._used: set[str] = set()
        for path in sorted(folder.glob("*.safetensors")):
            for name, found in _read(path).items():
                if name in self._entries:
                    raise ArtifactRefused(f"Two files hold a tensor {name[:100]}.")
                self._entries[name] = found

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return list(self._entries)

    def unused(self) -> set[str]:
        """Names of the tensors that nobody has asked for yet."""
        return set(self._entries) - self._used

    def shape(self, name: str) -> tuple[int, ...]:
        """
        Raises:
            ArtifactRefused: there is no such tensor.
        """
        if name not in self._entries:
            raise ArtifactRefused(f"The safetensors have no {name}.")
        return tuple(self._entries[name][0].shape)

    def __call__(self, name: str) -> Array:
        """
        Raises:
            ArtifactRefused: no such tensor, or one with values that are no finite numbers.
            ConversionFailed: it is not of a floating-point type.
        """
        shape = self.shape(name)
        self._used.add(name)
        entry, raw = self._entries[name]
        if entry.dtype not in _FLOATS:
            raise ConversionFailed(f"{name} is {entry.dtype}; save the model in float32 or bf16.")
        values = raw.view(_FLOATS[entry.dtype])
        array = bfloat16(values) if entry.dtype == "BF16" else values.astype(np.float32)
        if not np.isfinite(array).all():
            raise ArtifactRefused(f"{name} holds values that are no finite numbers.")
        return array.reshape(shape)


def _read(path: Path) -> dict[str, tuple[_Entry, NDArray[np.uint8]]]:
    if path.stat().st_size == 0:
        raise ArtifactRefused(f"{path.name} is empty.")
    data = np.memmap(path, dtype=np.uint8, mode="r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise ArtifactRefused(f"{path.name} is damaged: its header is longer than the file.")
    try:
        raw = msgspec.json.decode(data[8 : 8 + length].tobytes(), type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(text, type=_Entry) for name, text in raw.items()}
    except msgspec.DecodeError as error:
        raise ArtifactRefused(f"{path.name} is damaged: {error}") from None
    body = data[8 + length :]
    found = {}
    before = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        start, end = entry.data_offsets
        # As the format demands: a small file must not fill memory with the same bytes many times.
        if start < before:
            raise ArtifactRefused(f"{path.name} is damaged: {name[:100]} overlaps another tensor.")
        before = end
        if not start <= end <= len(body) or len(entry.shape) > MAX_RANK:
            raise ArtifactRefused(f"{path.name} is damaged: {name[:100]} is beyond its end.")
        width = _FLOATS.get(entry.dtype)
        if width is not None and end - start != math.prod(entry.shape) * width.itemsize:
            raise ArtifactRefused(f"{path.name} is damaged: {name[:100]} is of another size.")
        found[name] = (entry, np.asarray(body[start:end]))
    return found
