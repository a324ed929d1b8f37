"""API keys: shown once, kept as hashes, known again within half a second of a change."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from typing import Literal, cast

import msgspec
import sqlalchemy as sa

from openmaas.database import keys as table
from openmaas.errors import InvalidRequest, NotFound

Scope = Literal["inference", "admin"]
SCOPES: tuple[Scope, ...] = ("inference", "admin")
FRESH_SECONDS = 0.5
REMEMBERED = 10_000  # keys, known and unknown, so that guessing cannot fill the memory


class Caller(msgspec.Struct, frozen=True):
    """Who a request is from."""

    key: str  # the key's id, never the secret
    scope: Scope

    def may(self, scope: Scope) -> bool:
        return self.scope in ("admin", scope)


class KeyRecord(msgspec.Struct, frozen=True):
    id: str
    name: str
    scope: Scope
    created: int
    revoked: int | None


def digest(secret: str) -> str:
    """What is stored of a key. Keys hold 256 random bits: a plain hash is not guessable."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """The table of keys.

    Args:
        admin_key: a secret that is an admin beside those of the table (``OPENMAAS_ADMIN_KEY``).
    """

    def __init__(self, database: sa.Engine, admin_key: str | None = None) -> None:
        self._database = database
        self._admin = digest(admin_key) if admin_key else None
        self._remembered: dict[str, tuple[float, Caller | None]] = {}
        self._looking: dict[str, asyncio.Task[Caller | None]] = {}

    def create(self, name: str, scope: str) -> tuple[KeyRecord, str]:
        """A new key and its secret, which cannot be had again.

        Raises:
            InvalidRequest: no such scope.
        """
        if scope not in SCOPES:
            raise InvalidRequest(f"no scope {scope!r}; there are: {', '.join(SCOPES)}")
        secret = "om-" + secrets.token_urlsafe(32)
        record = KeyRecord(
            id="key_" + secrets.token_hex(6),
            name=name,
            scope=scope,
            created=int(time.time()),
            revoked=None,
        )
        with self._database.begin() as connection:
            row = msgspec.structs.asdict(record) | {"hash": digest(secret)}
            connection.execute(table.insert().values(**row))
        return record, secret

    def list(self) -> list[KeyRecord]:
        columns = [table.c[name] for name in KeyRecord.__struct_fields__]
        with self._database.connect() as connection:
            rows = connection.execute(sa.select(*columns).order_by(table.c.created, table.c.id))
            return [KeyRecord(*row) for row in rows]

    def revoke(self, id: str) -> None:
        """
        Raises:
            NotFound: no such key.
        """
        with self._database.begin() as connection:
            done = connection.execute(
                table.update().where(table.c.id == id).values(revoked=int(time.time()))
            )
            if not done.rowcount:
                raise NotFound(f"no key {id!r}; see `openmaas keys list`")

    async def caller(self, secret: str) -> Caller | None:
        """Who holds a secret; None for an unknown or revoked one."""
        hashed = digest(secret)
        known = self._remembered.get(hashed)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        if self._admin is not None and secrets.compare_digest(hashed, self._admin):
            return self._remember(hashed, Caller(key="environment", scope="admin"))
        # Many requests of one key arrive together: one look-up serves them all.
        task = self._looking.get(hashed)
        if task is None:
            task = asyncio.create_task(self._look_up(hashed))
            self._looking[hashed] = task
            task.add_done_callback(lambda _: self._looking.pop(hashed, None))
        return await asyncio.shield(task)

    async def _look_up(self, hashed: str) -> Caller | None:
        return self._remember(hashed, await asyncio.to_thread(self._find, hashed))

    def _remember(self, hashed: str, caller: Caller | None) -> Caller | None:
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        self._remembered[hashed] = (time.monotonic() + FRESH_SECONDS, caller)
        return caller

    def _find(self, hashed: str) -> Caller | None:
        query = sa.select(table.c.id, table.c.scope).where(
            table.c.hash == hashed, table.c.revoked.is_(None)
        )
        with self._database.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else Caller(key=row.id, scope=cast(Scope, row.scope))
