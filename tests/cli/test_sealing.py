"""Keys of what is stored, replaced at the command line; a server that cannot read says so."""

from __future__ import annotations

from pathlib import Path

from openmaas.encryption.master import FILE
from tests.cli.test_errors import run
from tests.stores import opened


def test_keys_are_replaced(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with opened(data) as store:
        old = store.keyring.key("default")
    done = run(data, "privacy", "rotate", "default", "--rewrite")
    assert done.returncode == 0, done.stdout + done.stderr
    with opened(data) as store:
        new = store.keyring.key("default")
        assert store.keyring.to_rewrite() == {"default": {old.id}}
    assert new.id in done.stdout
    assert old.id != new.id
    before = (data / FILE).read_text()
    done = run(data, "privacy", "rotate-master")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 keys" in done.stdout
    assert (data / FILE).read_text().endswith(before)
    assert not any(line in done.stdout + done.stderr for line in (data / FILE).read_text().split())
    with opened(data) as store:
        assert store.keyring.key("default") == new


def test_a_tenant_that_is_not_there(tmp_path: Path) -> None:
    done = run(tmp_path / "data", "privacy", "rotate", "nobody")
    assert done.returncode == 1
    assert "no tenant 'nobody'" in done.stderr


def test_a_server_without_its_master_key_says_what_to_do(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with opened(data) as store:
        store.keyring.key("default")
        wrapped_by = store.keyring.master.current()
    (data / FILE).unlink()
    done = run(data, "serve", "--port", "0")
    assert done.returncode == 1
    assert "put the file back from a backup" in " ".join(done.stderr.split())
    with opened(tmp_path / "other") as store:
        store.keyring.key("default")
    (tmp_path / "other" / FILE).rename(data / FILE)
    done = run(data, "serve", "--port", "0")
    assert done.returncode == 1
    assert str(wrapped_by) in done.stderr
    assert "Traceback" not in done.stderr
