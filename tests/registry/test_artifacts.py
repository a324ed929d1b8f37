"""Artifacts: content-addressed, whole or absent, and never opened when a byte is wrong."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from openmaas.errors import ArtifactRefused, ModelNotFound, StorageFull
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.manifest import Description, Port

SUM = "0" * 64
DESCRIPTION = Description(
    format="openvino-ir", task="predict", architecture="test", inputs=[Port("x", "FP32", [-1, 4])]
)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def staged(store: ArtifactStore, name: str = "a", **files: bytes) -> Path:
    folder = store.root / ".staging" / name
    folder.mkdir()
    for file, content in (files or {"model_bin": b"weights" * 1000, "model_xml": b"graph"}).items():
        (folder / file).write_bytes(content)
    return folder


def add(store: ArtifactStore, folder: Path) -> str:
    return store.add(folder, DESCRIPTION, source="file:x", source_sha256=SUM)[0]


def test_what_is_added_is_opened_and_named_by_its_content(store: ArtifactStore) -> None:
    digest = add(store, staged(store, "a"))
    assert add(store, staged(store, "b")) == digest
    assert add(store, staged(store, "c", other=b"1")) != digest
    folder = store.open(digest)
    assert (folder / "model_xml").read_bytes() == b"graph"
    assert folder.name == digest.removeprefix("sha256:")
    assert store.manifest(digest).inputs == [Port("x", "FP32", [-1, 4])]
    assert store.manifest(digest).size == 7005
    assert len(store.digests()) == 2


def test_a_removed_artifact_is_gone(store: ArtifactStore) -> None:
    digest = add(store, staged(store))
    store.remove(digest)
    store.remove(digest)
    assert store.digests() == []
    with pytest.raises(ModelNotFound):
        store.open(digest)


@pytest.mark.parametrize(
    "digest",
    [
        *("", "sha256:", "../../etc/passwd", "sha256:" + "0" * 63, "sha256:" + "0" * 65),
        *("sha256:" + "A" * 64, "sha256-" + "0" * 64, "sha256:" + "0" * 64 + "\n"),
        "sha256:../" + "0" * 61,
    ],
)
def test_only_digests_become_paths(store: ArtifactStore, digest: str) -> None:
    for use in (store.open, store.manifest, store.remove):
        with pytest.raises(ArtifactRefused, match="hex digits"):
            use(digest)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    other = path.parent.parent / "elsewhere"
    path.rename(other)
    path.symlink_to(other)


def hard_link(path: Path) -> None:
    os.link(path, path.parent.parent / "elsewhere")


def add_file(path: Path) -> None:
    (path.parent / "extra").write_bytes(b"")


@pytest.mark.parametrize("harm", [flip, truncate, link, hard_link, add_file, Path.unlink])
@pytest.mark.parametrize("name", ["model_bin", "manifest.json"])
def test_a_harmed_artifact_is_refused(
    store: ArtifactStore, harm: Callable[[Path], None], name: str
) -> None:
    digest = add(store, staged(store))
    path = store.root / digest.removeprefix("sha256:") / name
    path.chmod(0o644)
    harm(path)
    with pytest.raises((ArtifactRefused, ModelNotFound)):
        store.open(digest)


def test_links_folders_and_odd_names_are_not_stored(store: ArtifactStore) -> None:
    linked = staged(store, "linked", file=b"x")
    (linked / "passwd").symlink_to("/etc/passwd")
    nested = staged(store, "nested", file=b"x")
    (nested / "inner").mkdir()
    named = staged(store, "named", file=b"x")
    (named / ".hidden").write_bytes(b"x")
    shared = staged(store, "shared", file=b"x")
    os.link(shared / "file", store.root / "file")
    for folder in (linked, nested, named, shared):
        with pytest.raises((ArtifactRefused, IsADirectoryError)):
            add(store, folder)
    assert store.digests() == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("nth", range(6))
def test_a_disk_that_fails_leaves_no_half_artifact(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, code: int, call: str, nth: int
) -> None:
    folder = staged(store)
    owner = os if call == "fsync" else Path
    real: Callable[..., object] = getattr(owner, call)
    calls = 0

    def failing(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == nth + 1:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    monkeypatch.setattr(owner, call, failing)
    expected = OSError if code == errno.EIO else StorageFull
    if nth < {"fsync": 5, "rename": 3}[call]:
        with pytest.raises(expected):
            add(store, folder)
    else:
        assert store.open(add(store, folder))
    monkeypatch.undo()
    for stored in store.digests():  # whatever is there, is there whole
        store.open(stored)
    for left in (store.root / ".staging").iterdir():
        os.utime(left, (0, 0))
    store.collect([("", digest) for digest in store.digests()])
    assert list((store.root / ".staging").iterdir()) == []


def test_only_old_artifacts_without_a_version_are_collected(store: ArtifactStore) -> None:
    digest = add(store, staged(store))
    assert store.collect([]) == []  # its import may be about to register it
    os.utime(store.open(digest), (0, 0))
    assert store.collect([("", digest)]) == []
    assert store.collect([]) == [digest]
    assert store.digests() == []


def test_scratch_is_private_and_removed(store: ArtifactStore) -> None:
    with store.scratch() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_bytes(b"x")
    assert not folder.exists()
