"""Sessions as rows: whose they are, how far their last checkpoint is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database, page
from openmaas.encryption.keyring import Keyring
from openmaas.errors import InvalidRequest, NotFound, QuotaExhausted
from openmaas.schema import datasets
from openmaas.schema import sessions as table
from openmaas.training import descriptions
from openmaas.training.differential_privacy import budgets
from openmaas.training.metering import Owner
from openmaas.training.publishing import Origin
from openmaas.training.spec import SessionSpec

State = Literal["open", "idle", "closed", "failed"]
MOST = 100  # that a tenant has open or idle
LOST = "lost"  # the error of a session whose process ended with calls after its last checkpoint


class SessionRow(msgspec.Struct, frozen=True):
    """A session as the database has it."""

    id: str
    tenant: str
    project: str
    key: str
    model: str
    spec: SessionSpec
    state: State
    step: int  # of its last checkpoint
    checkpoint: str | None
    error: dict[str, str] | None
    seconds: float
    created: int
    touched: int

    @property
    def owner(self) -> Owner:
        return Owner(self.tenant, self.project, self.key)

    @property
    def lost(self) -> bool:
        """Whether steps after its last checkpoint may be lost."""
        return self.error is not None and self.error.get("code") == LOST


_COLUMNS = [table.c[name] for name in SessionRow.__struct_fields__]


class SessionRecords:
    """All methods are short transactions; call them from a thread in the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, spec: SessionSpec, owner: Owner, by: By) -> SessionRow:
        """
        Raises:
            QuotaExhausted: the tenant has as many as may be.
            Conflict: its data set's budget of privacy has not so much left as it may spend.
        """
        now = int(time.time())
        row = SessionRow(
            id=f"session_{secrets.token_hex(12)}",
            tenant=owner.tenant,
            project=owner.project,
            key=owner.key,
            model=spec.model,
            spec=spec,
            state="open",
            step=0,
            checkpoint=None,
            error=None,
            seconds=0.0,
            created=now,
            touched=now,
        )
        kept = sa.select(sa.func.count()).where(
            table.c.tenant == owner.tenant, table.c.state.in_(("open", "idle"))
        )
        with self._database.write() as connection:
            if connection.execute(kept).scalar_one() >= MOST:
                raise QuotaExhausted(f"the tenant has {MOST} sessions; close some")
            if spec.dataset is not None:
                _reserve(connection, row)
            values = msgspec.structs.asdict(row) | {"spec": msgspec.to_builtins(spec)}
            connection.execute(table.insert().values(**values))
            by.note(connection, "session.open", row.id, tenant=row.tenant, model=row.model)
        return row

    def get(self, id: str, tenant: str) -> SessionRow:
        """
        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        query = sa.select(*_COLUMNS).where(table.c.id == id, table.c.tenant == tenant)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFound(f"no session {id[:64]!r}")
        return _row(row)

    def list(self, tenant: str, before: str = "", limit: int = 100) -> Sequence[SessionRow]:
        """A tenant's, the newest first."""
        last = self.get(before, tenant) if before else None
        query = page(sa.select(*_COLUMNS).where(table.c.tenant == tenant), table, limit, last)
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(query)]

    def change(self, id: str, by: By | None = None, act: str = "", **values: Any) -> None:
        """Sets columns; with ``by`` it is written down as an act."""
        with self._database.write() as connection:
            which = table.c.id == id
            connection.execute(
                table.update().where(which).values(touched=int(time.time()), **values)
            )
            if by is not None:
                tenant = connection.execute(sa.select(table.c.tenant).where(which)).scalar_one()
                by.note(connection, act, id, tenant=tenant)

    def left_open(self) -> Sequence[str]:
        """Sessions that a server left open when it died become idle; the ids of all that may be
        resumed."""
        lost = {"code": LOST, "message": "the server ended; what was done since is lost"}
        with self._database.write() as connection:
            connection.execute(
                table.update().where(table.c.state == "open").values(state="idle", error=lost)
            )
            query = sa.select(table.c.id).where(table.c.state == "idle")
            return [row.id for row in connection.execute(query)]

    def origin(self, id: str, tenant: str, keyring: Keyring) -> Origin:
        """A data set that is ready.

        Raises:
            InvalidRequest: there is none of that id, or it is not ready.
        """
        query = sa.select(datasets.c.state, datasets.c.name, datasets.c.description).where(
            datasets.c.id == id, datasets.c.tenant == tenant
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None or row.state != "ready":
            why = "" if row is None else f": it is {row.state}"
            raise InvalidRequest(f"no data set {id!r} that is ready{why}", param="dataset")
        about = descriptions.description(row.description, keyring, id)
        assert about is not None, "one that is ready has a description"
        return Origin(id, row.name, about.fingerprint, about.rows, about.splits)


def _reserve(connection: sa.Connection, row: SessionRow) -> None:
    dataset, privacy = row.spec.dataset, row.spec.privacy
    assert dataset is not None
    query = sa.select(datasets.c.id).where(
        datasets.c.id == dataset, datasets.c.tenant == row.tenant
    )
    shared = privacy is None  # else it takes of what is left: no two at a time
    if connection.execute(query.with_for_update(read=shared)).first() is None:
        raise InvalidRequest(f"no data set {dataset!r}", param="dataset")
    if privacy is None:
        budgets.check_unprotected(connection, dataset)
    else:
        budgets.reserve(connection, row.id, dataset, row.tenant, privacy)


def _row(row: sa.Row[Any]) -> SessionRow:
    values = dict(row._mapping)
    return SessionRow(**values | {"spec": msgspec.convert(values["spec"], SessionSpec)})
