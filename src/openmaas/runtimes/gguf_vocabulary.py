"""The bytes that tokens stand for, from the metadata of a GGUF file.

llama.cpp tells tokens as text, which loses those that hold a part of a character.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3. The file
has been checked at import; every length is checked against the file again.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openmaas.errors import ArtifactRefused
from openmaas.runtimes.vocabulary import byte_level, sentence_piece

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_CONTROL, _UNUSED = 3, 5
_MODELS: dict[str, Callable[[str], bytes]] = {
    "gpt2": byte_level,
    "llama": sentence_piece,
    "gemma4": sentence_piece,
    "t5": sentence_piece,
}
_WANTED = ("model", "tokens", "token_type")


def read_pieces(path: Path) -> list[bytes]:
    """Bytes by token id; empty for control tokens.

    Raises:
        ArtifactRefused: damaged, or a tokenizer of a kind that is not known here.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _Reader(data).metadata()
    except (struct.error, ValueError, OverflowError, KeyError) as error:
        raise ArtifactRefused(f"{path.name} is damaged: {str(error)[:200]}") from None
    model, tokens, types = (found.get(f"tokenizer.ggml.{name}") for name in _WANTED)
    to_bytes = _MODELS.get(str(model))
    if to_bytes is None or not tokens:
        raise ArtifactRefused(f"a tokenizer of kind {str(model)[:32]!r} is not known here")
    types = types or [1] * len(tokens)
    if len(types) != len(tokens):
        raise ArtifactRefused(f"{path.name} is damaged: tokens and their types differ in number")
    return [
        b"" if kind in (_CONTROL, _UNUSED) else to_bytes(text.decode(errors="replace"))
        for text, kind in zip(tokens, types, strict=True)
    ]


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def metadata(self) -> dict[str, Any]:
        """The tokenizer's entries; the others are passed over."""
        magic, version, _, count = self._unpack("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("no GGUF of version 2 or 3")
        found: dict[str, Any] = {}
        wanted = {f"tokenizer.ggml.{name}" for name in _WANTED}
        for _ in range(count):
            name = self._string().decode()
            (kind,) = self._unpack("I")
            value = self._value(kind)
            if name in wanted:
                found[name] = value.decode() if isinstance(value, bytes) else value
                if len(found) == len(wanted):
                    break
        return found

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._unpack(_SCALARS[kind])[0]
        inner, count = self._unpack("IQ")
        if inner == _STRING:
            return [self._string() for _ in range(count)]
        form = _SCALARS[inner]
        self._need(count * struct.calcsize(form))
        return list(self._unpack(f"{count}{form}"))

    def _string(self) -> bytes:
        (length,) = self._unpack("Q")
        self._need(length)
        self._at += length
        return self._data[self._at - length : self._at]

    def _need(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise ValueError("a length beyond the end of the file")

    def _unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self._data, self._at)
        self._at += struct.calcsize("<" + form)
        return values
