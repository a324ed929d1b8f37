"""Data sets as rows: what was uploaded, how far it is read, and what is in it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database, page
from openmaas.encryption.folders import unseal_folder
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.memory import Memory
from openmaas.encryption.sealed import open_sealed
from openmaas.encryption.values import json_key_of
from openmaas.errors import (
    Conflict,
    Erased,
    InvalidRequest,
    NotFound,
    OpenMaaSError,
    QuotaExhausted,
)
from openmaas.redaction.policy import RedactionPolicy
from openmaas.schema import datasets as table
from openmaas.schema import jobs, sessions
from openmaas.schema import uploads as uploads_table
from openmaas.storage import check_stored
from openmaas.tenancy import privacy
from openmaas.training import descriptions
from openmaas.training.data import PREVIEW, Description, Preview
from openmaas.training.differential_privacy import budgets
from openmaas.training.jobs import UNFINISHED
from openmaas.training.options import Format, Options, check, format_of
from openmaas.training.spec import Budget
from openmaas.training.uploads import Uploads

State = Literal["waiting", "reading", "ready", "failed"]
MOST = 10_000  # data sets of one tenant
START_BYTES = 64  # of an upload, that may tell its format


class Trouble(msgspec.Struct, frozen=True):
    """Why a data set could not be made."""

    code: str
    message: str


class DatasetRecord(msgspec.Struct, frozen=True):
    """A data set, and what is in it once it is ready."""

    id: str
    tenant: str
    project: str
    key: str
    name: str
    format: Format
    state: State
    upload: str  # that it is made of; removed when it is ready
    options: Options
    description: Description | None
    error: Trouble | None
    bytes: int  # on disk
    created: int  # Unix seconds
    finished: int | None


_COLUMNS = [table.c[name] for name in DatasetRecord.__struct_fields__]


class Datasets:
    """All methods block; call them from a thread in the gateway.

    Args:
        folder: for the canonical forms, a folder for each data set.
        removed: called with the id of each that is removed.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        uploads: Uploads,
        keyring: Keyring,
        removed: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.removed = removed
        self._database = database
        self._uploads = uploads
        self._keyring = keyring

    def create(
        self,
        name: str,
        upload: str,
        form: Format | None,
        options: Options,
        owner: tuple[str, str, str],
        by: By,
        budget: Budget | None = None,
    ) -> DatasetRecord:
        """A data set that waits to be read.

        Args:
            form: ``None``: what the upload's name or content says.
            owner: tenant, project and key.
            budget: of privacy.

        Raises:
            InvalidRequest: the upload is absent or not whole, its format unknown, an option wrong.
            QuotaExhausted: there are too many.
        """
        tenant, project, key = owner
        try:
            given = self._uploads.whole(upload, tenant)
            if form is None:
                with self._uploads.open(given) as file:
                    form = format_of(given.name, file.read(START_BYTES))
        except NotFound as error:
            raise InvalidRequest(error.message, param="upload") from None
        check(options, form)
        made = DatasetRecord(
            id=f"ds_{secrets.token_hex(12)}", tenant=tenant, project=project, key=key, name=name,
            format=form, state="waiting", upload=upload, options=options, description=None,
            error=None, bytes=0, created=int(time.time()), finished=None,
        )  # fmt: skip
        with self._database.write() as connection:
            count = sa.select(sa.func.count()).where(table.c.tenant == tenant)
            if connection.execute(count).scalar_one() >= MOST:
                raise QuotaExhausted(f"tenant {tenant} has {MOST} data sets; remove some")
            there = sa.select(uploads_table.c.id).where(uploads_table.c.id == upload)
            if connection.execute(there).first() is None:  # removed meanwhile
                raise InvalidRequest(f"no upload {upload!r}", param="upload")
            connection.execute(table.insert().values(**msgspec.to_builtins(made)))
            by.note(connection, "dataset.create", made.id, tenant=tenant, name=name)
            if budget is not None:
                budgets.put(connection, made.id, tenant, budget, by)
        return made

    def get(self, id: str, tenant: str) -> DatasetRecord:
        """
        Raises:
            NotFound
        """
        with self._database.read() as connection:
            row = _get(connection, id, tenant)
        return self._record(row)

    def list(self, tenant: str, *, after: str = "", limit: int = 100) -> list[DatasetRecord]:
        """A tenant's, the newest first.

        Args:
            after: the last one's id of the page before.

        Raises:
            NotFound: there is none of that id.
        """
        query = sa.select(*_COLUMNS).where(table.c.tenant == tenant)
        with self._database.read() as connection:
            last = _get(connection, after, tenant) if after else None
            rows = connection.execute(page(query, table, limit, last)).all()
        return [self._record(row) for row in rows]

    def preview(self, id: str, tenant: str) -> Preview:
        """
        Raises:
            NotFound
            Conflict: it is not ready.
        """
        record = self.get(id, tenant)
        if record.state != "ready":
            raise Conflict(f"data set {id} is {record.state}; it has rows when it is ready")
        path, name = self.folder / id / PREVIEW, f"{_name(id)}/{PREVIEW}"
        with open_sealed(path, self._keyring, name) as file:
            return msgspec.json.decode(file.read(), type=Preview)

    def redaction(self, record: DatasetRecord) -> RedactionPolicy:
        """What its owner wants done about personal data in it."""
        with self._database.read() as connection:
            return privacy.held(connection, record.tenant, record.key)

    def unseal(self, id: str, target: Path, memory: Memory) -> None:
        """Lays a data set that is ready into a new folder in memory.

        Raises:
            StorageFull: it does not fit.
            NotFound: it is gone.
            SealBroken
        """
        lay(self.folder, self._keyring, id, target, memory)

    def remove(self, id: str, tenant: str, by: By) -> None:
        """
        Raises:
            NotFound
            Conflict: a job or session that is not finished learns from it.
        """
        with self._database.write() as connection:
            _get(connection, id, tenant, lock=True)  # see _check_parts of jobs
            user = _user(connection, id, tenant)
            if user is not None:
                raise Conflict(f"data set {id} is in use by {user}")
            connection.execute(table.delete().where(table.c.id == id))
            self._keyring.destroy(connection, tenant, id)
            by.note(connection, "dataset.remove", id, tenant=tenant)
        self._keyring.scrub()
        self.removed(id)
        shutil.rmtree(self.folder / id, ignore_errors=True)

    # --- for who reads them ------------------------------------------------------------------

    def recover(self) -> None:
        """Has those read anew that a server which died was reading, and removes what no row
        refers to. Call it while nothing is being read."""
        with self._database.write() as connection:
            connection.execute(
                table.update().where(table.c.state == "reading").values(state="waiting")
            )
            kept = {row.id for row in connection.execute(sa.select(table.c.id))}
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def claim(self) -> DatasetRecord | None:
        """The one that has waited longest, now being read."""
        query = (
            sa.select(*_COLUMNS)
            .where(table.c.state == "waiting")
            .order_by(table.c.created, table.c.id)
            .limit(1)
        )
        with self._database.write() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            claimed = table.update().where(table.c.id == row.id, table.c.state == "waiting")
            if connection.execute(claimed.values(state="reading")).rowcount == 0:
                return None
            record = self._record(row)
            return msgspec.structs.replace(record, state="reading")

    def check_room(self, record: DatasetRecord, size: int) -> None:
        """
        Raises:
            QuotaExhausted: the tenant would store more than its quota, without the upload.
        """
        with self._database.read() as connection:
            freed = sa.select(uploads_table.c.size).where(uploads_table.c.id == record.upload)
            check_stored(
                connection, record.tenant, size - (connection.execute(freed).scalar() or 0)
            )

    def ready(self, record: DatasetRecord, description: Description) -> bool:
        """Whether it was still wanted."""
        told = descriptions.stored(description, self._keyring, record.id, record.tenant)
        return self._finish(record.id, state="ready", description=told, bytes=description.bytes)

    def unwanted(self, record: DatasetRecord) -> None:
        """Removes what was read of one that was removed meanwhile."""
        with self._database.write() as connection:
            self._keyring.destroy(connection, record.tenant, record.id)
        self._keyring.scrub()
        shutil.rmtree(self.folder / record.id, ignore_errors=True)

    def failed(self, id: str, error: OpenMaaSError) -> bool:
        trouble = {"code": error.code, "message": error.message}
        return self._finish(id, state="failed", error=trouble)

    def again(self, id: str) -> bool:
        """Has one that was being read wait once more."""
        with self._database.write() as connection:
            connection.execute(table.update().where(table.c.id == id).values(state="waiting"))
        return True

    def _finish(self, id: str, **values: Any) -> bool:
        with self._database.write() as connection:
            changed = connection.execute(
                table.update().where(table.c.id == id).values(finished=int(time.time()), **values)
            )
            return changed.rowcount == 1

    def _record(self, row: sa.Row[Any]) -> DatasetRecord:
        values = dict(zip(DatasetRecord.__struct_fields__, row, strict=True))
        told, values["description"] = values["description"], None
        record = msgspec.convert(values, DatasetRecord)
        with contextlib.suppress(Erased):  # it is being erased at this very moment
            found = descriptions.description(told, self._keyring, record.id)
            return msgspec.structs.replace(record, description=found)
        return record

    def describe_anew(self, id: str, tenant: str) -> None:
        """Seals what its row says with its current key."""
        which = (table.c.id == id) & (table.c.tenant == tenant) & (table.c.state == "ready")
        with self._database.read() as connection:
            column = connection.execute(sa.select(table.c.description).where(which)).scalar()
        told = descriptions.description(column, self._keyring, id)
        if told is not None and json_key_of(column) != self._keyring.key(tenant, id).id:
            anew = descriptions.stored(told, self._keyring, id, tenant)
            with self._database.write() as connection:
                connection.execute(table.update().where(which).values(description=anew))


def lay(folder: Path, keyring: Keyring, id: str, target: Path, memory: Memory) -> None:
    """See ``Datasets.unseal``.

    Args:
        folder: of all data sets.
    """
    try:
        unseal_folder(folder / id, keyring, _name(id), target, memory)
    except (FileNotFoundError, Erased):
        raise NotFound(f"data set {id} is gone") from None


def _name(id: str) -> str:
    return f"datasets/{id}"


def _get(connection: sa.Connection, id: str, tenant: str, *, lock: bool = False) -> sa.Row[Any]:
    query = sa.select(*_COLUMNS).where(table.c.id == id, table.c.tenant == tenant)
    if lock:
        query = query.with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise NotFound(f"no data set {id[:64]!r}")
    return row


def _user(connection: sa.Connection, id: str, tenant: str) -> str | None:
    """A job or session that learns from it."""
    for users, states in ((jobs, UNFINISHED), (sessions, ("open", "idle"))):
        query = sa.select(users.c.id, users.c.spec).where(
            users.c.tenant == tenant, users.c.state.in_(states)
        )
        for row in connection.execute(query):
            if row.spec.get("dataset") == id:
                return str(row.id)
    return None
