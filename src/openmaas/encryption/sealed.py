"""Files that are written, read and replaced sealed; ``records.py`` says how they look."""

from __future__ import annotations

import bisect
import contextlib
import io
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from openmaas.encryption.keyring import Key, Keyring
from openmaas.encryption.records import (
    HEAD,
    MOST,
    OVERHEAD,
    Cipher,
    Records,
    begin,
    cut_at,
    drop_broken,
    header_of,
    unborn,
)
from openmaas.errors import SealBroken

CUT = 1 << 16  # bytes of a record, unless its writer says otherwise
_replacing = threading.Lock()  # of a file's content by another: none is lost between look and act


class SealedWriter:
    """Appends to a file that only whoever has the key can read. What was written is on disk after
    ``flush``; ``close`` leaves a file that goes on, ``finish`` one that is whole.

    Attributes:
        size: bytes that were written, in all.
    """

    def __init__(
        self, file: int, cipher: Cipher, *, number: int = 0, size: int = 0, cut: int = CUT
    ) -> None:
        self.size = size
        self._file = file
        self._cipher = cipher
        self._number = number
        self._cut = min(cut, MOST)
        self._pending = bytearray()

    @classmethod
    def create(
        cls, path: Path, key: Key, name: str, *, cut: int = CUT, replace: bool = False
    ) -> SealedWriter:
        """A new file.

        Args:
            name: of the file in the data folder, which it can be read under alone.
            replace: a file that is there is emptied.

        Raises:
            FileExistsError, OSError
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(path, flags | (os.O_TRUNC if replace else os.O_EXCL), 0o600)
        try:
            return cls(file, begin(file, key, name), cut=cut)
        except BaseException:
            os.close(file)
            raise

    @classmethod
    def append(
        cls,
        path: Path,
        keyring: Keyring,
        key: Key,
        name: str,
        *,
        size: int | None = None,
        cut: int = CUT,
    ) -> SealedWriter:
        """Goes on with a file where it broke off; one that is not there, or has no header yet,
        begins. What was sealed of it keeps its key.

        Args:
            key: for a file that begins.
            size: bytes that are to be left of it; None: all that is whole.

        Raises:
            SealBroken: less is whole.
            Erased, OSError
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(path, flags, 0o600)
        try:
            if size == 0 or unborn(file):
                return cls(file, begin(file, key, name), cut=cut)
            if header_of(file) is None:  # of an older release
                _seal_in_place(path, key, name)
                os.close(file)
                file = os.open(path, flags, 0o600)
            header = header_of(file)
            assert header is not None, "it is sealed now"
            cipher = Cipher(header, keyring.by_id(header.key), name)
            records, rest = cut_at(file, cipher, len(header.encoded), size)
            os.ftruncate(file, records.starts[-1])
            os.lseek(file, 0, os.SEEK_END)
            made = cls(file, cipher, number=records.count, size=records.plain[-1], cut=cut)
            made.write(rest)
            return made
        except BaseException:
            os.close(file)
            raise

    def write(self, data: bytes | memoryview) -> None:
        """
        Raises:
            OSError
        """
        self.size += len(data)
        with memoryview(data) as view:
            at = 0
            if self._pending:
                at = min(self._cut - len(self._pending), len(view))
                self._pending += view[:at]
                if len(self._pending) == self._cut:
                    self._put(bytes(self._pending), last=False)
                    self._pending.clear()
            while len(view) - at >= self._cut:  # without a copy: pieces may be large, and many
                self._put(view[at : at + self._cut], last=False)
                at += self._cut
            self._pending += view[at:]

    def flush(self) -> None:
        """What was written is on disk.

        Raises:
            OSError
        """
        if self._pending:
            self._put(bytes(self._pending), last=False)
            self._pending.clear()
        os.fsync(self._file)

    def finish(self) -> None:
        """The file is whole, and on disk.

        Raises:
            OSError
        """
        self._put(bytes(self._pending), last=True)
        self._pending.clear()
        os.fsync(self._file)
        self.drop()

    def close(self) -> None:
        """What was written is on disk, and may go on later.

        Raises:
            OSError
        """
        try:
            self.flush()
        finally:
            self.drop()

    def drop(self) -> None:
        """Closes the file as it is."""
        if self._file != -1:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.drop()

    def _put(self, data: bytes | memoryview, *, last: bool) -> None:
        for part in self._cipher.seal(self._number, data, last=last):
            view = memoryview(part)
            while view:
                view = view[os.write(self._file, view) :]
        self._number += 1


