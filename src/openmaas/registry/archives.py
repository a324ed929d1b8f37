"""Opens zip archives that others made: every entry is checked before any is unpacked."""

from __future__ import annotations

import contextlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from openmaas.errors import ArtifactRefused

MAX_ENTRIES = 20_000
MAX_DIRECTORY = 16 << 20  # bytes of the list of entries, read before anything else
MAX_RATIO = 100  # unpacked ÷ packed, of entries beyond SMALL
SMALL = 1 << 20
MAX_UNPACKED = 64 << 30
CHUNK = 1 << 20

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")


@contextlib.contextmanager
def opened(path: Path, most: int = MAX_ENTRIES) -> Iterator[zipfile.ZipFile]:
    """The archive, once the size of its list of entries is known to be sane.

    Args:
        most: entries that it may have.

    Raises:
        ArtifactRefused: it is no zip archive, is damaged, or is built to exhaust its reader.
    """
    try:
        _check_directory(path, most)
        with zipfile.ZipFile(path) as archive:
            check(archive)
            yield archive
    except EOFError:
        raise ArtifactRefused("The archive is damaged: an entry is shorter than it says.") from None
    except (
        zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError,
    ) as error:  # fmt: skip
        raise ArtifactRefused(f"The archive is damaged: {error}") from None


def check(archive: zipfile.ZipFile) -> None:
    """Refuses unsafe names, links, devices, encryption, bombs and entries listed twice."""
    seen: set[str] = set()
    total = 0
    for entry in archive.infolist():
        name = entry.filename
        # orig_filename: zipfile cuts a name at its first NUL, which other readers do not.
        if not _safe(name) or not _safe(entry.orig_filename) or name in seen:
            raise ArtifactRefused("The archive has an entry with an unsafe name.")
        seen.add(name)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or entry.flag_bits & 1:
            raise ArtifactRefused("The archive has a link, a device or an encrypted entry.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArtifactRefused("The archive has an entry packed in an unusual way.")
        if entry.file_size > max(SMALL, MAX_RATIO * entry.compress_size):
            raise ArtifactRefused("The archive unpacks to over 100 times its size.")
        total += entry.file_size
    if total > MAX_UNPACKED:
        raise ArtifactRefused("The archive is larger than may be unpacked.")


def unpack(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    target: Path,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Appends one entry to ``target``, never more bytes than its directory entry promised."""
    left = entry.file_size
    with archive.open(entry) as packed, open(target, "ab") as out:
        while chunk := packed.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise ArtifactRefused("The archive has an entry longer than it says.")
            out.write(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    if left:
        raise ArtifactRefused("The archive has an entry shorter than it says.")


def _safe(name: str) -> bool:
    if not name or len(name) > 1024 or name.startswith("/") or "\\" in name or "\0" in name:
        return False
    return ".." not in name.split("/") and ":" not in name.split("/")[0]


def _check_directory(path: Path, most: int) -> None:
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        tail_at = max(0, size - _END.size - 65535)
        file.seek(tail_at)
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0:
            raise ArtifactRefused("This is no zip archive, or a truncated one.")
        end = _END.unpack_from(tail, at)
        entries, length = end[4], end[5]
        if at >= _LOCATOR.size and tail[at - _LOCATOR.size :][:4] == b"PK\6\7":
            file.seek(_LOCATOR.unpack_from(tail, at - _LOCATOR.size)[2])
            end64 = _END64.unpack(file.read(_END64.size))
            entries, length = max(entries, end64[7]), max(length, end64[8])
            if end[4] == 0xFFFF:
                entries = end64[7]
            if end[5] == 0xFFFFFFFF:
                length = end64[8]
    if entries > most or length > MAX_DIRECTORY:
        raise ArtifactRefused(f"The archive lists {entries} entries; too many.")
