"""Where sealed things lie unsealed: in memory, for this user alone, gone afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from openmaas.config import Settings
from openmaas.encryption.folders import seal_folder, unseal_folder
from openmaas.encryption.memory import SHARED, Memory, in_memory, open_memory
from openmaas.encryption.mirror import Mirror
from openmaas.encryption.sealed import sealed_by
from openmaas.errors import ConfigurationError, SealBroken, StorageFull
from tests.encryption.keys import ME, keyring

KEPT = ("network", "checkpoints", "result")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Memory]:
    """A tmpfs of 20 MiB."""
    place = tmp_path / "small"
    place.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs takes root")
    yield Memory(place)
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_view_is_this_users_alone_and_gone_afterwards(tmp_path: Path) -> None:
    memory = open_memory(Settings(data_dir=str(tmp_path)))
    assert memory.folder.parent == SHARED
    assert memory.folder != open_memory(Settings(data_dir=str(tmp_path / "other"))).folder
    with memory.view("samples") as view:
        (view / "x").write_bytes(b"plain")
        for folder in (memory.folder, view.parent, view):
            assert folder.stat().st_mode & 0o777 == 0o700
        assert in_memory(view)
    assert not view.exists()
    left = memory.make("jobs", "job_1")
    memory.make("samples", "left")
    memory.sweep("jobs")
    assert left.is_dir()
    assert not memory.path("samples").exists()
    memory.leave()
    assert left.is_dir()
    (left / "x").touch()
    memory.sweep()
    assert not list(memory.folder.iterdir())
    memory.make("samples")
    memory.leave()
    assert not memory.folder.exists()


def test_a_disk_is_no_memory(tmp_path: Path) -> None:
    if in_memory(tmp_path):
        pytest.skip("this machine has its temporary files in memory")
    with pytest.raises(ConfigurationError, match="memory_dir"):
        Memory(tmp_path / "x").make("jobs")
    with Memory(tmp_path / "x", any_disk=True).view("jobs") as view:  # the operator says so
        assert view.is_dir()


def test_a_folder_of_others_is_not_used(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "x", any_disk=True)
    (tmp_path / "x").mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match="this user's alone"):
        memory.make("jobs")
    (tmp_path / "x").rmdir()
    (tmp_path / "there").mkdir(mode=0o700)
    (tmp_path / "x").symlink_to(tmp_path / "there")
    with pytest.raises(ConfigurationError, match="this user's alone"):
        memory.make("jobs")
    memory.sweep()
    assert (tmp_path / "there").is_dir()


def test_too_little_memory_is_told_with_numbers(small: Memory, tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    source = tmp_path / "plain"
    source.mkdir()
    (source / "large").write_bytes(bytes(30 << 20))
    seal_folder(source, tmp_path / "sealed", keys.key("acme"), "sealed")
    with pytest.raises(StorageFull, match=r"bytes are needed in .*[0-9,]+ of 20,971,520 are free"):
        unseal_folder(tmp_path / "sealed", keys, "sealed", small.path("out"), small)
    with pytest.raises(StorageFull, match="are free"), small.errors():
        small.make("x").joinpath("full").write_bytes(bytes(30 << 20))


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    keys, memory = keyring(tmp_path), Memory(tmp_path / "memory", any_disk=True)
    source = tmp_path / "plain"
    source.mkdir()
    content = {"a": b"", "b": os.urandom(100), "c": os.urandom(3 << 20)}
    for name, data in content.items():
        (source / name).write_bytes(data)
    seal_folder(source, tmp_path / "sealed", keys.key("acme"), "datasets/ds_1")
    view = memory.make("x") / "view"
    unseal_folder(tmp_path / "sealed", keys, "datasets/ds_1", view, memory)
    assert {path.name: path.read_bytes() for path in view.iterdir()} == content
    with pytest.raises(SealBroken):  # another data set's files
        unseal_folder(tmp_path / "sealed", keys, "datasets/ds_2", memory.path("y"), memory)


# --- what is kept of a folder that a child writes -------------------------------------------------


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    keys, memory = keyring(tmp_path), Memory(tmp_path / "memory", any_disk=True)
    view, target = memory.make("jobs", "job_1"), tmp_path / "jobs" / "job_1"
    target.mkdir(parents=True)
    return Mirror(view, target, "jobs/job_1", keys, "acme", memory, KEPT)


def kept(mirror: Mirror) -> set[str]:
    found = (one for one in mirror.target.rglob("*") if one.is_file())
    return {one.relative_to(mirror.target).as_posix() for one in found}


def test_what_is_kept_comes_back(mirror: Mirror) -> None:
    (mirror.view / "checkpoints").mkdir()
    (mirror.view / "checkpoints" / "1").write_bytes(b"one" * 1000)
    (mirror.view / "checkpoints" / "2.new").write_bytes(b"half")  # is still being written
    (mirror.view / "network").write_bytes(b"net")
    (mirror.view / "log").write_bytes(b"not kept")
    mirror.keep()
    assert kept(mirror) == {"checkpoints/1", "network"}
    assert all(sealed_by(mirror.target / one) for one in kept(mirror))
    before = (mirror.target / "network").stat().st_ino
    (mirror.view / "checkpoints" / "1").unlink()
    (mirror.view / "checkpoints" / "2").write_bytes(b"two")
    mirror.keep()
    assert kept(mirror) == {"checkpoints/2", "network"}
    assert (mirror.target / "network").stat().st_ino == before  # what did not change is left
    changed = (mirror.view / "checkpoints" / "2").stat().st_mtime_ns
    mirror._memory.remove("jobs", "job_1")
    mirror._memory.make("jobs", "job_1")
    mirror.restore()
    assert (mirror.view / "checkpoints" / "2").read_bytes() == b"two"
    assert (mirror.view / "checkpoints" / "2").stat().st_mtime_ns == changed
    assert not (mirror.view / "log").exists()


def test_links_of_a_child_lead_nowhere(mirror: Mirror, tmp_path: Path) -> None:
    """A child that is believed nothing names what it may not read itself."""
    secret = tmp_path / "another's"
    secret.mkdir()
    (secret / "x").write_bytes(b"secret")
    (mirror.view / "checkpoints").symlink_to(secret)
    (mirror.view / "network").symlink_to(secret / "x")
    os.link(secret / "x", mirror.view / "result")
    mirror.keep()
    assert kept(mirror) == set()
    (mirror.view / "checkpoints").unlink()
    (mirror.view / "checkpoints").mkdir()
    (mirror.view / "checkpoints" / "inner").symlink_to(secret)
    os.mkfifo(mirror.view / "checkpoints" / "pipe")
    (mirror.view / "checkpoints" / "1").write_bytes(b"its own")
    mirror.keep()
    assert kept(mirror) == {"checkpoints/1"}


def test_a_folder_of_an_older_release_goes_on(mirror: Mirror) -> None:
    (mirror.target / "checkpoints").mkdir()
    (mirror.target / "checkpoints" / "1").write_bytes(b"plain")
    mirror.restore()
    assert (mirror.view / "checkpoints" / "1").read_bytes() == b"plain"


def test_a_new_key_seals_what_comes_after(mirror: Mirror) -> None:
    (mirror.view / "network").write_bytes(b"net")
    mirror.keep()
    old = sealed_by(mirror.target / "network")
    key = mirror._keyring.rotate("acme", ME)
    mirror.keep()
    assert sealed_by(mirror.target / "network") == old
    (mirror.view / "network").write_bytes(b"another")
    mirror.keep()
    assert sealed_by(mirror.target / "network") == key.id
