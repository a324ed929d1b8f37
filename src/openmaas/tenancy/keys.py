"""API keys: shown once, kept as hashes, made, rotated and revoked."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Literal, cast

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database
from openmaas.errors import InvalidRequest, NotFound
from openmaas.redaction.policy import RedactionPolicy
from openmaas.schema import keys as table
from openmaas.schema import projects
from openmaas.tenancy import privacy as policies
from openmaas.tenancy.quota import Quota, quota, stored
from openmaas.tenancy.tenants import DEFAULT

Scope = Literal["inference", "train", "manage", "admin"]
SCOPES: tuple[Scope, ...] = ("inference", "train", "manage", "admin")
MODELS = 1000  # that a key may be restricted to
LONGEST_OVERLAP = 30 * 86_400  # seconds that a rotated key stays good


class Key(msgspec.Struct, frozen=True):
    """A key as it may be shown: without its secret.

    Scopes: ``inference`` calls models, ``train`` makes new ones, ``manage`` administers the
    tenant's own projects, keys and models, ``admin`` administers all tenants and the server.
    """

    id: str
    tenant: str
    project: str
    name: str
    scopes: tuple[Scope, ...]
    models: tuple[str, ...] | None  # None: all that the tenant sees
    quota: Quota
    created: int
    expires: int | None
    revoked: int | None
    redaction: RedactionPolicy | None = None  # that holds instead of the tenant's


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is made from."""

    name: str
    tenant: str = DEFAULT
    project: str = DEFAULT
    scopes: tuple[str, ...] = ("inference",)
    models: tuple[str, ...] | None = None
    quota: Quota = Quota()
    expires: int | None = None  # Unix seconds


def digest(secret: str) -> str:
    """What is stored of a key. Keys hold 256 random bits: a plain hash is not guessable."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """All methods are short transactions; call them from a thread in the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, new: NewKey, by: By) -> tuple[Key, str]:
        """A key and its secret, which cannot be had again.

        Raises:
            InvalidRequest: no such scope, a name too long, a time that is over.
            NotFound: no such tenant or project, or a closed one.
        """
        record = Key(
            id=_id(),
            tenant=new.tenant,
            project=new.project,
            name=new.name,
            scopes=_scopes(new.scopes),
            models=_models(new.models),
            quota=new.quota,
            created=int(time.time()),
            expires=new.expires,
            revoked=None,
        )
        if not 1 <= len(new.name) <= 200:
            raise InvalidRequest("a key's name has from 1 to 200 characters", param="name")
        if new.expires is not None and not record.created < new.expires < 2**40:
            raise InvalidRequest("expires is a time that is over, or too far", param="expires")
        secret = _secret()
        with self._database.write() as connection:
            open_ = sa.select(projects.c.id).where(
                projects.c.tenant == new.tenant,
                projects.c.id == new.project,
                projects.c.closed.is_(None),
            )
            if connection.execute(open_).first() is None:
                raise NotFound(f"no project {new.project[:64]!r} of tenant {new.tenant[:64]!r}")
            _insert(connection, record, secret)
            by.note(connection, "key.create", record.id, tenant=new.tenant, **_told(record))
        return record, secret

    def list(self, tenant: str | None = None) -> list[Key]:
        query = sa.select(table).order_by(table.c.created, table.c.id)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        with self._database.read() as connection:
            return [_key(row) for row in connection.execute(query)]

    def get(self, id: str, tenant: str | None = None) -> Key:
        """
        Args:
            tenant: whose key it must be; another's is as if there were none.

        Raises:
            NotFound
        """
        with self._database.read() as connection:
            return _get(connection, id, tenant)

    def redact(
        self, id: str, by: By, redaction: RedactionPolicy | None, tenant: str | None = None
    ) -> Key:
        """Replaces what a key has instead of its tenant's policy; None: nothing.

        Raises:
            NotFound
        """
        kept = None if redaction is None else policies.stored(redaction)
        with self._database.write() as connection:
            old = _get(connection, id, tenant)
            connection.execute(table.update().where(table.c.id == id).values(redaction=kept))
            action = None if redaction is None else redaction.action
            by.note(connection, "key.redact", id, tenant=old.tenant, action=action)
            return _get(connection, id, tenant)

    def change(self, id: str, by: By, *, quota: Quota, tenant: str | None = None) -> Key:
        """Replaces a key's quota.

        Raises:
            NotFound
        """
        with self._database.write() as connection:
            old = _get(connection, id, tenant)
            connection.execute(table.update().where(table.c.id == id).values(quota=stored(quota)))
            by.note(connection, "key.change", id, tenant=old.tenant, quota=stored(quota))
            return _get(connection, id, tenant)

    def rotate(
        self, id: str, by: By, *, overlap: int = 86_400, tenant: str | None = None
    ) -> tuple[Key, str]:
        """A new key that may do what the old one may; the old one is good for ``overlap`` seconds
        more.

        Raises:
            NotFound: no such key.
            InvalidRequest: it is no good any more, or the overlap is too long.
        """
        if not 0 <= overlap <= LONGEST_OVERLAP:
            raise InvalidRequest(f"overlap is from 0 to {LONGEST_OVERLAP} seconds", param="overlap")
        now = int(time.time())
        secret = _secret()
        with self._database.write() as connection:
            old = _get(connection, id, tenant)
            if old.revoked is not None or (old.expires is not None and old.expires <= now):
                raise InvalidRequest(f"key {id} is no good any more; make a new one")
            until = now + overlap if old.expires is None else min(now + overlap, old.expires)
            connection.execute(table.update().where(table.c.id == id).values(expires=until))
            new = msgspec.structs.replace(old, id=_id(), created=now)
            _insert(connection, new, secret)
            by.note(connection, "key.rotate", id, tenant=old.tenant, new=new.id, until=until)
        return new, secret

    def revoke(self, id: str, by: By, tenant: str | None = None) -> None:
        """Refused within a second, everywhere.

        Raises:
            NotFound
        """
        with self._database.write() as connection:
            old = _get(connection, id, tenant)
            if old.revoked is None:
                now = int(time.time())
                connection.execute(table.update().where(table.c.id == id).values(revoked=now))
                by.note(connection, "key.revoke", id, tenant=old.tenant)


