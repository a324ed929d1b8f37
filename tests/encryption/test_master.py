"""Master keys of the environment, and those that a program keeps."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import pytest

from openmaas.config import Settings
from openmaas.encryption import command
from openmaas.encryption.command import MasterCommand
from openmaas.encryption.master import Context, MasterFile, MasterSecret, open_master
from openmaas.errors import ConfigurationError, StorageUnavailable, WrongMaster
from tests.encryption.keys import ME, keyring

ONE = Context("k_1", "acme", "")
SERVICE = """
import base64, hashlib, json, os, sys
asked = json.load(sys.stdin)
data, key = base64.b64decode(asked["data"]), asked.get("key", os.environ["SERVICE_KEY"])
pad = hashlib.shake_256(key.encode()).digest(len(data))
answer = bytes(a ^ b for a, b in zip(data, pad))
json.dump({"data": base64.b64encode(answer).decode(), "key": key}, sys.stdout)
with open(os.environ["SERVICE_LOG"], "a") as log:
    log.write(json.dumps({"context": asked["context"], "names": sorted(os.environ)}) + "\\n")
"""


def program(folder: Path, source: str) -> MasterCommand:
    path = folder / "service.py"
    path.write_text(source)
    return MasterCommand(f"{sys.executable} '{path}'")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MasterCommand:
    """A key service that looks at no context."""
    monkeypatch.setenv("SERVICE_KEY", "first")
    monkeypatch.setenv("SERVICE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("OPENMAAS_ADMIN_KEY", "a secret of ours")
    return program(tmp_path, SERVICE)


def text(*keys: bytes) -> str:
    return ",".join(base64.b64encode(key).decode() for key in keys)


def test_a_key_of_the_environment(tmp_path: Path) -> None:
    old, new = os.urandom(32), os.urandom(32)
    first = keyring(tmp_path, master=MasterSecret(text(old)))
    key = first.key("acme")
    both = keyring(tmp_path, master=MasterSecret(text(new, old)))
    assert both.key("acme") == key
    assert both.rotate_master(ME) == 1
    assert keyring(tmp_path, master=MasterSecret(text(new))).key("acme") == key
    with pytest.raises(WrongMaster, match="OPENMAAS_MASTER_KEY"):
        keyring(tmp_path, master=MasterSecret(text(old))).check()
    assert not (tmp_path / "master.key").exists()


@pytest.mark.parametrize("given", ["", "short", base64.b64encode(b"x" * 31).decode(), "é" * 44])
def test_what_is_no_key_is_told_without_showing_it(given: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MasterSecret(given)
    assert not given or given not in caught.value.message


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "master.key").write_text("not a key\n")
    with pytest.raises(ConfigurationError, match=r"master\.key"):
        MasterFile(tmp_path / "master.key").begin(fresh=True)


def test_only_one_place_is_said(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert isinstance(open_master(Settings(data_dir=folder)), MasterFile)
    assert isinstance(open_master(Settings(master_key=text(bytes(32)))), MasterSecret)
    assert isinstance(open_master(Settings(master_key_command="kms wrap")), MasterCommand)
    with pytest.raises(ConfigurationError, match="not several"):
        open_master(Settings(master_key_command="kms", master_key=text(bytes(32))))
    with pytest.raises(ConfigurationError, match="no program"):
        MasterCommand(" ")


def test_a_program_wraps(
    tmp_path: Path, service: MasterCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keyring(tmp_path, master=service)
    key = keys.key("acme")
    assert keyring(tmp_path, master=service).key("acme") == key
    monkeypatch.setenv("SERVICE_KEY", "second")
    assert keyring(tmp_path, master=service).rotate_master(ME) == 1
    assert keyring(tmp_path, master=service).key("acme") == key
    told = (tmp_path / "log").read_text()
    assert '"tenant": "acme"' in told
    assert "SERVICE_KEY" in told  # its own way to the service
    assert "OPENMAAS_ADMIN_KEY" not in told


def test_a_program_that_looks_at_no_context_makes_no_key_another(
    service: MasterCommand,
) -> None:
    wrapping, wrapped = service.wrap(bytes(32), ONE)
    assert service.unwrap(wrapping, wrapped, ONE) == bytes(32)
    with pytest.raises(WrongMaster):
        service.unwrap(wrapping, wrapped, Context("k_1", "umbrella", ""))
    with pytest.raises(WrongMaster):
        service.unwrap("master:0123456789abcdef", wrapped, ONE)


def test_a_program_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SECONDS", 0.5)
    for source in ("import time; time.sleep(600)", "import os, time; os.close(1); time.sleep(600)"):
        with pytest.raises(StorageUnavailable, match="gave no answer"):
            program(tmp_path, source).wrap(bytes(32), ONE)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("print('garbage')", ConfigurationError),
        ("print('{}')", ConfigurationError),
        ("import sys; sys.stdout.buffer.write(b'\\xff' * 100)", ConfigurationError),
        ('print(\'{"data": "?"}\')', ConfigurationError),
        ("print('x' * 10_000_000)", ConfigurationError),
        ("raise SystemExit(3)", StorageUnavailable),
        ("", ConfigurationError),
    ],
)
def test_a_program_that_says_anything(tmp_path: Path, source: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        program(tmp_path, source).unwrap("master:command:", bytes(64), ONE)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot run"):
        MasterCommand(str(tmp_path / "none")).wrap(bytes(32), ONE)
