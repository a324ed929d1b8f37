"""What goes wrong is told in one line that says what to do, never in a traceback."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest


def run(data: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "openmaas.cli", *arguments],
        env=os.environ | {"OPENMAAS_DATA_DIR": str(data)} | env,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_an_unknown_setting_is_refused_by_name(tmp_path: Path) -> None:
    assert "hots" in refused(run(tmp_path, "serve", OPENMAAS_HOTS="0.0.0.0"))
    assert "queu" in refused(run(tmp_path, "status", OPENMAAS_LIMITS_QUEU="3"))
    (tmp_path / "openmaas.toml").write_text("prot = 1\n")
    assert "prot" in refused(run(tmp_path, "serve", "--config", str(tmp_path / "openmaas.toml")))


def test_a_setting_out_of_range_is_refused_by_name(tmp_path: Path) -> None:
    assert "port" in refused(run(tmp_path, "serve", "--port", "70000"))
    assert "queue" in refused(run(tmp_path, "serve", OPENMAAS_LIMITS_QUEUE="0"))


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere.toml" in refused(run(tmp_path, "serve", "--config", "nowhere.toml"))


def test_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--data-dir" in refused(run(tmp_path / "file" / "data", "models", "list"))


def test_a_data_folder_with_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "openmaas.db").write_bytes(b"certainly not a database" * 100)
    assert "--data-dir" in refused(run(tmp_path, "keys", "list"))


def test_a_data_folder_of_a_newer_version(tmp_path: Path) -> None:
    assert run(tmp_path, "keys", "list").returncode == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "openmaas.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    assert "newer" in refused(run(tmp_path, "keys", "list"))


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("models", "show", "gpt-9"), "models list"),
        (("models", "remove", "gpt-9"), "models list"),
        (("models", "pull", "gpt-9"), "smollm2-135m"),
        (("models", "push", "mine", "nowhere.onnx"), "nowhere.onnx"),
        (("deploy", "gpt-9"), "models list"),
        (("undeploy", "gpt-9"), "status"),
        (("keys", "revoke", "key_9"), "keys list"),
        (("keys", "create", "me", "--scope", "root"), "admin"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_what_is_not_there(tmp_path: Path, command: tuple[str, ...], hint: str) -> None:
    assert hint in refused(run(tmp_path, *command))


@pytest.mark.parametrize("command", [("chat", "m", "Hello"), ("predict", "m", "FILE")])
def test_no_server(tmp_path: Path, command: tuple[str, ...]) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text("[[1, 2]]")
    command = tuple(str(rows) if part == "FILE" else part for part in command)
    # Port 9 (discard) is privileged and unused: nothing listens there.
    assert "openmaas serve" in refused(run(tmp_path, *command, OPENMAAS_URL="http://127.0.0.1:9"))


@pytest.mark.parametrize("text", ["", "a,b\n1,x\n", '{"instances": [1,', "\x00\xff"])
def test_rows_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    rows = tmp_path / "rows"
    rows.write_text(text, encoding="latin-1")
    assert str(rows) in refused(run(tmp_path, "predict", "digits", str(rows)))


def test_pickled_rows_are_not_loaded(tmp_path: Path) -> None:
    import numpy as np

    rows = tmp_path / "rows.npy"
    np.save(rows, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "rows.npy" in refused(run(tmp_path, "predict", "digits", str(rows)))


def test_usage_errors_exit_with_2(tmp_path: Path) -> None:
    for command in (
        ("models", "pull"),
        ("models", "push", "../escape", "x.onnx"),
        ("chat", "m"),
        ("deploy",),
    ):
        done = run(tmp_path, *command)
        assert done.returncode == 2, f"{command}: {done.stderr}"
        assert "Traceback" not in done.stderr
