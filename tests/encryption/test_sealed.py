"""Sealed files: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest

from openmaas.encryption import records
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.sealed import SealedWriter, open_sealed, seal_file, sealed_by
from openmaas.encryption.values import seal, seal_json, unseal, unseal_json
from openmaas.errors import Erased, SealBroken
from tests.encryption.keys import ME, keyring

NAME = "files/one"
CUT = 64  # bytes of a record, so that small files have many


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    return keyring(tmp_path)


def written(path: Path, keys: Keyring, data: bytes, *, finished: bool = True) -> Path:
    writer = SealedWriter.create(path, keys.key("acme"), NAME, cut=CUT, replace=True)
    writer.write(data)
    (writer.finish if finished else writer.close)()
    return path


def read(path: Path, keys: Keyring, name: str = NAME, **how: object) -> bytes:
    with open_sealed(path, keys, name, **how) as file:  # type: ignore[arg-type]
        return file.read()


@pytest.mark.parametrize("size", [0, 1, CUT - 1, CUT, CUT + 1, 10 * CUT, 1234])
def test_what_is_written_is_read(tmp_path: Path, keys: Keyring, size: int) -> None:
    data = random.Random(size).randbytes(size)
    path = written(tmp_path / "one", keys, data)
    assert read(path, keys) == data
    raw = path.read_bytes()
    assert not size or data[:32] not in raw or size < 4
    assert path.stat().st_mode & 0o777 == 0o600


def test_records_of_the_largest_size(tmp_path: Path, keys: Keyring) -> None:
    data = os.urandom(3 * records.MOST + 5)
    assert seal_file(io.BytesIO(data), tmp_path / "one", keys.key("acme"), NAME) == len(data)
    assert read(tmp_path / "one", keys) == data


def test_places_are_sought_as_in_a_plain_file(tmp_path: Path, keys: Keyring) -> None:
    data = os.urandom(1500)
    path = written(tmp_path / "one", keys, data)
    plain, dice = io.BytesIO(data), random.Random(0)
    with open_sealed(path, keys, NAME) as file:
        for _ in range(500):
            at, count = dice.randrange(1600), dice.randrange(200)
            assert file.seek(at) == plain.seek(at)
            assert file.read(count) == plain.read(count)
        assert file.seek(-3, os.SEEK_END) == len(data) - 3
        assert file.read() == data[-3:]
        file.seek(0)
        lines = b"".join(iter(file.readline, b""))
        assert lines == data


def test_every_bit_counts(tmp_path: Path, keys: Keyring) -> None:
    data = os.urandom(3 * CUT + 7)
    path = written(tmp_path / "one", keys, data)
    raw = path.read_bytes()
    broken = tmp_path / "broken"
    for at in range(len(records.MAGIC) * 8, len(raw) * 8):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        broken.write_bytes(changed)
        with pytest.raises((SealBroken, Erased)):
            read(broken, keys)


def test_every_truncation_is_found(tmp_path: Path, keys: Keyring) -> None:
    raw = written(tmp_path / "one", keys, os.urandom(3 * CUT)).read_bytes()
    broken = tmp_path / "broken"
    for size in range(len(records.MAGIC), len(raw)):
        broken.write_bytes(raw[:size])
        with pytest.raises(SealBroken):
            read(broken, keys)
    broken.write_bytes(raw + b"x")
    with pytest.raises(SealBroken):
        read(broken, keys)


def test_records_stay_where_they_are(tmp_path: Path, keys: Keyring) -> None:
    raw = written(tmp_path / "one", keys, os.urandom(4 * CUT)).read_bytes()
    record = CUT + 4 + 12 + 16
    body = len(raw) - 4 * record - 32
    head, parts = raw[:body], [raw[body + at * record :][:record] for at in range(4)]
    end = raw[-32:]
    broken = tmp_path / "broken"
    for order in ([1, 0, 2, 3], [0, 0, 2, 3], [0, 1, 2], [1, 2, 3], [0, 1, 2, 3, 3]):
        broken.write_bytes(head + b"".join(parts[at] for at in order) + end)
        with pytest.raises(SealBroken):
            read(broken, keys)
    broken.write_bytes(head + b"".join(parts) + end)
    assert len(read(broken, keys)) == 4 * CUT


def test_a_file_is_read_under_its_own_name_alone(tmp_path: Path, keys: Keyring) -> None:
    first = written(tmp_path / "one", keys, b"first" * 100)
    with pytest.raises(SealBroken):
        read(first, keys, "files/two")
    # Another file's records, of the same name, key and number.
    second = written(tmp_path / "two", keys, b"other" * 100)
    head = len(first.read_bytes()) - len(b"first" * 100) - 8 * 32
    mixed = first.read_bytes()[:head] + second.read_bytes()[head:]
    (tmp_path / "mixed").write_bytes(mixed)
    with pytest.raises(SealBroken):
        read(tmp_path / "mixed", keys)


@pytest.mark.parametrize("most", [0, 1, CUT, CUT + 1, 4 * CUT, 300])
def test_what_a_crash_cut_goes_on(tmp_path: Path, keys: Keyring, most: int) -> None:
    """Whichever byte was the last on disk: what was flushed before is there, once."""
    path, data = tmp_path / "one", os.urandom(300)
    writer = SealedWriter.create(path, keys.key("acme"), NAME, cut=CUT)
    writer.write(data[:most])
    writer.flush()
    sure = path.stat().st_size
    writer.write(data[most:])
    writer.close()
    raw = path.read_bytes()
    for size in range(sure, len(raw) + 1, 7):
        path.write_bytes(raw[:size])
        there = read(path, keys, growing=True)
        assert data[: len(there)] == there
        assert len(there) >= most
        with_more = SealedWriter.append(path, keys, keys.key("acme"), NAME, cut=CUT)
        assert with_more.size == len(there)
        with_more.write(data[with_more.size :])
        with_more.finish()
        assert read(path, keys) == data


def test_a_header_that_a_crash_cut_begins_anew(tmp_path: Path, keys: Keyring) -> None:
    raw = written(tmp_path / "one", keys, b"", finished=False).read_bytes()
    for size in range(len(raw)):
        path = tmp_path / "cut"
        path.write_bytes(raw[:size])
        assert read(path, keys, growing=True) == b""
        writer = SealedWriter.append(path, keys, keys.key("acme"), NAME)
        writer.write(b"anew")
        writer.finish()
        assert read(path, keys) == b"anew"


def test_a_record_that_was_torn_ends_what_is_whole(tmp_path: Path, keys: Keyring) -> None:
    """The length is there, some of the bytes are not: disks write in any order."""
    path = written(tmp_path / "one", keys, bytes(4 * CUT), finished=False)
    raw = bytearray(path.read_bytes())
    raw[-2 * (CUT + 32) + 20] ^= 1
    path.write_bytes(raw)
    assert len(read(path, keys, growing=True)) == 2 * CUT


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("size", [0, 1, CUT - 1, CUT, CUT + 1, 300])
def test_a_file_is_cut_where_it_is_said(
    tmp_path: Path, keys: Keyring, size: int, finished: bool
) -> None:
    data = os.urandom(300)
    path = written(tmp_path / "one", keys, data, finished=finished)
    writer = SealedWriter.append(path, keys, keys.key("acme"), NAME, size=size, cut=CUT)
    writer.write(b"more")
    writer.flush()
    assert read(path, keys, size=size + 4) == data[:size] + b"more"
    writer.finish()
    assert read(path, keys) == data[:size] + b"more"


def test_fewer_bytes_than_said_are_no_file(tmp_path: Path, keys: Keyring) -> None:
    path = written(tmp_path / "one", keys, bytes(100), finished=False)
    with pytest.raises(SealBroken, match="100 of 101"):
        read(path, keys, size=101)
    with pytest.raises(SealBroken, match="100 of 101"):
        SealedWriter.append(path, keys, keys.key("acme"), NAME, size=101)
    assert read(path, keys, size=70) == bytes(70)


def test_files_of_an_older_release_are_read_and_sealed(tmp_path: Path, keys: Keyring) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"plain text\n" * 20)
    assert read(path, keys) == b"plain text\n" * 20
    assert read(path, keys, growing=True) == b"plain text\n" * 20
    writer = SealedWriter.append(path, keys, keys.key("acme"), NAME)
    assert writer.size == 220
    writer.write(b"more\n")
    writer.finish()
    assert b"plain text" not in path.read_bytes()
    assert read(path, keys) == b"plain text\n" * 20 + b"more\n"


def test_old_and_new_keys_side_by_side(tmp_path: Path, keys: Keyring) -> None:
    """A key is replaced while a file is read and another goes on: neither notices."""
    path = written(tmp_path / "one", keys, b"a" * 500, finished=False)
    with open_sealed(path, keys, NAME, growing=True) as reader:
        assert reader.read(100) == b"a" * 100
        keys.rotate("acme", ME)
        assert reader.read() == b"a" * 400
    assert read(path, keys, growing=True) == b"a" * 500
    old = sealed_by(path)
    writer = SealedWriter.append(path, keys, keys.key("acme"), NAME)
    writer.write(b"b")
    writer.finish()
    assert sealed_by(path) == old != keys.key("acme").id
    assert read(path, keys) == b"a" * 500 + b"b"


def test_what_a_destroyed_key_sealed_is_gone(tmp_path: Path, keys: Keyring) -> None:
    path = written(tmp_path / "one", keys, b"a" * 500)
    stored = seal_json({"a": 1}, keys.key("acme"), "x")
    with keys._database.write() as connection:
        keys.destroy(connection, "acme")
    keys.scrub()
    with pytest.raises(Erased):
        read(path, keys)
    with pytest.raises(Erased):
        unseal_json(stored, keys, "x")


def test_links_are_not_followed(tmp_path: Path, keys: Keyring) -> None:
    path = written(tmp_path / "one", keys, b"a")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        open_sealed(tmp_path / "link", keys, NAME)
    with pytest.raises(OSError, match="symbolic"):
        SealedWriter.append(tmp_path / "link", keys, keys.key("acme"), NAME)


def test_small_things(keys: Keyring) -> None:
    key = keys.key("acme")
    made = seal(b"a card", key, b"cards/acme/m/1")
    assert unseal(made, keys, b"cards/acme/m/1") == b"a card"
    with pytest.raises(SealBroken):
        unseal(made, keys, b"cards/acme/m/2")
    for at in range(len(made) * 8):
        changed = bytearray(made)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises((SealBroken, Erased)):
            unseal(bytes(changed), keys, b"cards/acme/m/1")
    for size in range(len(made)):
        with pytest.raises((SealBroken, Erased)):
            unseal(made[:size], keys, b"cards/acme/m/1")


def test_columns(keys: Keyring) -> None:
    value = {"classes": ["Ada Lovelace", "Alan Turing"], "rows": 3}
    stored = seal_json(value, keys.key("acme"), "datasets/ds_1")
    assert "Ada" not in str(stored)
    assert unseal_json(stored, keys, "datasets/ds_1") == value
    assert unseal_json(value, keys, "datasets/ds_1") == value  # of an older release
    assert unseal_json(None, keys, "datasets/ds_1") is None
    with pytest.raises(SealBroken):
        unseal_json(stored, keys, "datasets/ds_2")
    with pytest.raises(SealBroken):
        unseal_json({"sealed": "no base64!"}, keys, "datasets/ds_1")
