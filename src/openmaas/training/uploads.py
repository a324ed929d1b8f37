"""Files that arrive in pieces and go on where they broke off, whichever side it was that died.

Source: the offsets of the tus protocol, https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database, page
from openmaas.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    QuotaExhausted,
)
from openmaas.registry.artifacts import disk_errors, need_space, sync_folder
from openmaas.schema import datasets, jobs
from openmaas.schema import uploads as table
from openmaas.storage import check_stored
from openmaas.training.jobs import UNFINISHED

DAY = 86_400  # seconds after which an upload that nobody touches is removed
STRAY_SECONDS = 3600  # after which a file without a row is one that a crash left
MOST = 1000  # uploads of one tenant
CHUNK = 1 << 20


class Upload(msgspec.Struct, frozen=True):
    """A file that is arriving, or has arrived."""

    id: str
    tenant: str
    project: str
    key: str
    name: str
    size: int  # bytes when it is whole
    sha256: str | None  # that its bytes must have
    received: int  # bytes that are safely on disk: where the next piece begins
    created: int  # Unix seconds
    touched: int


class WrongOffset(Conflict):
    """
    Args:
        offset: where the next piece begins.
    """

    def __init__(self, offset: int) -> None:
        super().__init__(f"the next piece begins at byte {offset}", param="Upload-Offset")
        self.offset = offset


_COLUMNS = [table.c[name] for name in Upload.__struct_fields__]


class Uploads:
    """All methods block; call them from a thread in the gateway.

    Args:
        folder: for the bytes, a file for each upload.
        most_bytes: of one upload.
    """

    def __init__(self, database: Database, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self._database = database
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._writing: set[str] = set()

    def create(
        self, name: str, size: int, sha256: str | None, owner: tuple[str, str, str], by: By
    ) -> Upload:
        """A new one, empty; its whole size counts towards the tenant's quota from now on.

        Args:
            owner: tenant, project and key.

        Raises:
            PayloadTooLarge: more than one upload may have.
            QuotaExhausted: more than the tenant may store.
            StorageFull: more than the disk has room for.
        """
        if size > self._most_bytes:
            raise PayloadTooLarge(
                f"an upload has {self._most_bytes} bytes at the most", param="size"
            )
        tenant, project, key = owner
        id, now = f"up_{secrets.token_hex(12)}", int(time.time())
        made = Upload(id, tenant, project, key, name, size, sha256, 0, now, now)
        with disk_errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            need_space(self.folder, size)
            os.close(os.open(self._path(id), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            sync_folder(self.folder)
        try:
            with self._database.write() as connection:
                self._check_quota(connection, tenant, size)
                connection.execute(table.insert().values(**msgspec.structs.asdict(made)))
                by.note(connection, "upload.create", id, tenant=tenant, name=name, size=size)
        except BaseException:
            self._path(id).unlink(missing_ok=True)
            raise
        return made

    def append(self, id: str, tenant: str, offset: int, piece: bytes) -> Upload:
        """Writes a piece to disk and says so only then.

        Raises:
            NotFound
            WrongOffset: the piece does not begin where the last one ended.
            Conflict: another piece of it is being written at this moment.
            PayloadTooLarge: more bytes than it was to have.
            InvalidRequest: it is whole, and has another sha256: it is empty again.
            StorageFull
        """
        with self._alone(id):
            upload = self.get(id, tenant)
            if offset != upload.received:
                raise WrongOffset(upload.received)
            end = offset + len(piece)
            if end > upload.size:
                raise PayloadTooLarge(
                    f"the upload was to have {upload.size} bytes; this piece ends at {end}"
                )
            path = self._path(id)
            if piece:
                _write(path, offset, piece)
            if end == upload.size and upload.sha256 not in (None, _sha256(path)):
                self._move(upload, 0)
                raise InvalidRequest(
                    f"the bytes that arrived do not have sha256 {upload.sha256}; "
                    "send them again from byte 0",
                    param="sha256",
                )
            return self._move(upload, end)

    def get(self, id: str, tenant: str) -> Upload:
        """
        Raises:
            NotFound
        """
        query = sa.select(*_COLUMNS).where(table.c.id == id, table.c.tenant == tenant)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFound(f"no upload {id[:64]!r}")
        upload = Upload(*row)
        # A data folder that was restored from a backup may have fewer bytes than its database.
        there = self._path(id).stat().st_size if self._path(id).exists() else 0
        if there < upload.received:
            return self._move(upload, there)
        return upload

    def list(self, tenant: str, *, after: str = "", limit: int = 100) -> list[Upload]:
        """A tenant's, the newest first.

        Args:
            after: the last one's id of the page before.
        """
        last = self.get(after, tenant) if after else None
        query = page(sa.select(*_COLUMNS).where(table.c.tenant == tenant), table, limit, last)
        with self._database.read() as connection:
            return [Upload(*row) for row in connection.execute(query)]

    def whole(self, id: str, tenant: str) -> tuple[Path, str | None]:
        """The file of one that has arrived, and the sha256 that it was checked to have.

        Raises:
            NotFound
            InvalidRequest: bytes are missing.
        """
        upload = self.get(id, tenant)
        if upload.received < upload.size:
            raise InvalidRequest(
                f"upload {id!r} has {upload.received} of {upload.size} bytes", param="upload"
            )
        return self._path(id), upload.sha256

    def remove(self, id: str, tenant: str, by: By | None = None) -> None:
        """
        Args:
            by: None: it was used up by what it was for, which is no act of its own.

        Raises:
            NotFound
            Conflict: a data set is to be made of it, or a job begins with it.
        """
        with self._database.write() as connection:
            found = sa.select(table.c.id).where(table.c.id == id, table.c.tenant == tenant)
            if connection.execute(found.with_for_update()).first() is None:
                raise NotFound(f"no upload {id[:64]!r}")
            if id in _in_use(connection):
                raise Conflict(f"upload {id} is in use by a data set or a job that is not done")
            connection.execute(table.delete().where(table.c.id == id))
            if by is not None:
                by.note(connection, "upload.remove", id, tenant=tenant)
        self._path(id).unlink(missing_ok=True)

    def sweep(self, now: float | None = None) -> None:
        """Removes what nobody has touched for a day, and files that a crash left."""
        now = time.time() if now is None else now
        with self._database.write() as connection:
            old = sa.select(table.c.id).where(table.c.touched < int(now) - DAY)
            gone = {row.id for row in connection.execute(old)} - _in_use(connection)
            for id in gone:
                connection.execute(table.delete().where(table.c.id == id))
            kept = {row.id for row in connection.execute(sa.select(table.c.id))}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            fresh = path.name not in gone and path.stat().st_mtime > now - STRAY_SECONDS
            if path.name not in kept and not fresh:
                path.unlink(missing_ok=True)

    def _path(self, id: str) -> Path:
        return self.folder / id  # an id that is in the database: one that we made

    def _move(self, upload: Upload, received: int) -> Upload:
        now = int(time.time())
        with self._database.write() as connection:
            moved = connection.execute(
                table.update()
                .where(table.c.id == upload.id, table.c.received == upload.received)
                .values(received=received, touched=now)
            )
            if moved.rowcount == 0:
                raise Conflict(f"upload {upload.id} was changed meanwhile; ask where it is")
        return msgspec.structs.replace(upload, received=received, touched=now)

    def _check_quota(self, connection: sa.Connection, tenant: str, size: int) -> None:
        count = sa.select(sa.func.count()).where(table.c.tenant == tenant)
        if connection.execute(count).scalar_one() >= MOST:
            raise QuotaExhausted(f"tenant {tenant} has {MOST} uploads; remove some")
        check_stored(connection, tenant, size)

    @contextlib.contextmanager
    def _alone(self, id: str) -> Iterator[None]:
        """A client that gave up on a piece may send it again while it is still being written."""
        with self._lock:
            if id in self._writing:
                raise Conflict(f"a piece of upload {id[:64]} is being written; try again")
            self._writing.add(id)
        try:
            yield
        finally:
            with self._lock:
                self._writing.discard(id)


def _in_use(connection: sa.Connection) -> set[str]:
    waiting = sa.select(datasets.c.upload).where(datasets.c.state.in_(("waiting", "reading")))
    found: set[Any] = {row.upload for row in connection.execute(waiting)}
    unfinished = sa.select(jobs.c.spec).where(jobs.c.state.in_(UNFINISHED))
    for row in connection.execute(unfinished):
        found.add((row.spec.get("network") or {}).get("upload"))
    return found


def _write(path: Path, offset: int, piece: bytes) -> None:
    with disk_errors():
        # It is there, unless the folder was restored without it: then the offset is 0.
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(piece)
            while view:
                done = os.pwrite(opened, view, offset)
                view, offset = view[done:], offset + done
            os.fsync(opened)
        finally:
            os.close(opened)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()
