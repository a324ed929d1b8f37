"""Keys: shown once, stored as hashes, rotated, revoked within a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openmaas.audit import By, acts
from openmaas.database import Database, open_database
from openmaas.errors import InvalidRequest, NotFound
from openmaas.tenancy.access import Access
from openmaas.tenancy.keys import Keys, NewKey
from openmaas.tenancy.tenants import Tenants

ME = By("a test")


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    found = open_database(tmp_path, database_url)
    yield found
    found.close()


async def test_a_key_is_known_and_its_secret_is_not_stored(database: Database) -> None:
    record, secret = Keys(database).create(NewKey(name="laptop"), ME)
    caller = await Access(database).caller(secret)
    assert caller is not None
    assert (caller.key, caller.tenant, caller.project) == (record.id, "default", "default")
    assert caller.may("inference")
    assert not caller.may("admin")
    with database.read() as connection:
        stored = str(connection.exec_driver_sql("SELECT * FROM keys").all())
        told = str(connection.exec_driver_sql("SELECT * FROM audit").all())
    assert secret not in stored + told


async def test_almost_a_key_is_none(database: Database) -> None:
    _, secret = Keys(database).create(NewKey(name="laptop", scopes=("admin",)), ME)
    access = Access(database)
    for wrong in (secret[:-1], secret + "x", secret.upper(), "", "om-"):
        assert await access.caller(wrong) is None


async def test_revoked_within_a_second(database: Database) -> None:
    """T6, at the look-up itself."""
    keys, access = Keys(database), Access(database)
    record, secret = keys.create(NewKey(name="laptop"), ME)
    assert await access.caller(secret) is not None
    keys.revoke(record.id, ME)
    async with asyncio.timeout(1):
        while await access.caller(secret) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_closed_tenant_or_project_closes_its_keys(database: Database) -> None:
    tenants, keys = Tenants(database), Keys(database)
    tenants.create("acme", ME)
    tenants.create_project("acme", "shop", ME)
    secrets = [
        keys.create(NewKey(name="x", tenant="acme", project=project), ME)[1]
        for project in ("shop", "default")
    ]
    tenants.close_project("acme", "shop", ME)
    access = Access(database)
    assert [await access.caller(secret) is None for secret in secrets] == [True, False]
    tenants.close("acme", ME)
    assert await Access(database).caller(secrets[1]) is None
    with pytest.raises(NotFound):
        keys.create(NewKey(name="x", tenant="acme", project="shop"), ME)


async def test_rotation_overlaps(database: Database) -> None:
    keys = Keys(database)
    old, first = keys.create(NewKey(name="laptop", scopes=("inference", "manage")), ME)
    new, second = keys.rotate(old.id, ME, overlap=3600)
    access = Access(database)
    assert await access.caller(first) is not None
    assert await access.caller(second) is not None
    assert new.scopes == old.scopes
    assert abs((keys.get(old.id).expires or 0) - time.time() - 3600) < 10
    keys.rotate(new.id, ME, overlap=0)
    assert await Access(database).caller(second) is None
    assert [act.act for act in acts(database)][:3] == ["key.rotate", "key.rotate", "key.create"]


async def test_many_at_once_look_once(database: Database) -> None:
    _, secret = Keys(database).create(NewKey(name="laptop"), ME)
    access = Access(database)
    callers = await asyncio.gather(*(access.caller(secret) for _ in range(100)))
    assert callers[0] is not None
    assert all(caller is callers[0] for caller in callers)


async def test_the_admin_key_of_the_environment(database: Database) -> None:
    caller = await Access(database, "om-from-the-environment").caller("om-from-the-environment")
    assert caller is not None
    assert caller.may("admin")
    assert Keys(database).list() == []


def test_mistakes(database: Database) -> None:
    keys = Keys(database)
    with pytest.raises(InvalidRequest, match="inference, train, manage, admin"):
        keys.create(NewKey(name="x", scopes=("root",)), ME)
    with pytest.raises(NotFound):
        keys.revoke("key_0", ME)
    with pytest.raises(NotFound):
        keys.create(NewKey(name="x", tenant="nobody"), ME)
    with pytest.raises(InvalidRequest):
        keys.create(NewKey(name="x", expires=1), ME)
