"""Erasures as rows: what is to be erased, how far it is, and the record that is left."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database
from openmaas.errors import NotFound
from openmaas.privacy.signing import SignedRecord
from openmaas.schema import datasets, keys, tenants
from openmaas.schema import erasures as table

State = Literal["requested", "halted", "unreadable", "removed", "done"]
STATES: tuple[State, ...] = ("requested", "halted", "unreadable", "removed", "done")
"""In this order: nothing new begins; nothing is at work any more and what there is is counted;
its keys are destroyed; it is removed; its bytes are gone, and the record is signed."""


class Amount(msgspec.Struct, frozen=True):
    count: int
    bytes: int = 0  # on disk; of rows alone 0


class Trained(msgspec.Struct, frozen=True):
    """A version that was trained on what is erased."""

    model: str
    version: int
    digest: str
    withdrawn: bool


class Found(msgspec.Struct, frozen=True):
    """What there was when everything stood still: no content, and no name of a file.

    Attributes:
        things: by kind, as ``holdings`` names them.
        artifacts: digests of those that are removed.
        shared: how many artifacts of the tenant's are public ones too, and stay.
        trained: of a data set alone.
    """

    things: dict[str, Amount] = {}
    artifacts: list[str] = []
    shared: int = 0
    trained: list[Trained] = []


class Erasure(msgspec.Struct, frozen=True):
    id: str
    tenant: str
    object: str  # a data set's id; "": all of the tenant
    state: State
    found: Found | None
    actor: str
    requested: int  # Unix seconds
    unreadable: int | None  # since when nobody can read it
    finished: int | None
    record: SignedRecord | None


_COLUMNS = [table.c[name] for name in Erasure.__struct_fields__]


class Erasures:
    """All methods are short transactions; call them from a thread in the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def request(self, tenant: str, by: By, dataset: str = "") -> Erasure:
        """Begins an erasure, or finds the one that is under way. From here nothing new begins:
        the tenant is closed and its keys are revoked, or the data set can be had no more.

        Raises:
            NotFound: there is no such tenant, or it has no such data set.
        """
        now = int(time.time())
        made = Erasure(
            id=f"erasure_{secrets.token_hex(16)}", tenant=tenant, object=dataset,
            state="requested", found=None, actor=by.actor, requested=now, unreadable=None,
            finished=None, record=None,
        )  # fmt: skip
        with self._database.write() as connection:
            held = sa.select(tenants.c.id).where(tenants.c.id == tenant).with_for_update()
            if connection.execute(held).first() is None:
                raise NotFound(f"no tenant {tenant[:64]!r}")
            same = (table.c.tenant == tenant) & (table.c.object.in_(("", dataset)))
            query = sa.select(*_COLUMNS).where(same, table.c.state != "done")
            row = connection.execute(query.order_by(table.c.object)).first()
            if row is not None:
                return _erasure(row)
            if dataset:
                which = (datasets.c.id == dataset) & (datasets.c.tenant == tenant)
                if connection.execute(sa.select(datasets.c.id).where(which)).first() is None:
                    raise NotFound(f"no data set {dataset[:64]!r}")
                trouble = {"code": "erased", "message": "it is being erased"}
                gone = datasets.update().where(which, datasets.c.state != "reading")
                connection.execute(gone.values(state="failed", error=trouble))
            else:
                _close(connection, tenant, now)
            values = msgspec.to_builtins(made)
            connection.execute(table.insert().values(**values))
            act = "dataset.erase" if dataset else "tenant.erase"
            by.note(connection, act, dataset or tenant, tenant=tenant, erasure=made.id)
        return made

    def get(self, id: str) -> Erasure:
        """
        Raises:
            NotFound
        """
        query = sa.select(*_COLUMNS).where(table.c.id == id)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFound(f"no erasure {id[:64]!r}")
        return _erasure(row)

    def list(self, tenant: str | None = None, *states: State) -> Sequence[Erasure]:
        """The oldest first.

        Args:
            tenant: None: of all.
            states: none: whatever theirs is.
        """
        query = sa.select(*_COLUMNS).order_by(table.c.requested, table.c.id)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        if states:
            query = query.where(table.c.state.in_(states))
        with self._database.read() as connection:
            return [_erasure(row) for row in connection.execute(query)]

    def unfinished(self) -> Sequence[Erasure]:
        """The oldest first."""
        return self.list(None, *STATES[:-1])


def move(connection: sa.Connection, id: str, state: State, **values: Any) -> None:
    """Says how far an erasure is."""
    connection.execute(table.update().where(table.c.id == id).values(state=state, **values))


def _close(connection: sa.Connection, tenant: str, now: int) -> None:
    open_ = (tenants.c.id == tenant) & tenants.c.closed.is_(None)
    connection.execute(tenants.update().where(open_).values(closed=now))
    good = (keys.c.tenant == tenant) & keys.c.revoked.is_(None)
    connection.execute(keys.update().where(good).values(revoked=now))


def _erasure(row: sa.Row[Any]) -> Erasure:
    return msgspec.convert(dict(zip(Erasure.__struct_fields__, row, strict=True)), Erasure)
