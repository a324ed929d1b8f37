"""Keys of tenants: made once, wrapped, replaced, destroyed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from openmaas.database import FILE as DATABASE
from openmaas.database import open_database
from openmaas.encryption.keyring import Key
from openmaas.encryption.master import FILE, MasterFile
from openmaas.errors import Erased, SealBroken, WrongMaster
from openmaas.schema import data_keys
from tests.encryption.keys import ME, keyring, ring


def test_a_key_is_made_once_and_found_again(tmp_path: Path, database_url: str | None) -> None:
    keys = keyring(tmp_path, database_url)
    own, of_data = keys.key("acme"), keys.key("acme", "ds_1")
    assert len(own.secret) == 32
    assert own.secret != of_data.secret
    again = keyring(tmp_path, database_url)
    assert again.key("acme") == own
    assert again.by_id(of_data.id) == of_data
    assert again.key("umbrella") != own


def test_a_key_that_many_ask_for_first_is_one(tmp_path: Path, database_url: str | None) -> None:
    open_database(tmp_path, database_url).close()
    rings = [keyring(tmp_path, database_url) for _ in range(4)]
    found: list[Key] = []
    start = threading.Barrier(8)

    def ask(at: int) -> None:
        start.wait()
        found.append(rings[at % 4].key("acme", "ds_1"))

    threads = [threading.Thread(target=ask, args=[at]) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_no_secret_is_in_the_database_or_in_words(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    key = keys.key("acme", "ds_1")
    keys.scrub()
    raw = (tmp_path / DATABASE).read_bytes()
    assert key.id.encode() in raw  # what is there is found
    assert key.secret not in raw
    assert repr(key.secret)[2:-1] not in repr(key)


@pytest.mark.parametrize("column", ["wrapped", "tenant", "object", "id"])
def test_a_row_that_was_changed_is_refused(tmp_path: Path, column: str) -> None:
    keys = keyring(tmp_path)
    key = keys.key("acme", "ds_1")
    other = keys.key("umbrella", "ds_2")
    keys.forget()
    with keys._database.write() as connection:
        rows = {row.id: row for row in connection.execute(sa.select(data_keys))}
        if column == "id":  # another's row under its name
            connection.execute(data_keys.delete().where(data_keys.c.id == other.id))
            which = data_keys.update().where(data_keys.c.id == key.id)
            connection.execute(which.values(id=other.id))
            key = other
        else:
            wrapped = bytearray(rows[key.id].wrapped)
            wrapped[-1] ^= 1
            value = bytes(wrapped) if column == "wrapped" else "changed"
            which = data_keys.update().where(data_keys.c.id == key.id)
            connection.execute(which.values({column: value}))
    with pytest.raises(SealBroken):
        keyring(tmp_path).by_id(key.id)


def test_a_tenants_row_that_was_changed_is_refused(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    key = keys.key("acme")
    with keys._database.write() as connection:
        connection.execute(data_keys.update().values(tenant="umbrella"))
    with pytest.raises(WrongMaster, match=key.id):
        keyring(tmp_path).by_id(key.id)


def test_a_new_key_reads_what_the_old_one_sealed(tmp_path: Path, database_url: str | None) -> None:
    keys = keyring(tmp_path, database_url)
    old, thing = keys.key("acme"), keys.key("acme", "ds_1")
    new = keys.rotate("acme", ME)
    fresh = keyring(tmp_path, database_url)
    assert fresh.key("acme") == keys.key("acme") == new != old
    assert fresh.by_id(old.id) == old
    assert fresh.key("acme", "ds_1") == thing  # wrapped anew, the same
    assert fresh.to_rewrite() == {}


def test_old_keys_go_once_nothing_is_sealed_with_them(
    tmp_path: Path, database_url: str | None
) -> None:
    keys = keyring(tmp_path, database_url)
    old = {keys.key("acme").id, keys.key("acme", "ds_1").id}
    kept = keys.key("umbrella")
    keys.rotate("acme", ME, rewrite=True, things=["ds_1"])
    assert keys.to_rewrite() == {"acme": old}
    thing = keys.key("acme", "ds_1")
    assert thing.id not in old
    keys.retire("acme", old, before=0)
    assert keys.to_rewrite() == {"acme": old}  # somebody may be about to seal with them
    keys.retire("acme", old, before=time.time())
    fresh = keyring(tmp_path, database_url)
    for id in old:
        with pytest.raises(Erased):
            fresh.by_id(id)
    assert fresh.by_id(thing.id) == thing
    assert fresh.by_id(kept.id) == kept
    assert fresh.to_rewrite() == {}


def test_a_destroyed_key_is_nowhere(tmp_path: Path, database_url: str | None) -> None:
    keys, other = keyring(tmp_path, database_url), keyring(tmp_path, database_url)
    own, thing, kept = keys.key("acme"), keys.key("acme", "ds_1"), keys.key("acme", "ds_2")
    assert other.by_id(thing.id) == thing
    with keys._database.read() as connection:
        wrapped = {row.id: bytes(row.wrapped) for row in connection.execute(sa.select(data_keys))}
    with keys._database.write() as connection:
        assert keys.destroy(connection, "acme", "ds_1") == 1
    assert keys.scrub()
    with pytest.raises(Erased):
        keys.by_id(thing.id)
    assert keys.by_id(kept.id) == kept
    if database_url is None:
        raw = b"".join(path.read_bytes() for path in tmp_path.glob(f"{DATABASE}*"))
        assert wrapped[kept.id] in raw  # what is there is found
        assert wrapped[thing.id] not in raw
    with keys._database.write() as connection:
        assert keys.destroy(connection, "acme") == 2
    keys.scrub()
    with pytest.raises(Erased):
        keys.by_id(own.id)


def test_another_process_lets_go_of_a_destroyed_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, other = keyring(tmp_path), keyring(tmp_path)
    key = keys.key("acme")
    assert other.by_id(key.id) == other.key("acme") == key
    with keys._database.write() as connection:
        keys.destroy(connection, "acme")
    monkeypatch.setattr("openmaas.encryption.keyring.TRUST_SECONDS", 0.0)
    with pytest.raises(Erased):
        other.by_id(key.id)
    assert other.key("acme") != key


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openmaas.encryption.keyring.REMEMBERED", 3)
    keys = keyring(tmp_path)
    made = [keys.key("acme", f"ds_{at}") for at in range(9)]
    assert len(keys._keys) <= 3
    assert len(keys._current) <= 3
    assert [keys.key("acme", f"ds_{at}") for at in range(9)] == made


# --- the master key -------------------------------------------------------------------------------


def test_the_master_key_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    keys.check()
    path = tmp_path / FILE
    first = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    keyring(tmp_path).key("acme")
    assert path.read_bytes() == first
    assert not list(tmp_path.glob(".*"))


def test_a_lost_master_key_is_not_replaced_by_another(tmp_path: Path) -> None:
    keyring(tmp_path).key("acme")
    (tmp_path / FILE).unlink()
    with pytest.raises(WrongMaster, match=r"put the file back from a backup"):
        keyring(tmp_path).check()
    with pytest.raises(WrongMaster):
        keyring(tmp_path).key("umbrella")
    assert not (tmp_path / FILE).exists()


def test_a_wrong_master_key_is_told_at_the_start(tmp_path: Path) -> None:
    keyring(tmp_path).key("acme")
    wrapped_by = MasterFile(tmp_path / FILE).current()
    assert wrapped_by is not None
    (tmp_path / FILE).unlink()
    MasterFile(tmp_path / FILE).begin(fresh=True)
    with pytest.raises(WrongMaster, match=wrapped_by):
        keyring(tmp_path).check()


def test_a_new_master_key_wraps_all_and_a_running_server_follows(
    tmp_path: Path, database_url: str | None
) -> None:
    running = keyring(tmp_path, database_url)
    old = [running.key("acme"), running.key("umbrella"), running.key("acme", "ds_1")]
    before = (tmp_path / FILE).read_bytes()
    operator = keyring(tmp_path, database_url)
    assert operator.rotate_master(ME) == 2
    lines = (tmp_path / FILE).read_bytes().splitlines()
    assert lines[1:] == before.splitlines()
    running.forget()
    assert [running.key("acme"), running.key("umbrella"), running.key("acme", "ds_1")] == old
    third = running.key("third")
    with running._database.read() as connection:
        wrappings = connection.execute(
            sa.select(data_keys.c.wrapping).where(data_keys.c.object == "").distinct()
        ).scalars()
        assert set(wrappings) == {MasterFile(tmp_path / FILE).current()}
    assert operator.rotate_master(ME) == 3
    lines_now = (tmp_path / FILE).read_bytes().splitlines()
    assert lines_now[1:] == lines[:1]  # the oldest is needed no more
    assert ring(running._database, tmp_path).by_id(third.id) == third
