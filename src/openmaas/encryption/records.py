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
import bisect
import os
import secrets
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from openmaas.encryption.keyring import Key
from openmaas.encryption.master import KEY_BYTES, NONCE_BYTES
from openmaas.errors import SealBroken

MAGIC = b"\x89OMSEAL\n"
VERSION = 1
MOST = 1 << 20  # bytes of a record
SALT_BYTES, TAG_BYTES = 16, 16
_LENGTH = struct.Struct("<I")
_LAST = 1 << 31
OVERHEAD = _LENGTH.size + NONCE_BYTES + TAG_BYTES  # bytes of a record beside what it holds
HEAD = len(MAGIC) + 1 + SALT_BYTES + 1  # bytes of a header before the key's id


class Header(NamedTuple):
    encoded: bytes
    salt: bytes
    key: str


class Cipher:
    """Seals and opens the records of one file."""

    def __init__(self, header: Header, key: Key, name: str) -> None:
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


class Records:
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
        while not self.finished and self.starts[-1] + OVERHEAD <= end:
            (length,) = _LENGTH.unpack(os.pread(file, _LENGTH.size, self.starts[-1]))
            held = (length & ~_LAST) - TAG_BYTES
            if not 0 <= held <= MOST or self.starts[-1] + OVERHEAD + held > end:
                break
            self.finished = bool(length & _LAST)
            self.starts.append(self.starts[-1] + OVERHEAD + held)
            self.plain.append(self.plain[-1] + held)
        self.size = end

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    def cut_to(self, count: int) -> None:
        del self.starts[count + 1 :], self.plain[count + 1 :]
        self.finished = False

    def read(self, file: int, cipher: Cipher, number: int) -> bytes:
        """
        Raises:
            SealBroken
        """
        start, end = self.starts[number], self.starts[number + 1]
        raw = os.pread(file, end - start, start)
        at = _LENGTH.size + NONCE_BYTES
        last = self.finished and number == self.count - 1
        return cipher.open(number, raw[_LENGTH.size : at], raw[at:], last=last)


def begin(file: int, key: Key, name: str) -> Cipher:
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    id, salt = key.id.encode(), secrets.token_bytes(SALT_BYTES)
    encoded = MAGIC + bytes([VERSION]) + salt + bytes([len(id)]) + id
    os.write(file, encoded)
    return Cipher(Header(encoded, salt, key.id), key, name)


def header_of(file: int) -> Header | None:
    """None: the file is not sealed.

    Raises:
        SealBroken: its header is damaged.
    """
    head = os.pread(file, HEAD + 255, 0)
    if not head.startswith(MAGIC):
        return None
    if len(head) < HEAD or head[len(MAGIC)] != VERSION:
        raise SealBroken("a stored file was damaged, or a newer release sealed it")
    encoded = head[: HEAD + head[HEAD - 1]]
    if len(encoded) < HEAD + head[HEAD - 1]:
        raise SealBroken("a stored file is cut off; restore it from a backup")
    try:
        id = encoded[HEAD:].decode("ascii")
    except UnicodeDecodeError:
        raise SealBroken("a stored file was damaged") from None
    return Header(encoded, encoded[len(MAGIC) + 1 : HEAD - 1], id)


def unborn(file: int) -> bool:
    """Whether whoever began a file died before its header was written."""
    head = os.pread(file, HEAD + 255, 0)
    if len(head) < HEAD:
        return MAGIC.startswith(head[: len(MAGIC)])
    return head.startswith(MAGIC) and len(head) < HEAD + head[HEAD - 1]


def drop_broken(file: int, cipher: Cipher, records: Records) -> None:
    """Leaves the records before the first that was not written to its end."""
    for number in range(records.count):
        try:
            records.read(file, cipher, number)
        except SealBroken:
            records.cut_to(number)
            return


def cut_at(file: int, cipher: Cipher, header: int, size: int | None) -> tuple[Records, bytes]:
    """The records that stay, and the beginning of the next one that is to be written anew.

    Raises:
        SealBroken: fewer bytes are whole.
    """
    records = Records(file, header)
    if size is None:
        drop_broken(file, cipher, records)
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
