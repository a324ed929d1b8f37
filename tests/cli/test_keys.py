"""Keys are shown once and kept as hashes."""

from __future__ import annotations

from pathlib import Path

from tests.cli.test_errors import run
from tests.processes import cli


def test_a_key_is_printed_once_and_never_stored(tmp_path: Path) -> None:
    secret = cli(tmp_path, "keys", "create", "notebook").strip()
    assert secret.startswith("om-")
    assert secret not in cli(tmp_path, "keys", "list")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_standard_output_is_the_secret_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "keys", "create", "ci", "--scope", "admin")
    assert len(done.stdout.split()) == 1
    assert "admin" in done.stderr


def test_keys_are_listed_with_scope_and_revocation(tmp_path: Path) -> None:
    cli(tmp_path, "keys", "create", "notebook")
    cli(tmp_path, "keys", "create", "ops", "--scope", "admin")
    lines = cli(tmp_path, "keys", "list").splitlines()
    (ops,) = [line for line in lines if " ops " in line]
    assert "admin" in ops
    cli(tmp_path, "keys", "revoke", ops.split()[0])
    (after,) = [line for line in cli(tmp_path, "keys", "list").splitlines() if " ops " in line]
    assert len(after.split()) > len(ops.split())  # it has a second date now


def test_the_data_folder_is_private(tmp_path: Path) -> None:
    data = tmp_path / "data"
    cli(data, "keys", "create", "notebook")
    assert data.stat().st_mode & 0o077 == 0
    assert (data / "openmaas.db").stat().st_mode & 0o077 == 0
