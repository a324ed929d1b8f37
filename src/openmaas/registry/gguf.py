"""Reads a GGUF header: every count, length and offset is checked before it is believed.

Source: ggml's ``docs/gguf.md``, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from openmaas.errors import ArtifactRefused

MAGIC = b"GGUF"
MAX_ENTRIES = 4096  # metadata entries
MAX_TENSORS = 100_000
MAX_TEXT = 1 << 20  # bytes of one string
MAX_ARRAY = 4 << 20  # elements of one array
MAX_HEADER = 256 << 20  # bytes before the tensors
MAX_NESTING = 2

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# Of each type: id, name, elements of a block, bytes of a block; from ggml's type table.
_TABLE = """
0 F32 1 4, 1 F16 1 2, 2 Q4_0 32 18, 3 Q4_1 32 20, 6 Q5_0 32 22, 7 Q5_1 32 24, 8 Q8_0 32 34,
9 Q8_1 32 40, 10 Q2_K 256 84, 11 Q3_K 256 110, 12 Q4_K 256 144, 13 Q5_K 256 176,
14 Q6_K 256 210, 15 Q8_K 256 292, 16 IQ2_XXS 256 66, 17 IQ2_XS 256 74, 18 IQ3_XXS 256 98,
19 IQ1_S 256 50, 20 IQ4_NL 32 18, 21 IQ3_S 256 110, 22 IQ2_S 256 82, 23 IQ4_XS 256 136,
24 I8 1 1, 25 I16 1 2, 26 I32 1 4, 27 I64 1 8, 28 F64 1 8, 29 IQ1_M 256 56, 30 BF16 1 2,
34 TQ1_0 256 54, 35 TQ2_0 256 66, 39 MXFP4 32 17
"""
TENSOR_TYPES = {
    int(at): (name, int(elements), int(size))
    for at, name, elements, size in (entry.split() for entry in _TABLE.split(","))
}


class TensorEntry(msgspec.Struct, frozen=True):
    name: str
    type: str
    shape: tuple[int, ...]  # innermost first, as GGUF writes it
    offset: int  # bytes from the start of the file
    size: int  # bytes


class Header(msgspec.Struct, frozen=True):
    version: int
    metadata: dict[str, Any]  # arrays only where they were asked for
    tensors: list[TensorEntry]

    def text(self, key: str) -> str | None:
        """A string of the metadata, or None where it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def architecture(self) -> str:
        return self.text("general.architecture") or ""


def read_header(path: Path, arrays: Collection[str] = ()) -> Header:
    """Reads metadata and tensor list; arrays are skipped unless their key is in ``arrays``.

    Raises:
        ArtifactRefused: the header is damaged, lies about sizes, or is beyond the bounds above.
    """
    with open(path, "rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).header(arrays)
        except (ValueError, struct.error, UnicodeDecodeError) as error:
            raise ArtifactRefused(f"The GGUF header is damaged: {error}") from None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._end = min(len(data), MAX_HEADER)
        self._at = 0

    def header(self, arrays: Collection[str]) -> Header:
        _require(self._take(4) == MAGIC, "no GGUF magic")
        version = self._scalar("I")
        _require(version in (2, 3), f"version {version} is not read here")
        tensors, entries = self._scalar("Q"), self._scalar("Q")
        _require(entries <= MAX_ENTRIES, f"{entries} metadata entries")
        # 24 bytes are the least that a tensor's entry takes.
        _require(tensors <= min(MAX_TENSORS, len(self._data) // 24), f"{tensors} tensors")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self._text()
            _require(key not in metadata, f"two entries {key[:64]!r}")
            value = self._value(self._scalar("I"), key in arrays)
            if value is not None:
                metadata[key] = value
        raw = [self._tensor() for _ in range(tensors)]
        names = {entry.name for entry in raw}
        _require(len(names) == len(raw), "two tensors of one name")
        alignment = metadata.get("general.alignment", 32)
        _require(
            isinstance(alignment, int) and 8 <= alignment <= 1 << 16 and alignment % 8 == 0,
            "alignment out of range",
        )
        start = -(-self._at // alignment) * alignment
        return Header(version, metadata, [self._placed(entry, start, alignment) for entry in raw])

    def _take(self, size: int) -> bytes:
        _require(size <= self._end - self._at, "it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def _scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _text(self) -> str:
        size = self._scalar("Q")
        _require(size <= MAX_TEXT, f"a string of {size} bytes")
        return self._take(size).decode()

    def _value(self, kind: int, keep: bool) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _BOOL:
            return self._scalar("B") != 0
        if kind == _STRING:
            return self._text()
        _require(kind == _ARRAY, f"value type {kind}")
        return self._array(keep, MAX_NESTING)

    def _array(self, keep: bool, nesting: int) -> list[Any] | None:
        kind, count = self._scalar("I"), self._scalar("Q")
        _require(count <= MAX_ARRAY, f"an array of {count} elements")
        if kind in _SCALARS or kind == _BOOL:
            code = _SCALARS.get(kind, "?")
            raw = self._take(count * struct.calcsize("<" + code))
            return list(struct.unpack(f"<{count}{code}", raw)) if keep else None
        _require(count <= (self._end - self._at) // 8, "an array longer than the file")
        if kind == _STRING:
            if keep:
                return [self._text() for _ in range(count)]
            for _ in range(count):
                self._skip_text()
            return None
        _require(kind == _ARRAY and nesting > 0, f"an array of type {kind}")
        items = [self._array(keep, nesting - 1) for _ in range(count)]
        return items if keep else None

    def _skip_text(self) -> None:
        size = int.from_bytes(self._data[self._at : self._at + 8], "little")
        _require(size <= MAX_TEXT and size + 8 <= self._end - self._at, "it ends too early")
        self._at += 8 + size

    def _tensor(self) -> TensorEntry:
        name = self._text()
        dimensions = self._scalar("I")
        _require(1 <= dimensions <= 4 and len(name) <= 256, "a tensor of odd name or rank")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))
        kind, offset = self._scalar("I"), self._scalar("Q")
        _require(kind in TENSOR_TYPES, f"tensor type {kind} is not known")
        type_name, block, block_bytes = TENSOR_TYPES[kind]
        elements = 1
        for length in shape:
            _require(1 <= length <= 1 << 32, "a tensor of odd shape")
            elements *= length
        _require(shape[0] % block == 0, "a tensor's row is no whole number of blocks")
        size = elements // block * block_bytes
        return TensorEntry(name, type_name, shape, offset, size)

    def _placed(self, entry: TensorEntry, start: int, alignment: int) -> TensorEntry:
        offset = start + entry.offset
        _require(entry.offset % alignment == 0, "a tensor that is not aligned")
        _require(offset + entry.size <= len(self._data), "a tensor beyond the file's end")
        return TensorEntry(entry.name, entry.type, entry.shape, offset, entry.size)


def _require(held: bool, otherwise: str) -> None:
    if not held:
        raise ValueError(otherwise)
