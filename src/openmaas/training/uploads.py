"""Files that arrive in pieces and go on where they broke off, whichever side it was that died. They
are sealed as they come.

Source: the offsets of the tus protocol, https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database, page
from openmaas.disk import disk_errors, need_space, sync_folder
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.memory import Memory
from openmaas.encryption.sealed import SealedWriter, least_size, open_sealed, pieces, seal_file
from openmaas.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    QuotaExhausted,
    SealBroken,
)
from openmaas.schema import datasets, jobs
from openmaas.schema import uploads as table
from openmaas.storage import check_stored
from openmaas.training.jobs import UNFINISHED

DAY = 86_400  # seconds after which an upload that nobody touches is removed
STRAY_SECONDS = 3600  # after which a file without a row is one that a crash left
MOST = 1000  # uploads of one tenant
RECORD = 1 << 18  # bytes that are sealed at one time
OPEN = 64  # files that are kept open between two pieces


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

    def __init__(self, database: Database, folder: Path, most_bytes: int, keyring: Keyring) -> None:
        self.folder = folder
        self._database = database
        self._most_bytes = most_bytes
        self._keyring = keyring
        self._lock = threading.Lock()
        self._writing: set[str] = set()
        self._opened: OrderedDict[str, SealedWriter] = OrderedDict()  # the latest last

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
            if piece:
                self._write(upload, piece)
            whole = end == upload.size
            if whole:
                self._forget(id)
            if whole and upload.sha256 is not None and upload.sha256 != self._sha256(upload):
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
        if there < least_size(upload.received) and self._whole(id) < upload.received:
            return self._move(upload, self._whole(id))
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

    def whole(self, id: str, tenant: str) -> Upload:
        """One that has arrived.

        Raises:
            NotFound
            InvalidRequest: bytes are missing.
        """
        upload = self.get(id, tenant)
        if upload.received < upload.size:
            raise InvalidRequest(
                f"upload {id!r} has {upload.received} of {upload.size} bytes", param="upload"
            )
        return upload

    def open(self, upload: Upload) -> BinaryIO:
        """The bytes of one that has arrived.

        Raises:
            NotFound: it was removed.
            SealBroken
        """
        try:
            path, name = self._path(upload.id), _name(upload.id)
            return open_sealed(path, self._keyring, name, size=upload.size)
        except FileNotFoundError:
            raise NotFound(f"no upload {upload.id!r}") from None

    def unseal(self, upload: Upload, target: Path, memory: Memory) -> None:
        """Lays one that has arrived into a new file in memory.

        Raises:
            NotFound: it was removed.
            StorageFull, SealBroken
        """
        memory.need(upload.size)
        with self.open(upload) as file, memory.errors(), open(target, "xb") as out:
            for piece in pieces(file):
                out.write(piece)

    @contextlib.contextmanager
    def unsealed(self, upload: Upload, memory: Memory) -> Iterator[Path]:
        """One that has arrived as a file in memory, for one at a time.

        Raises:
            Conflict: another works with it.
            NotFound, StorageFull, SealBroken: as ``unseal``.
        """
        with self._alone(upload.id):
            folder = memory.make("uploads", upload.id)
            try:
                self.unseal(upload, folder / "upload", memory)
                yield folder / "upload"
            finally:
                memory.remove("uploads", upload.id)

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
        self._forget(id)
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
        for id in gone:
            self._forget(id)
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            fresh = path.name not in gone and path.stat().st_mtime > now - STRAY_SECONDS
            if path.name not in kept and not fresh:
                path.unlink(missing_ok=True)

    def _path(self, id: str) -> Path:
        return self.folder / id  # an id that is in the database: one that we made

    def seal_anew(self, id: str, tenant: str) -> bool:
        """Seals one that has arrived with the tenant's current key; whether it could be now.

        Raises:
            StorageFull
        """
        with contextlib.suppress(NotFound, InvalidRequest, Conflict), self._alone(id):
            upload = self.whole(id, tenant)
            with disk_errors(), self.open(upload) as file:
                need_space(self.folder, upload.size)
                seal_file(file, self._path(id), self._keyring.key(tenant), _name(id))
            return True
        return False

    def _write(self, upload: Upload, piece: bytes) -> None:
        """Appends a piece to the bytes that are safely there."""
        id, key = upload.id, self._keyring.key(upload.tenant)
        with self._lock:
            writer = self._opened.pop(id, None)
        try:
            if writer is not None and writer.size != upload.received:
                writer.drop()
                writer = None
            with disk_errors():
                if writer is None:
                    # It is there, unless the folder was restored without it: then it begins.
                    writer = SealedWriter.append(
                        self._path(id), self._keyring, key, _name(id),
                        size=upload.received, cut=RECORD,
                    )  # fmt: skip
                writer.write(piece)
                writer.flush()
        except SealBroken:
            raise self._behind(upload) from None
        except BaseException:
            if writer is not None:
                writer.drop()
            raise
        with self._lock:
            self._opened[id] = writer
            late = self._opened.popitem(last=False)[1] if len(self._opened) > OPEN else None
        if late is not None:
            late.drop()

    def _behind(self, upload: Upload) -> WrongOffset:
        """Fewer bytes are whole than its row says: what was after them is to be sent again."""
        return WrongOffset(self._move(upload, self._whole(upload.id)).received)

    def _whole(self, id: str) -> int:
        """Bytes of a file that can be read."""
        try:
            with open_sealed(self._path(id), self._keyring, _name(id), growing=True) as file:
                return file.seek(0, os.SEEK_END)
        except FileNotFoundError:
            return 0

    def _sha256(self, upload: Upload) -> str:
        found = hashlib.sha256()
        with self.open(upload) as file:
            for piece in pieces(file):
                found.update(piece)
        return found.hexdigest()

    def _forget(self, id: str) -> None:
        with self._lock:
            writer = self._opened.pop(id, None)
        if writer is not None:
            writer.drop()

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
                raise Conflict(f"upload {id[:64]} is being worked with; try again")
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


def _name(id: str) -> str:
    return f"uploads/{id}"