class _Reader(io.RawIOBase):
    def __init__(self, file: int, cipher: Cipher, records: Records, size: int) -> None:
        self._file = file
        self._cipher = cipher
        self._records = records
        self._size = size
        self._at = 0
        self._number, self._plain = -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative position {start + offset}")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._at < self._size:
            plain, at = self._find()
            part = plain[at : at + min(len(view) - done, self._size - self._at)]
            view[done : done + len(part)] = part
            done += len(part)
            self._at += len(part)
        return done

    def _find(self) -> tuple[bytes, int]:
        """The record in which it is, and where in it."""
        starts = self._records.plain
        number = bisect.bisect_right(starts, self._at) - 1
        if number != self._number:
            self._plain = self._records.read(self._file, self._cipher, number)
            self._number = number
        return self._plain, self._at - starts[number]

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()


def open_sealed(
    path: Path, keyring: Keyring, name: str, *, size: int | None = None, growing: bool = False
) -> BinaryIO:
    """Reads a file, buffered and with ``seek``; one that is not sealed as it is.

    Args:
        name: under which it was sealed.
        size: bytes that it must have; what is behind them is no part of it.
        growing: it is not finished: what is whole of it is all that there is. The reader sees the
            end where records end or are broken.

    Raises:
        SealBroken: it is not whole; also later, when a record is read that was changed.
        Erased, WrongMaster, FileNotFoundError, OSError
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if (growing or size == 0) and unborn(file):
            os.close(file)
            return io.BytesIO()
        header = header_of(file)
        if header is None:
            return os.fdopen(file, "rb")
        cipher = Cipher(header, keyring.by_id(header.key), name)
        records = Records(file, len(header.encoded))
        if growing:
            drop_broken(file, cipher, records)
        elif size is None:
            if not records.finished or records.starts[-1] != records.size:
                raise SealBroken("a stored file is cut off; restore it from a backup")
            records.read(
                file, cipher, records.count - 1
            )  # what says that it ends there may be empty
        elif records.plain[-1] < size:
            raise SealBroken(
                f"a stored file has {records.plain[-1]} of {size} bytes; restore it from a backup"
            )
        whole = records.plain[-1] if size is None else size
        return io.BufferedReader(_Reader(file, cipher, records, whole), CUT)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(file)
        raise


def sealed_by(path: Path) -> str | None:
    """The id of the key that a file was sealed with; None: it is not sealed.

    Raises:
        FileNotFoundError, OSError
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        header = header_of(file)
        return None if header is None else header.key
    finally:
        os.close(file)


def seal_file(source: BinaryIO, target: Path, key: Key, name: str) -> int:
    """Copies what is read to a new sealed file, finished and on disk, which replaces what was
    there of that name; the number of bytes.

    Raises:
        OSError
    """
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        writer = SealedWriter.create(scratch, key, name, cut=MOST)
        try:
            for piece in pieces(source):
                writer.write(piece)
            writer.finish()
        finally:
            writer.drop()
        with _replacing:
            scratch.rename(target)
    finally:
        scratch.unlink(missing_ok=True)
    return writer.size


def reseal(path: Path, keyring: Keyring, key: Key, name: str) -> bool:
    """Seals a finished file with another key, in its place; whoever reads it reads on. Whether it
    could be: not one that was replaced meanwhile.

    Raises:
        SealBroken, Erased, FileNotFoundError, OSError
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    before = path.stat()
    try:
        with open_sealed(path, keyring, name) as file:
            seal_file(file, scratch, key, name)
        os.utime(scratch, ns=(before.st_atime_ns, before.st_mtime_ns))
        with _replacing:
            now = path.stat()
            if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
                return False
            scratch.rename(path)
        return True
    finally:
        scratch.unlink(missing_ok=True)


def least_size(plain: int) -> int:
    """Bytes on disk that a sealed file of so many cannot go below."""
    return HEAD + OVERHEAD + plain if plain else 0


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """All of a file, of which little is in memory at one time."""
    while piece := file.read(MOST):
        yield piece


def _seal_in_place(path: Path, key: Key, name: str) -> None:
    with open(path, "rb") as file:
        seal_file(file, path, key, name)
