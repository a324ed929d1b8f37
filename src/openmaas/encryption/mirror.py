"""A folder in memory that a child process writes, and what is kept of it, sealed, on the disk.

The process is believed nothing: it may put links where files were, at any moment. Folders are
opened one within the other, never by a path, and nothing but plain files is read.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from openmaas.disk import sync_folder
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.memory import Memory
from openmaas.encryption.sealed import open_sealed, pieces, seal_file
from openmaas.errors import InvalidRequest

MOST_FILES = 10_000
MOST_DEPTH = 8
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Stamp(NamedTuple):
    """By which a file that was not changed is known."""

    inode: int
    size: int
    changed: int


class Mirror:
    """All methods block; one at a time.

    Args:
        view: the folder in memory.
        target: where it is kept.
        name: of the target in the data folder.
        wanted: names of the files and folders in it that are kept, in this order.
    """

    def __init__(
        self,
        view: Path,
        target: Path,
        name: str,
        keyring: Keyring,
        tenant: str,
        memory: Memory,
        wanted: Sequence[str],
    ) -> None:
        self.view = view
        self.target = target
        self._name = name
        self._keyring = keyring
        self._tenant = tenant
        self._memory = memory
        self._wanted = wanted
        self._seen: dict[str, _Stamp] = {}

    def keep(self, wanted: Sequence[str] | None = None) -> None:
        """What is in the view is on the disk; what is not any more is removed from there.

        Args:
            wanted: of these names alone.

        Raises:
            InvalidRequest: it holds far too many files.
            OSError: the disk is full, for one.
        """
        wanted = self._wanted if wanted is None else wanted
        there: set[str] = set()
        for path, file in self._files(wanted):
            with os.fdopen(file, "rb") as opened:
                status = os.fstat(file)
                stamp = _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
                there.add(path)
                if self._seen.get(path) == stamp:
                    continue
                kept = self.target / path
                kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                key = self._keyring.key(self._tenant)
                seal_file(opened, kept, key, f"{self._name}/{path}")
                os.utime(kept, ns=(stamp.changed, stamp.changed))
                self._seen[path] = stamp
            if len(there) > MOST_FILES:
                raise InvalidRequest(f"a job's folder has over {MOST_FILES} files")
        for folder in {(self.target / path).parent for path in there} | {self.target}:
            with contextlib.suppress(FileNotFoundError):
                sync_folder(folder)
        for path in self._kept(wanted):
            if path not in there:
                (self.target / path).unlink(missing_ok=True)
                self._seen.pop(path, None)

    def restore(self) -> None:
        """What is kept is in the view; what is there already stays.

        Raises:
            SealBroken, Erased, StorageFull
        """
        for path in self._kept(self._wanted):
            place = self.view / path
            if place.exists():
                continue
            with self._memory.errors():
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                part = place.with_name(f"{place.name}.part")
                part.unlink(missing_ok=True)
                name = f"{self._name}/{path}"
                with (
                    open_sealed(self.target / path, self._keyring, name) as source,
                    open(part, "xb") as out,
                ):
                    for piece in pieces(source):
                        out.write(piece)
                changed = (self.target / path).stat().st_mtime_ns
                os.utime(part, ns=(changed, changed))
                part.rename(place)
            status = place.stat()
            self._seen[path] = _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)

    def _kept(self, wanted: Sequence[str]) -> list[str]:
        found = []
        for name in wanted:
            root = self.target / name
            paths = root.rglob("*") if root.is_dir() else [root] if root.is_file() else []
            found += [
                str(one.relative_to(self.target))
                for one in paths
                if one.is_file() and not _passing(one.name)
            ]
        return found

    def _files(self, wanted: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Path and descriptor of each plain file in the view; whoever gets it closes it."""
        try:
            root = os.open(self.view, _FOLDER)
        except OSError:
            return
        try:
            for name in wanted:
                yield from _walk(root, name, name, 0)
        finally:
            os.close(root)


def _walk(folder: int, name: str, path: str, depth: int) -> Iterator[tuple[str, int]]:
    try:
        kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        opened = os.open(name, _FOLDER if stat.S_ISDIR(kind) else _FILE, dir_fd=folder)
    except OSError:  # it is gone, or a link
        return
    status = os.fstat(opened)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and not _passing(name):
        yield path, opened
        return
    try:
        if stat.S_ISDIR(status.st_mode) and depth < MOST_DEPTH:
            for inner in sorted(os.listdir(opened)):
                yield from _walk(opened, inner, f"{path}/{inner}", depth + 1)
    finally:
        os.close(opened)


def _passing(name: str) -> bool:
    """Whether it is a file that is still being written."""
    return name.endswith((".new", ".part"))
