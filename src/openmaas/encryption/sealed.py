"""Files whose bytes nobody can read, change, cut or move without its being found out.

A file begins with a header: ``MAGIC``, a version, a salt of its own, and the id of the key. Records
follow: length (u32, its highest bit set in the last record of a finished file), a nonce, and
AES-256-GCM over up to 1 MiB, whose additional data are the header, the file's name in the data
folder, the record's number and that bit. The file's key is derived from the key and the salt
(HKDF-SHA256), so that no two files share one. Source of the last record's mark: Hoang and others,
Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, 2015 (STREAM).

A file without the header is of an older release, which sealed nothing, and is read as it is.
"""

from __future__ import annotations

import array
import base64
import bisect
import contextlib
import io
import os
import secrets
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from openmaas.encryption.keyring import Key, Keyring
from openmaas.encryption.master import KEY_BYTES, NONCE_BYTES
from openmaas.errors import SealBroken

MAGIC = b"\x89OMSEAL\n"
VERSION = 1
CUT = 1 << 16  # bytes of a record, unless its writer says otherwise
MOST = 1 << 20
SALT_BYTES, TAG_BYTES = 16, 16
_LENGTH = struct.Struct("<I")
_LAST = 1 << 31
_OVERHEAD = _LENGTH.size + NONCE_BYTES + TAG_BYTES
_replacing = threading.Lock()  # of a file's content by another: none is lost between look and act
_HEAD = len(MAGIC) + 1 + SALT_BYTES + 1  # bytes of a header before the key's id


class _Header(NamedTuple):
    encoded: bytes
    salt: bytes
    key: str


class _Cipher:
    """Seals and opens the records of one file."""

    def __init__(self, header: _Header, key: Key, name: str) -> None:
        self._prefix = header.encoded + name.encode() + b"\0"
        derived = HKDF(SHA256(), KEY_BYTES, header.salt, b"openmaas sealed file")
        self._aead = AESGCM(derived.derive(key.secret))

    def seal(self, number: int, data: bytes | memoryview, *, last: bool) -> tuple[bytes, bytes]:
        """What a record begins with, and the rest of it."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        length = len(data) + TAG_BYTES | (_LAST if last else 0)
        sealed = self._aead.encrypt(nonce, data, self._about(number, last))
        return _LENGTH.pack(length) + nonce, sealed

    def open(self, number: int, nonce: bytes, sealed: bytes, *, last: bool) -> bytes:
        """
        Raises:
            SealBroken
        """
        try:
            return self._aead.decrypt(nonce, sealed, self._about(number, last))
        except InvalidTag:
            raise SealBroken(
                "a stored file was changed or damaged, or is another's; restore it from a backup"
            ) from None

    def _about(self, number: int, last: bool) -> bytes:
        return self._prefix + struct.pack("<Q?", number, last)


class _Records:
    """Where the records of a file are, as far as they are whole.

    Attributes:
        starts: offset of each in the file; one more: where the next would begin.
        plain: offset of what each holds in what all hold; one more: how much that is.
        finished: the last one says that it is the last.
    """

    def __init__(self, file: int, header: int) -> None:
        self.starts = array.array("Q", [header])
        self.plain = array.array("Q", [0])
        self.finished = False
        end = os.fstat(file).st_size
        while not self.finished and self.starts[-1] + _OVERHEAD <= end:
            (length,) = _LENGTH.unpack(os.pread(file, _LENGTH.size, self.starts[-1]))
            held = (length & ~_LAST) - TAG_BYTES
            if not 0 <= held <= MOST or self.starts[-1] + _OVERHEAD + held > end:
                break
            self.finished = bool(length & _LAST)
            self.starts.append(self.starts[-1] + _OVERHEAD + held)
            self.plain.append(self.plain[-1] + held)
        self.size = end

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    def cut_to(self, count: int) -> None:
        del self.starts[count + 1 :], self.plain[count + 1 :]
        self.finished = False

    def read(self, file: int, cipher: _Cipher, number: int) -> bytes:
        """
        Raises:
            SealBroken
        """
        start, end = self.starts[number], self.starts[number + 1]
        raw = os.pread(file, end - start, start)
        at = _LENGTH.size + NONCE_BYTES
        last = self.finished and number == self.count - 1
        return cipher.open(number, raw[_LENGTH.size : at], raw[at:], last=last)


class SealedWriter:
    """Appends to a file that only whoever has the key can read. What was written is on disk after
    ``flush``; ``close`` leaves a file that goes on, ``finish`` one that is whole.

    Attributes:
        size: bytes that were written, in all.
    """

    def __init__(
        self, file: int, cipher: _Cipher, *, number: int = 0, size: int = 0, cut: int = CUT
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
            return cls(file, _begin(file, key, name), cut=cut)
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
            if size == 0 or _unborn(file):
                return cls(file, _begin(file, key, name), cut=cut)
            if _header(file) is None:  # of an older release
                _seal_in_place(path, key, name)
                os.close(file)
                file = os.open(path, flags, 0o600)
            header = _header(file)
            assert header is not None, "it is sealed now"
            cipher = _Cipher(header, keyring.by_id(header.key), name)
            records, rest = _cut(file, cipher, len(header.encoded), size)
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
    def __init__(self, file: int, cipher: _Cipher, records: _Records, size: int) -> None:
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
        if (growing or size == 0) and _unborn(file):
            os.close(file)
            return io.BytesIO()
        header = _header(file)
        if header is None:
            return os.fdopen(file, "rb")
        cipher = _Cipher(header, keyring.by_id(header.key), name)
        records = _Records(file, len(header.encoded))
        if growing:
            _drop_broken(file, cipher, records)
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
        header = _header(file)
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


def unseal_file(source: Path, keyring: Keyring, name: str, target: Path) -> int:
    """Copies what is sealed to a new plain file; the number of bytes.

    Raises:
        SealBroken, Erased, WrongMaster, FileExistsError, OSError
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    size = 0
    with (
        open_sealed(source, keyring, name) as file,
        os.fdopen(os.open(target, flags, 0o600), "wb") as out,
    ):
        for piece in pieces(file):
            out.write(piece)
            size += len(piece)
    return size


