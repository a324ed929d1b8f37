"""Checkpoints of a session: safetensors files, whole or not there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from openmaas.disk import disk_errors
from openmaas.errors import Conflict, InvalidRequest, NotFound
from openmaas.training.session_task import AUTO

MOST = 16  # of others
SUFFIX = ".safetensors"


class At(msgspec.Struct, frozen=True):
    """Where a session was when it was written."""

    step: int
    sequence: int  # of the call that would have come next
    sha256: str = ""  # over the arrays' bytes, in order


class Checkpoints:
    """Those of one session's folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder

    def names(self) -> list[str]:
        """The oldest first."""
        files = sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda one: one.stat().st_mtime_ns)
        return [one.name.removesuffix(SUFFIX) for one in files]

    def write(self, name: str, at: At, arrays: list[Any]) -> None:
        """Replaces what there is of that name, at once.

        Raises:
            Conflict: there are as many as may be.
            StorageFull
        """
        others = set(self.names()) - {AUTO, name}
        if name != AUTO and len(others) >= MOST:
            raise Conflict(f"a session has up to {MOST} checkpoints; write over one of: "
                           f"{', '.join(sorted(others))}")  # fmt: skip
        known = [np.asarray(one, order="C") for one in arrays]
        at = msgspec.structs.replace(at, sha256=_sha256(known))
        path, new = self._path(name), self._folder / f".{name}.new"
        with disk_errors():
            save_file(
                {f"{index:06}": one for index, one in enumerate(known)},
                new,
                {"at": msgspec.json.encode(at).decode()},
            )
            with new.open("rb") as file:
                os.fsync(file.fileno())
            new.rename(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def read(self, name: str) -> tuple[At, list[Any]]:
        """
        Raises:
            NotFound: there is none of that name.
            InvalidRequest: its file is damaged.
        """
        path = self._path(name)
        if not path.exists():
            there = ", ".join(self.names()) or "none yet"
            raise NotFound(f"no checkpoint {name[:64]!r} of this session; there are: {there}")
        try:
            with safe_open(path, "numpy") as file:
                at = msgspec.json.decode((file.metadata() or {})["at"], type=At)
                arrays = [file.get_tensor(key) for key in sorted(file.keys())]
        except (SafetensorError, OSError, KeyError, msgspec.DecodeError) as error:
            raise InvalidRequest(f"checkpoint {name!r} is damaged: {error}") from None
        if _sha256(arrays) != at.sha256:
            raise InvalidRequest(f"checkpoint {name!r} is damaged: its sha256 differs")
        return at, arrays

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"


def _sha256(arrays: list[Any]) -> str:
    found = hashlib.sha256()
    for one in arrays:
        found.update(f"{one.dtype} {one.shape};".encode())
        found.update(one.tobytes())
    return found.hexdigest()
