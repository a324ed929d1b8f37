"""Folders of sealed files: sealed one after the other, unsealed into memory."""

from __future__ import annotations

import os
from pathlib import Path

from openmaas.disk import sync_folder
from openmaas.encryption.keyring import Key, Keyring
from openmaas.encryption.memory import Memory
from openmaas.encryption.sealed import open_sealed, pieces, seal_file


def seal_folder(source: Path, target: Path, key: Key, name: str) -> None:
    """Seals the plain files of a folder into a new one, all on disk when it returns.

    Args:
        name: of the target in the data folder, once it is there.

    Raises:
        FileExistsError, OSError
    """
    target.mkdir(mode=0o700)
    for path in sorted(source.iterdir()):
        with open(path, "rb") as file:
            seal_file(file, target / path.name, key, f"{name}/{path.name}")
    sync_folder(target)


def unseal_folder(source: Path, keyring: Keyring, name: str, target: Path, memory: Memory) -> None:
    """Lays the files of a sealed folder into a new one in memory.

    Raises:
        StorageFull: they do not fit.
        SealBroken, Erased, WrongMaster, FileNotFoundError
    """
    files = sorted(path for path in source.iterdir() if not is_scratch(path))
    memory.need(sum(path.stat().st_size for path in files))
    with memory.errors():
        target.mkdir(mode=0o700)
    for path in files:
        unseal_into(path, keyring, f"{name}/{path.name}", target / path.name, memory)


def unseal_into(
    path: Path,
    keyring: Keyring,
    name: str,
    target: Path,
    memory: Memory,
    *,
    growing: bool = False,
) -> None:
    """Lays a sealed file into a new one in memory.

    Args:
        growing: see ``open_sealed``.

    Raises:
        StorageFull, SealBroken, Erased, WrongMaster, FileNotFoundError
    """
    with open_sealed(path, keyring, name, growing=growing) as file, memory.errors():
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(target, flags, 0o600), "wb") as out:
            for piece in pieces(file):
                out.write(piece)


def is_scratch(path: Path) -> bool:
    """Whether a crash left it while it was written."""
    return path.name.startswith(".") and path.name.endswith(".new")