def least_size(plain: int) -> int:
    """Bytes on disk that a sealed file of so many cannot go below."""
    return _HEAD + _OVERHEAD + plain if plain else 0


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """All of a file, of which little is in memory at one time."""
    while piece := file.read(MOST):
        yield piece


# --- small things -----------------------------------------------------------------------------


def seal(data: bytes, key: Key, about: bytes) -> bytes:
    """Seals what fits into memory.

    Args:
        about: what it is and where it belongs; it is unsealed for that alone.
    """
    nonce, id = secrets.token_bytes(NONCE_BYTES), key.id.encode()
    header = bytes([VERSION, len(id)]) + id
    return header + nonce + AESGCM(key.secret).encrypt(nonce, data, header + about)


def unseal(sealed: bytes, keyring: Keyring, about: bytes) -> bytes:
    """What was sealed, with whichever key of the ring it was.

    Raises:
        SealBroken, Erased, WrongMaster
    """
    at = 2 + (sealed[1] if len(sealed) > 1 else 0)
    header, nonce = sealed[:at], sealed[at : at + NONCE_BYTES]
    if len(sealed) < at + NONCE_BYTES + TAG_BYTES or sealed[0] != VERSION:
        raise SealBroken("what is stored was changed or cut")
    try:
        key = keyring.by_id(header[2:].decode("ascii"))
        return AESGCM(key.secret).decrypt(nonce, sealed[at + NONCE_BYTES :], header + about)
    except (InvalidTag, UnicodeDecodeError):
        raise SealBroken("what is stored was changed, or is another's") from None


def seal_json(value: Any, key: Key, about: str) -> dict[str, str]:
    """A value as a column of JSON holds it, sealed."""
    sealed = seal(msgspec.json.encode(value), key, about.encode())
    return {"sealed": base64.b64encode(sealed).decode()}


