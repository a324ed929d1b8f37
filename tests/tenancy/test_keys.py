"""Keys: shown once, stored as hashes, revoked within a second."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from openmaas.database import open_database
from openmaas.errors import InvalidRequest, NotFound
from openmaas.tenancy.keys import Keys


async def test_a_key_is_known_and_its_secret_is_not_stored(tmp_path: Path) -> None:
    keys = Keys(open_database(tmp_path))
    record, secret = keys.create("laptop", "inference")
    caller = await keys.caller(secret)
    assert caller is not None
    assert caller.key == record.id
    assert caller.may("inference")
    assert not caller.may("admin")
    assert secret.encode() not in (tmp_path / "openmaas.db").read_bytes()


async def test_almost_a_key_is_none(tmp_path: Path) -> None:
    keys = Keys(open_database(tmp_path))
    _, secret = keys.create("laptop", "admin")
    for wrong in (secret[:-1], secret + "x", secret.upper(), "", "om-"):
        assert await keys.caller(wrong) is None


async def test_revoked_within_a_second(tmp_path: Path) -> None:
    keys = Keys(open_database(tmp_path))
    record, secret = keys.create("laptop", "inference")
    assert await keys.caller(secret) is not None
    keys.revoke(record.id)
    async with asyncio.timeout(1):
        while await keys.caller(secret) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_many_at_once_look_once(tmp_path: Path) -> None:
    keys = Keys(open_database(tmp_path))
    _, secret = keys.create("laptop", "inference")
    callers = await asyncio.gather(*(keys.caller(secret) for _ in range(100)))
    assert len(set(callers)) == 1
    assert callers[0] is not None


async def test_the_admin_key_of_the_environment(tmp_path: Path) -> None:
    keys = Keys(open_database(tmp_path), "om-from-the-environment")
    caller = await keys.caller("om-from-the-environment")
    assert caller is not None
    assert caller.may("admin")
    assert keys.list() == []


def test_mistakes(tmp_path: Path) -> None:
    keys = Keys(open_database(tmp_path))
    with pytest.raises(InvalidRequest, match="inference, admin"):
        keys.create("x", "root")
    with pytest.raises(NotFound):
        keys.revoke("key_0")
