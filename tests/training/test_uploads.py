"""Uploads: in pieces, that go on where they broke off; counted, checked, swept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.reading import ME, OWNER, TENANT, Desk, desk

from openmaas.audit import acts
from openmaas.encryption.sealed import SealedWriter, open_sealed
from openmaas.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    QuotaExhausted,
    StorageFull,
)
from openmaas.registry.records import Records, Version
from openmaas.tenancy.quota import Quota
from openmaas.tenancy.tenants import Tenants
from openmaas.training import uploads
from openmaas.training.uploads import DAY, WrongOffset


@pytest.fixture
def at(tmp_path: Path, database_url: str | None) -> Iterator[Desk]:
    with desk(tmp_path, database_url) as found:
        yield found


def test_pieces_make_a_whole(at: Desk) -> None:
    content = os.urandom(100_000)
    sha256 = hashlib.sha256(content).hexdigest()
    upload = at.uploads.create("x.csv", len(content), sha256, OWNER, ME)
    assert upload.received == 0
    for start in range(0, len(content), 33_333):
        moved = at.uploads.append(upload.id, TENANT, start, content[start : start + 33_333])
        assert moved.received == at.uploads.get(upload.id, TENANT).received
    assert at.uploads.whole(upload.id, TENANT).sha256 == sha256
    assert at.content(upload.id) == content
    path = at.uploads.folder / upload.id
    assert content[:64] not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.name == upload.id  # the caller's name is no path of ours
    assert [act.act for act in acts(at.database, tenant=TENANT)] == ["upload.create"]


def test_a_piece_begins_where_the_last_one_ended(at: Desk) -> None:
    upload = at.uploads.create("x", 10, None, OWNER, ME)
    at.uploads.append(upload.id, TENANT, 0, b"abc")
    for wrong in (0, 2, 4, 10, 2**60):
        with pytest.raises(WrongOffset) as caught:
            at.uploads.append(upload.id, TENANT, wrong, b"d")
        assert caught.value.offset == 3
    with pytest.raises(PayloadTooLarge, match="10 bytes"):
        at.uploads.append(upload.id, TENANT, 3, b"12345678")
    assert at.uploads.append(upload.id, TENANT, 3, b"").received == 3
    with pytest.raises(InvalidRequest, match="3 of 10"):
        at.uploads.whole(upload.id, TENANT)
    at.uploads.append(upload.id, TENANT, 3, b"defghij")
    assert at.content(upload.id) == b"abcdefghij"


def test_another_sha256_begins_anew(at: Desk) -> None:
    sha256 = hashlib.sha256(b"right").hexdigest()
    upload = at.uploads.create("x", 5, sha256, OWNER, ME)
    with pytest.raises(InvalidRequest, match=sha256):
        at.uploads.append(upload.id, TENANT, 0, b"wrong")
    assert at.uploads.get(upload.id, TENANT).received == 0
    assert at.uploads.append(upload.id, TENANT, 0, b"right").received == 5


@settings(max_examples=30, deadline=None)
@given(
    content=st.binary(min_size=1, max_size=60),
    steps=st.lists(
        st.tuples(st.integers(1, 20), st.sampled_from(["whole", "unsaid", "cut", "lost"])),
        max_size=12,
    ),
)
def test_whatever_breaks_the_offset_is_of_bytes_on_disk(
    content: bytes, steps: list[tuple[int, str]]
) -> None:
    """unsaid: the bytes are there, the row was not written; cut, lost: the other way round."""
    with tempfile.TemporaryDirectory() as folder, desk(Path(folder)) as at:
        id = at.uploads.create("x", len(content), None, OWNER, ME).id
        path = at.uploads.folder / id
        for length, fate in [*steps, (len(content), "whole")]:
            at.uploads = Desk(at.folder, at.database).uploads  # another server
            offset = at.uploads.get(id, TENANT).received
            with open_sealed(path, at.keyring, f"uploads/{id}", size=offset) as file:
                assert file.read() == content[:offset]
            piece = content[offset : offset + length]
            if fate == "whole":
                at.uploads.append(id, TENANT, offset, piece)
            elif fate == "unsaid" and piece:
                key = at.keyring.key(TENANT)
                writer = SealedWriter.append(path, at.keyring, key, f"uploads/{id}", size=offset)
                writer.write(piece)
                writer.close()
            elif fate == "cut":
                os.truncate(path, offset // 2)
            elif fate == "lost":
                path.unlink()
                path.touch()
        offset = at.uploads.get(id, TENANT).received
        at.uploads.append(id, TENANT, offset, content[offset:])
        assert at.content(id) == content


def test_two_at_once_write_one_piece(at: Desk) -> None:
    upload = at.uploads.create("x", 4 << 20, None, OWNER, ME)
    piece, came = bytes(4 << 20), []

    def send() -> None:
        try:
            came.append(at.uploads.append(upload.id, TENANT, 0, piece).received)
        except Conflict as error:
            came.append(type(error))

    threads = [threading.Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert came.count(4 << 20) == 1
    assert set(came) <= {4 << 20, Conflict, WrongOffset}


def test_what_a_tenant_may_store(at: Desk) -> None:
    """Versions, data sets and uploads together; an upload counts whole from its beginning."""
    Tenants(at.database).change("default", ME, quota=Quota(stored_bytes=1000))
    records = Records(at.database)
    version = Version("m", 0, "sha256:0", "predict", "openvino-ir", "x", "", 400, 0, "default")
    records.add(version, ME, most_bytes=1000)
    first = at.uploads.create("x", 600, None, OWNER, ME)
    assert records.stored_bytes("default") == 1000
    with pytest.raises(QuotaExhausted, match="1001"):
        at.uploads.create("x", 1, None, OWNER, ME)
    assert [path.name for path in at.uploads.folder.iterdir()] == [first.id]
    other = Version("n", 0, "sha256:1", "predict", "openvino-ir", "x", "", 1, 0, "default")
    with pytest.raises(QuotaExhausted):
        records.add(other, ME, most_bytes=1000)
    at.uploads.remove(first.id, TENANT, ME)
    at.uploads.create("x", 600, None, OWNER, ME)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST", 2)
    with desk(tmp_path, most_bytes=100) as at:
        with pytest.raises(PayloadTooLarge, match="100 bytes"):
            at.uploads.create("x", 101, None, OWNER, ME)
        at.uploads.create("x", 100, None, OWNER, ME)
        at.uploads.create("x", 100, None, OWNER, ME)
        with pytest.raises(QuotaExhausted, match="2 uploads"):
            at.uploads.create("x", 1, None, OWNER, ME)


def test_only_ones_own(at: Desk) -> None:
    upload = at.uploads.create("x", 1, None, OWNER, ME)
    for call in (at.uploads.get, at.uploads.whole, at.uploads.remove):
        with pytest.raises(NotFound):
            call(upload.id, "other")  # type: ignore[operator]
    with pytest.raises(NotFound):
        at.uploads.append(upload.id, "other", 0, b"x")
    assert at.uploads.list("other") == []


def test_pages(at: Desk) -> None:
    made = {at.uploads.create("x", 1, None, OWNER, ME).id for _ in range(5)}
    first = at.uploads.list(TENANT, limit=3)
    rest = at.uploads.list(TENANT, limit=3, after=first[-1].id)
    assert len(first) == 3
    assert {one.id for one in first + rest} == made


def test_what_nobody_touches_for_a_day_is_removed(at: Desk) -> None:
    left = at.upload(b"a,b\n1,2\n")
    waiting = at.dataset(b"a,b\n1,2\n")
    stray = at.uploads.folder / "up_0"
    stray.touch()
    soon, later = time.time() + 7200, time.time() + DAY + 60
    at.uploads.sweep()
    assert stray.exists()  # it may be one whose row is being written
    at.uploads.sweep(soon)
    assert {path.name for path in at.uploads.folder.iterdir()} == {left.id, waiting.upload}
    at.uploads.sweep(later)
    assert [path.name for path in at.uploads.folder.iterdir()] == [waiting.upload]
    assert [one.id for one in at.uploads.list(TENANT)] == [waiting.upload]
    with pytest.raises(Conflict, match="in use"):
        at.uploads.remove(waiting.upload, TENANT, ME)


def test_a_full_disk(tmp_path: Path) -> None:
    """F4 for uploads: refused, nothing is lost, and they go on when there is room."""
    folder = tmp_path / "data" / "uploads"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes root")
    try:
        with desk(tmp_path) as at:
            with pytest.raises(StorageFull, match="are free"):
                at.uploads.create("x", 10 << 20, None, OWNER, ME)
            upload = at.uploads.create("x", 4 << 20, None, OWNER, ME)
            at.uploads.append(upload.id, TENANT, 0, bytes(1 << 20))
            filler = folder / "filler"
            filler.write_bytes(bytes(shutil.disk_usage(folder).free))
            with pytest.raises(StorageFull):
                at.uploads.append(upload.id, TENANT, 1 << 20, bytes(3 << 20))
            assert at.uploads.get(upload.id, TENANT).received == 1 << 20
            filler.unlink()
            at.uploads.append(upload.id, TENANT, 1 << 20, bytes(3 << 20))
            assert at.content(upload.id) == bytes(4 << 20)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
