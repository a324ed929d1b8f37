"""What the kinds of sources share: what is wanted, what came, and which files are taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

Progress = Callable[[int, int | None, str], None]
"""Called with (bytes done, bytes in all if known, what is happening)."""

MAX_FILES = 256  # of a model's folder
MAX_BYTES = 256 << 30
MAX_LISTED = 20_000  # entries of a repository or folder, wanted or not

# Weights and settings that the importers read. What carries code (.py) or may be a pickle
# (.bin, .pt, .pkl, .h5 …) is never even fetched; a .bin is only taken beside its .xml, or
# where its name is a Marian model's, which holds nothing but numbers.
_WANTED = re.compile(
    r"(?:\d{1,2}_[A-Za-z0-9_]{1,32}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
    r"\.(?:json|safetensors|txt|jinja|model|spm|gguf|onnx|onnx_data|data|xml|keras"
    r"|intgemm[a-z0-9.]{0,16}\.bin)"
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A source, and what its bytes must be where that is known beforehand."""

    source: str
    sha256: str | None = None  # hex; of the file, or of a folder's listing
    size: int | None = None  # bytes
    relative_to: Path | None = None  # where a relative file: starts; None: refused


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    path: Path  # a file or a folder
    source: str
    sha256: str
    size: int


def wanted_files(names: Iterable[str]) -> list[str]:
    """Those of a folder's relative names that may be taken, sorted."""
    present = set(names)
    taken = {name for name in present if _WANTED.fullmatch(name)}
    taken |= {
        name[:-4] + ".bin"
        for name in taken
        if name.endswith(".xml") and name[:-4] + ".bin" in present
    }
    return sorted(taken)


def silent(done: int, total: int | None, text: str) -> None:
    """A Progress for those who do not watch."""
