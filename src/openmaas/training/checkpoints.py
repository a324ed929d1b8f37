"""All that a training run needs to go on, written so that a crash at any point loses no more than
the newest one.

A file is the sha256 of all that follows it, then safetensors with the progress as JSON in its
header. It gets its name once it is on the disk; the one before is kept until then.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from openmaas.disk import sync_folder
from openmaas.errors import StorageFull

KEPT = 2
SUFFIX = ".checkpoint"
_PROGRESS = "progress"
_DIGEST = hashlib.sha256().digest_size

Arrays = Mapping[str, NDArray[Any]]


class Checkpoint(NamedTuple):
    number: int
    arrays: dict[str, NDArray[Any]]
    progress: dict[str, Any]


def write(folder: Path, number: int, arrays: Arrays, progress: Mapping[str, Any]) -> Path:
    """
    Args:
        number: above those of all before it.
        progress: what JSON can hold.

    Raises:
        StorageFull
    """
    folder.mkdir(exist_ok=True)
    # safetensors writes memory as it lies, whatever the strides say.
    plain = {name: np.ascontiguousarray(one).reshape(one.shape) for name, one in arrays.items()}
    body = save(plain, {_PROGRESS: msgspec.json.encode(progress).decode()})
    path = folder / f"{number:010d}{SUFFIX}"
    scratch = path.with_suffix(".new")
    try:
        with open(scratch, "wb") as file:
            file.write(hashlib.sha256(body).digest())
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        sync_folder(folder)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StorageFull(f"a checkpoint could not be written: {error.strerror}") from None
    for old in _all(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> Checkpoint | None:
    """The newest that is whole; ``None`` if there is none. Damaged ones are removed."""
    for path in reversed(_all(folder)):
        found = _read(path)
        if found is not None:
            return found
        path.unlink(missing_ok=True)
    return None


def _read(path: Path) -> Checkpoint | None:
    content = path.read_bytes()
    digest, body = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        return None
    try:
        length = int.from_bytes(body[:8], "little")
        header = msgspec.json.decode(body[8 : 8 + length])
        progress = msgspec.json.decode(header["__metadata__"][_PROGRESS])
        return Checkpoint(int(path.stem), load(body), progress)
    except (SafetensorError, msgspec.DecodeError, KeyError, ValueError):
        return None


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))