def unseal_json(stored: Any, keyring: Keyring, about: str) -> Any:
    """The value of a column of JSON; one that is not sealed as it is.

    Raises:
        SealBroken, Erased, WrongMaster
    """
    if not isinstance(stored, dict) or stored.keys() != {"sealed"}:
        return stored
    try:
        sealed = base64.b64decode(stored["sealed"], validate=True)
    except (ValueError, TypeError):
        raise SealBroken("what is stored was changed") from None
    return msgspec.json.decode(unseal(sealed, keyring, about.encode()))


def json_key_of(stored: Any) -> str | None:
    """The id of the key that a column of JSON was sealed with; None: it is not sealed."""
    if not isinstance(stored, dict) or stored.keys() != {"sealed"}:
        return None
    sealed = base64.b64decode(stored["sealed"])
    return sealed[2 : 2 + sealed[1]].decode("ascii", "replace")


# --- the file's form -----------------------------------------------------------------------------


def _begin(file: int, key: Key, name: str) -> _Cipher:
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    id, salt = key.id.encode(), secrets.token_bytes(SALT_BYTES)
    encoded = MAGIC + bytes([VERSION]) + salt + bytes([len(id)]) + id
    os.write(file, encoded)
    return _Cipher(_Header(encoded, salt, key.id), key, name)


def _header(file: int) -> _Header | None:
    """None: the file is not sealed.

    Raises:
        SealBroken: its header is damaged.
    """
    head = os.pread(file, _HEAD + 255, 0)
    if not head.startswith(MAGIC):
        return None
    if len(head) < _HEAD or head[len(MAGIC)] != VERSION:
        raise SealBroken("a stored file was damaged, or a newer release sealed it")
    encoded = head[: _HEAD + head[_HEAD - 1]]
    if len(encoded) < _HEAD + head[_HEAD - 1]:
        raise SealBroken("a stored file is cut off; restore it from a backup")
    try:
        id = encoded[_HEAD:].decode("ascii")
    except UnicodeDecodeError:
        raise SealBroken("a stored file was damaged") from None
    return _Header(encoded, encoded[len(MAGIC) + 1 : _HEAD - 1], id)


def _unborn(file: int) -> bool:
    """Whether whoever began a file died before its header was written."""
    head = os.pread(file, _HEAD + 255, 0)
    if len(head) < _HEAD:
        return MAGIC.startswith(head[: len(MAGIC)])
    return head.startswith(MAGIC) and len(head) < _HEAD + head[_HEAD - 1]


def _drop_broken(file: int, cipher: _Cipher, records: _Records) -> None:
    """Leaves the records before the first that was not written to its end."""
    for number in range(records.count):
        try:
            records.read(file, cipher, number)
        except SealBroken:
            records.cut_to(number)
            return


def _cut(file: int, cipher: _Cipher, header: int, size: int | None) -> tuple[_Records, bytes]:
    """The records that stay, and the beginning of the next one that is to be written anew.

    Raises:
        SealBroken: fewer bytes are whole.
    """
    records = _Records(file, header)
    if size is None:
        _drop_broken(file, cipher, records)
        size = records.plain[-1]
    if records.plain[-1] < size:
        raise SealBroken(
            f"a stored file has {records.plain[-1]} of {size} bytes; restore it from a backup"
        )
    count = bisect.bisect_right(records.plain, size) - 1
    rest = b""
    if records.plain[count] < size:
        rest = records.read(file, cipher, count)[: size - records.plain[count]]
    elif records.finished and count == records.count and count:
        # The last record says that nothing follows: it is written anew without that.
        count -= 1
        rest = records.read(file, cipher, count)
    records.cut_to(count)
    return records, rest


def _seal_in_place(path: Path, key: Key, name: str) -> None:
    with open(path, "rb") as file:
        seal_file(file, path, key, name)
