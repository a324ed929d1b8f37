"""Keys of tenants, and of single things of theirs, as rows that are wrapped.

A tenant's key is wrapped by the master key, a thing's own key by its tenant's. To destroy a row is
to destroy all that was sealed with its key, wherever copies of that may be.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openmaas.audit import By
from openmaas.database import Database
from openmaas.encryption.master import KEY_BYTES, NONCE_BYTES, PREFIX, Context, Master
from openmaas.errors import Conflict, Erased, SealBroken
from openmaas.schema import data_keys as table

TRUST_SECONDS = 1.0  # without a look at its row a key is not used longer, in any process
REMEMBERED = 4096  # keys


@dataclass(frozen=True)
class Key:
    """A key that data are sealed with."""

    id: str
    secret: bytes = field(repr=False)


class _Remembered(NamedTuple):
    key: Key
    seen: float  # when its row was, on the monotonic clock


class Keyring:
    """All methods block; call them from a thread in the gateway."""

    def __init__(self, database: Database, master: Master) -> None:
        self.master = master
        self._database = database
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, _Remembered] = OrderedDict()
        self._current: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()

    def check(self) -> None:
        """Whether the keys that there are can be unwrapped; makes a master key where nothing needs
        an older one.

        Raises:
            WrongMaster: they cannot.
        """
        first = (
            sa.select(table.c.wrapping, sa.func.min(table.c.id))
            .where(table.c.wrapping.startswith(PREFIX))
            .group_by(table.c.wrapping)
        )
        with self._database.read() as connection:
            found = [str(row[1]) for row in connection.execute(first)]
        self.master.begin(fresh=not found)
        self.forget()
        for id in found:
            with contextlib.suppress(Erased):  # at this very moment
                self.by_id(id)

    def key(self, tenant: str, object: str = "") -> Key:
        """The current key of a tenant, or of one thing of a tenant's, made where there is none.

        Args:
            object: what the thing is called: a data set's id, for one.

        Raises:
            WrongMaster, StorageUnavailable
        """
        with self._lock:
            known = self._current.get((tenant, object))
        if known is not None and _fresh(known):
            return known.key
        now = time.monotonic()
        row = self._row(_is_current(tenant, object))
        key = self._opened(row, now) if row is not None else self._make(tenant, object)
        with self._lock:
            _remember(self._current, (tenant, object), _Remembered(key, now))
        return key

    def by_id(self, id: str) -> Key:
        """The key that something was sealed with.

        Raises:
            Erased: it is destroyed.
            WrongMaster, StorageUnavailable
        """
        with self._lock:
            known = self._keys.get(id)
        if known is not None and _fresh(known):
            return known.key
        now = time.monotonic()
        row = self._row(table.c.id == id)
        if row is None:
            self.forget(id)
            raise Erased("what it was sealed with is destroyed: it cannot be read any more")
        return self._opened(row, now)

    # --- replacing keys ------------------------------------------------------------------------

    def rotate(
        self, tenant: str, by: By, *, rewrite: bool = False, things: Sequence[str] = ()
    ) -> Key:
        """A new key of a tenant for all that is sealed from now on; its things' own keys are
        wrapped by it.

        Args:
            rewrite: what was sealed with older ones is sealed anew by the server, which then
                destroys these.
            things: that get new keys of their own too.

        Raises:
            Conflict: somebody else replaces it at this moment.
        """
        new = Key(_new_id(), secrets.token_bytes(KEY_BYTES))
        with self._database.write() as connection:
            mine = (table.c.tenant == tenant) & table.c.retired.is_(None)
            mine &= table.c.object.in_(["", *things])
            others = sa.select(table).where(table.c.tenant == tenant, table.c.object != "")
            rows = connection.execute(others).all()
            now = int(time.time())
            connection.execute(table.update().where(mine).values(retired=now))
            if rewrite:
                old = (table.c.tenant == tenant) & table.c.retired.is_not(None)
                connection.execute(table.update().where(old).values(rewrite=True))
            try:
                self._insert(connection, new, tenant, "")
            except sa.exc.IntegrityError:
                raise Conflict(f"the key of {tenant} is being replaced by somebody else") from None
            self._wrap_anew(connection, new, rows)
            by.note(connection, "key.data.rotate", new.id, tenant=tenant, rewrite=rewrite)
        self.forget()
        return new

    def rotate_master(self, by: By) -> int:
        """Makes a new master key, where it is kept here, and wraps all keys of tenants by the
        current one. A server that runs reads it again.

        Returns:
            How many keys were wrapped anew.
        """
        self.check()
        self.master.renew()
        current = self.master.current()
        query = sa.select(table).where(table.c.wrapping.startswith(PREFIX))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        count = 0
        for row in rows:
            if row.wrapping == current:
                continue
            context = Context(row.id, row.tenant, row.object)
            wrapping, wrapped = self.master.wrap(self.by_id(row.id).secret, context)
            same = (table.c.id == row.id) & (table.c.wrapped == row.wrapped)
            with self._database.write() as connection:
                values = {"wrapping": wrapping, "wrapped": wrapped}
                count += connection.execute(table.update().where(same).values(**values)).rowcount
        with self._database.write() as connection:
            by.note(connection, "key.master.rotate", current or "", keys=count)
        with self._database.read() as connection:
            self.master.forget(set(connection.execute(sa.select(table.c.wrapping)).scalars()))
        self._database.scrub()
        return count

    def to_rewrite(self) -> dict[str, set[str]]:
        """By tenant, ids of the keys whose data are to be sealed anew."""
        query = sa.select(table.c.tenant, table.c.id).where(table.c.rewrite)
        found: dict[str, set[str]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                found.setdefault(row.tenant, set()).add(row.id)
        return found

    def retire(self, tenant: str, ids: Iterable[str], before: float) -> None:
        """Destroys keys that nothing is sealed with any more.

        Args:
            before: Unix seconds; those that were retired later stay.
        """
        which = (table.c.id.in_(list(ids)) & (table.c.tenant == tenant)) & (
            table.c.retired <= int(before)
        )
        owner = self.key(tenant)
        with self._database.write() as connection:
            connection.execute(table.delete().where(which, table.c.object != ""))
            # One that was made while its tenant's key was replaced.
            late = sa.select(table).where(table.c.wrapping.in_(list(ids)))
            self._wrap_anew(connection, owner, connection.execute(late).all())
            connection.execute(table.delete().where(which))
        self.scrub()

    def destroy(self, connection: sa.Connection, tenant: str, object: str | None = None) -> int:
        """Destroys keys, in the caller's transaction; whoever commits it calls ``scrub`` then. No
        process uses them a second later.

        Args:
            object: of one thing alone; None: all of the tenant's.

        Returns:
            How many there were.
        """
        which = table.c.tenant == tenant
        if object is not None:
            which &= table.c.object == object
        ids = connection.execute(sa.select(table.c.id).where(which)).scalars().all()
        connection.execute(table.delete().where(which))
        self.forget(*ids)
        return len(ids)

    def scrub(self) -> bool:
        """After destroyed keys are committed: nothing of them is left in the database's files.

        Returns:
            Whether it could be done now; see ``Database.scrub``.
        """
        self.forget()
        return self._database.scrub()

    def forget(self, *ids: str) -> None:
        """Looks at the rows of these keys again, or of all."""
        with self._lock:
            self._current.clear()
            for id in ids or list(self._keys):
                self._keys.pop(id, None)

    # --- rows ----------------------------------------------------------------------------------

    def _row(self, which: sa.ColumnElement[bool]) -> sa.Row[Any] | None:
        with self._database.read() as connection:
            return connection.execute(sa.select(table).where(which)).first()

    def _opened(self, row: sa.Row[Any], now: float) -> Key:
        with self._lock:
            known = self._keys.get(row.id)
        if known is not None:  # its row is there: an id is never given twice
            key = known.key
        else:
            context = Context(row.id, row.tenant, row.object)
            wrapped = bytes(row.wrapped)
            if row.wrapping.startswith(PREFIX):
                secret = self.master.unwrap(row.wrapping, wrapped, context)
            else:
                secret = _unwrap(self.by_id(row.wrapping), wrapped, context)
            key = Key(row.id, secret)
        with self._lock:
            _remember(self._keys, row.id, _Remembered(key, now))
        return key

    def _make(self, tenant: str, object: str) -> Key:
        owner = self.key(tenant) if object else None
        if owner is None:
            self.check()
        new = Key(_new_id(), secrets.token_bytes(KEY_BYTES))
        try:
            with self._database.write() as connection:
                self._insert(connection, new, tenant, object, owner)
        except sa.exc.IntegrityError:  # another thread or process made one meanwhile
            row = self._row(_is_current(tenant, object))
            if row is None:
                raise
            return self._opened(row, time.monotonic())
        return new

    def _wrap_anew(self, connection: sa.Connection, owner: Key, rows: Iterable[Any]) -> None:
        for row in rows:
            secret = self._opened(row, time.monotonic()).secret
            wrapped = _wrap(owner, secret, Context(row.id, row.tenant, row.object))
            values = {"wrapped": wrapped, "wrapping": owner.id}
            connection.execute(table.update().where(table.c.id == row.id).values(**values))

    def _insert(
        self,
        connection: sa.Connection,
        new: Key,
        tenant: str,
        object: str,
        owner: Key | None = None,
    ) -> None:
        context = Context(new.id, tenant, object)
        if owner is None:
            wrapping, wrapped = self.master.wrap(new.secret, context)
        else:
            wrapping, wrapped = owner.id, _wrap(owner, new.secret, context)
        connection.execute(
            table.insert().values(
                id=new.id,
                tenant=tenant,
                object=object,
                wrapped=wrapped,
                wrapping=wrapping,
                created=int(time.time()),
                retired=None,
                rewrite=False,
            )
        )


def _is_current(tenant: str, object: str) -> sa.ColumnElement[bool]:
    return (table.c.tenant == tenant) & (table.c.object == object) & table.c.retired.is_(None)


def _wrap(owner: Key, secret: bytes, context: Context) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(owner.secret).encrypt(nonce, secret, context.encoded())


def _unwrap(owner: Key, wrapped: bytes, context: Context) -> bytes:
    nonce, sealed = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
    try:
        return AESGCM(owner.secret).decrypt(nonce, sealed, context.encoded())
    except (InvalidTag, ValueError):
        raise SealBroken(f"key {context.id} of the database was changed") from None


def _new_id() -> str:
    return f"k_{secrets.token_hex(12)}"


def _fresh(one: _Remembered) -> bool:
    return time.monotonic() - one.seen < TRUST_SECONDS


def _remember(among: OrderedDict[Any, _Remembered], name: Any, one: _Remembered) -> None:
    among[name] = one
    among.move_to_end(name)
    while len(among) > REMEMBERED:
        among.popitem(last=False)
