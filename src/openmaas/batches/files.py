"""Files that batches read and write: rows, and bytes in the data folder until they expire."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database, page
from openmaas.disk import disk_errors, need_space, sync_folder
from openmaas.encryption.keyring import Key, Keyring
from openmaas.encryption.sealed import SealedWriter, open_sealed
from openmaas.errors import Conflict, InvalidRequest, NotFound, PayloadTooLarge, QuotaExhausted
from openmaas.schema import batches
from openmaas.schema import files as table
from openmaas.storage import check_stored

Purpose = Literal["batch", "batch_output"]
Order = Literal["asc", "desc"]
State = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
UNFINISHED: tuple[State, ...] = ("validating", "in_progress", "finalizing", "cancelling")
"""States of a batch that still reads or writes."""

KEEP_SECONDS = 30 * 86_400  # of a file that says nothing else
SHORTEST_SECONDS, LONGEST_SECONDS = 3600, 30 * 86_400
STRAY_SECONDS = 3600  # after which a file without a row is one that a crash left
MOST = 10_000  # files of one tenant
LINES = 50_000
RECORD = 1 << 18  # bytes that are sealed at one time


class File(msgspec.Struct, frozen=True):
    id: str
    tenant: str
    project: str
    key: str
    name: str
    purpose: Purpose
    bytes: int
    created: int  # Unix seconds
    expires: int


_COLUMNS = [table.c[name] for name in File.__struct_fields__]


class Arriving:
    """A file that is being written and sealed, which nobody sees. Its methods block.

    Args:
        most_bytes: that it may have.
        most_line: bytes that a line may have.
    """

    def __init__(self, path: Path, key: Key, most_bytes: int, most_line: int) -> None:
        self.size = 0
        self.path = path
        self._most_bytes = most_bytes
        self._most_line = most_line
        self._lines = 0
        self._line = 0  # bytes of the last one so far
        with disk_errors():
            self._file = SealedWriter.create(path, key, sealed_name(path.name), cut=RECORD)

    def write(self, piece: bytes) -> None:
        """
        Raises:
            PayloadTooLarge: it has too many bytes or lines, or a line too many.
            StorageFull
        """
        self.size += len(piece)
        if self.size > self._most_bytes:
            raise PayloadTooLarge(f"a file has {self._most_bytes} bytes at the most", param="file")
        first, *more = map(len, piece.split(b"\n"))
        lengths = [self._line + first, *more]
        self._lines += len(more)
        self._line = lengths[-1]
        if max(lengths) > self._most_line:
            raise PayloadTooLarge(
                f"a line of the file has {self._most_line} bytes at the most", param="file"
            )
        if self._lines + (self._line > 0) > LINES:
            raise PayloadTooLarge(f"a file has {LINES} lines at the most", param="file")
        with disk_errors():
            self._file.write(piece)

    def close(self) -> None:
        """It is safely on disk.

        Raises:
            StorageFull
        """
        with disk_errors():
            self._file.finish()
        sync_folder(self.path.parent)

    def drop(self) -> None:
        """Nothing comes of it."""
        self._file.drop()
        self.path.unlink(missing_ok=True)


class Files:
    """All methods block; call them from a thread in the gateway.

    Args:
        folder: for the bytes, a file for each.
        most_bytes: of one file.
        most_line: of one of its lines.
    """

    def __init__(
        self, database: Database, folder: Path, most_bytes: int, most_line: int, keyring: Keyring
    ) -> None:
        self.folder = folder
        self.keyring = keyring
        self.most_bytes = most_bytes
        self._most_line = most_line
        self._database = database

    def begin(self, tenant: str, size: int) -> Arriving:
        """
        Args:
            size: bytes that are likely to come.

        Raises:
            QuotaExhausted: the tenant may not store so many, or has too many files.
            StorageFull: more than the disk has room for.
        """
        with disk_errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            need_space(self.folder, size)
        with self._database.read() as connection:
            _check(connection, tenant, size)
        key = self.keyring.key(tenant)
        return Arriving(self.folder / new_id(), key, self.most_bytes, self._most_line)

    def keep(
        self, one: Arriving, name: str, seconds: int, owner: tuple[str, str, str], by: By
    ) -> File:
        """Makes what has arrived a file.

        Args:
            seconds: until it expires.
            owner: tenant, project and key.

        Raises:
            QuotaExhausted, StorageFull: as ``begin``; nothing is kept then.
        """
        tenant, project, key = owner
        id, now = one.path.name, int(time.time())
        made = File(id, tenant, project, key, name, "batch", one.size, now, now + seconds)
        try:
            one.close()
            with self._database.write() as connection:
                _check(connection, tenant, one.size)
                add(connection, made)
                by.note(connection, "file.create", id, tenant=tenant, name=name, bytes=one.size)
        except BaseException:
            one.drop()
            raise
        return made

    def get(self, id: str, tenant: str) -> File:
        """
        Raises:
            NotFound
        """
        with self._database.read() as connection:
            return get(connection, id, tenant)

    def list(
        self,
        tenant: str,
        *,
        after: str = "",
        limit: int = MOST,
        order: Order = "desc",
        purpose: str | None = None,
    ) -> list[File]:
        """A tenant's.

        Args:
            after: the last one's id of the page before.
            order: by when they were made; "desc": the newest first.
        """
        query = sa.select(*_COLUMNS).where(table.c.tenant == tenant, _there())
        if purpose is not None:
            query = query.where(table.c.purpose == purpose)
        with self._database.read() as connection:
            last = get(connection, after, tenant) if after else None
            query = page(query, table, limit, last, oldest=order == "asc")
            return [File(*row) for row in connection.execute(query)]

    def path(self, id: str) -> Path:
        """Of a file that is in the database, so that its id is one that we made."""
        return self.folder / id

    def open(self, id: str) -> BinaryIO:
        """The bytes of one that is in the database.

        Raises:
            FileNotFoundError: they are gone.
            SealBroken, Erased
        """
        return open_sealed(self.path(id), self.keyring, sealed_name(id))

    def remove(self, id: str, tenant: str, by: By) -> None:
        """
        Raises:
            NotFound
            Conflict: a batch that is not finished reads it.
        """
        with self._database.write() as connection:
            get(connection, id, tenant, lock=True)
            if id in _in_use(connection):
                raise Conflict(f"file {id} is in use by a batch that is not finished")
            connection.execute(table.delete().where(table.c.id == id))
            by.note(connection, "file.remove", id, tenant=tenant)
        self.path(id).unlink(missing_ok=True)

    def sweep(self, now: float | None = None) -> None:
        """Removes what has expired, and files that a crash left."""
        now = time.time() if now is None else now
        with self._database.write() as connection:
            old = sa.select(table.c.id).where(table.c.expires <= int(now))
            gone = {row.id for row in connection.execute(old)} - _in_use(connection)
            for id in gone:
                connection.execute(table.delete().where(table.c.id == id))
            kept = {row.id for row in connection.execute(sa.select(table.c.id))}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            fresh = path.name not in gone and path.stat().st_mtime > now - STRAY_SECONDS
            if path.name not in kept and not fresh:
                path.unlink(missing_ok=True)


def sealed_name(id: str) -> str:
    """Under which a file is sealed."""
    return f"files/{id}"


def new_id() -> str:
    return f"file-{secrets.token_hex(12)}"


def get(connection: sa.Connection, id: str, tenant: str, *, lock: bool = False) -> File:
    """
    Raises:
        NotFound
    """
    query = sa.select(*_COLUMNS).where(table.c.id == id, table.c.tenant == tenant, _there())
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFound(f"no file {id[:64]!r}")
    return File(*row)


def add(connection: sa.Connection, file: File) -> None:
    connection.execute(table.insert().values(**msgspec.structs.asdict(file)))


def checked_name(given: str) -> str:
    """A file's name as it is shown to people.

    Raises:
        InvalidRequest: it has none, or one that could not be.
    """
    if not 1 <= len(given) <= 200 or not given.isprintable():
        raise InvalidRequest("a file's name has from 1 to 200 printable characters", param="file")
    return given


def _there() -> sa.ColumnElement[bool]:
    return table.c.expires > int(time.time())


def _check(connection: sa.Connection, tenant: str, size: int) -> None:
    count = sa.select(sa.func.count()).where(table.c.tenant == tenant)
    if connection.execute(count).scalar_one() >= MOST:
        raise QuotaExhausted(f"tenant {tenant} has {MOST} files; remove some")
    check_stored(connection, tenant, size)


def _in_use(connection: sa.Connection) -> set[str]:
    reading = sa.select(batches.c.input).where(batches.c.state.in_(UNFINISHED))
    return {row.input for row in connection.execute(reading)}
