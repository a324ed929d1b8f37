"""A tar that is made as it is read: little of it is in memory at one time, and none on disk."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator

from openmaas.errors import StorageUnavailable

BLOCK = tarfile.BLOCKSIZE
SUMS = "SHA256SUMS"


class Tar:
    """Entries in turn, then ``end``.

    Args:
        folder: that all entries are in.
        mtime: of all entries, Unix seconds.
    """

    def __init__(self, folder: str, mtime: int) -> None:
        self._folder = folder
        self._mtime = mtime
        self._sums: list[str] = []

    def entry(self, name: str, content: bytes) -> Iterator[bytes]:
        """One that is in memory."""
        return self.pieces(name, len(content), (content,))

    def pieces(self, name: str, size: int, content: Iterable[bytes]) -> Iterator[bytes]:
        """One of so many bytes, as they come.

        Raises:
            StorageUnavailable: it was not so many: what was read changed meanwhile.
        """
        info = tarfile.TarInfo(f"{self._folder}/{name}")
        info.size, info.mtime, info.mode = size, self._mtime, 0o600
        yield info.tobuf(tarfile.PAX_FORMAT)
        sha256, there = hashlib.sha256(), 0
        for piece in content:
            there += len(piece)
            if there > size:
                break
            sha256.update(piece)
            yield piece
        if there != size:
            raise StorageUnavailable(f"{name} changed while it was read; try again", retry_after=1)
        self._sums.append(f"{sha256.hexdigest()}  {name}\n")
        if size % BLOCK:
            yield bytes(BLOCK - size % BLOCK)

    def end(self) -> Iterator[bytes]:
        """Digests of all entries, as ``sha256sum --check`` reads them, and the end mark."""
        sums = "".join(self._sums).encode()
        yield from self.entry(SUMS, sums)
        yield bytes(2 * BLOCK)