def _id() -> str:
    return "key_" + secrets.token_hex(6)


def _secret() -> str:
    return "om-" + secrets.token_urlsafe(32)


def _insert(connection: sa.Connection, one: Key, secret: str) -> None:
    row = msgspec.structs.asdict(one) | {
        "hash": digest(secret),
        "scopes": list(one.scopes),
        "models": None if one.models is None else list(one.models),
        "quota": stored(one.quota),
        "redaction": None if one.redaction is None else policies.stored(one.redaction),
    }
    connection.execute(table.insert().values(**row))


def _get(connection: sa.Connection, id: str, tenant: str | None) -> Key:
    query = sa.select(table).where(table.c.id == id)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    row = connection.execute(query).first()
    if row is None:
        raise NotFound(f"no key {id[:64]!r}; see `openmaas keys list`")
    return _key(row)


def _key(row: sa.Row[tuple[object, ...]]) -> Key:
    return Key(
        id=row.id,
        tenant=row.tenant,
        project=row.project,
        name=row.name,
        scopes=tuple(row.scopes),
        models=None if row.models is None else tuple(row.models),
        quota=quota(row.quota),
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
        redaction=None if row.redaction is None else policies.redaction(row.redaction),
    )


def _told(one: Key) -> dict[str, object]:
    told = msgspec.to_builtins(one)
    return {
        name: told[name] for name in ("project", "name", "scopes", "models", "quota", "expires")
    }


def _scopes(given: Sequence[str]) -> tuple[Scope, ...]:
    for scope in given:
        if scope not in SCOPES:
            raise InvalidRequest(
                f"no scope {scope[:64]!r}; there are: {', '.join(SCOPES)}", param="scopes"
            )
    if not given:
        raise InvalidRequest("a key has one scope at least", param="scopes")
    return tuple(cast(Scope, scope) for scope in dict.fromkeys(given))


def _models(given: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not 1 <= len(given) <= MODELS or any(not 1 <= len(one) <= 256 for one in given):
        raise InvalidRequest(f"models names from 1 to {MODELS} models", param="models")
    return tuple(dict.fromkeys(given))
