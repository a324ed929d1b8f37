"""Checkpoints: whole or not there, the newest whole one is found, two are kept."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from openmaas.errors import StorageFull
from openmaas.training import checkpoints

ARRAYS = {
    "trainable.0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fixed.0": np.array([1, 4_000_000_000], np.uint32),
    "optimizer.0": np.array(7, np.int32),
    "metrics.0": np.zeros((), np.float32),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    progress = {"epoch": 3, "history": [{"loss": 0.1, "val_loss": None}], "seconds": 1 / 3}
    checkpoints.write(tmp_path / "new", 1, ARRAYS, progress)
    found = checkpoints.newest(tmp_path / "new")
    assert found is not None
    assert found.number == 1
    assert found.progress == progress
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for number in range(8, 12):
        checkpoints.write(tmp_path, number, ARRAYS, {"epoch": number})
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "0000000010.checkpoint",
        "0000000011.checkpoint",
    ]


def test_none_at_all(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "missing") is None


def test_of_a_damaged_one_nothing_is_believed(tmp_path: Path) -> None:
    """Cut or flipped anywhere, the newest is passed over for the one before it."""
    checkpoints.write(tmp_path, 1, ARRAYS, {"epoch": 1})
    path = checkpoints.write(tmp_path, 2, ARRAYS, {"epoch": 2})
    whole = path.read_bytes()
    chance = random.Random(5)
    for at in [0, 31, 32, 40, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(40))]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << chance.randrange(8)
        for damaged in (bytes(flipped), whole[:at]):
            path.write_bytes(damaged)
            found = checkpoints.newest(tmp_path)
            assert found is not None
            assert found.progress == {"epoch": 1}
            assert not path.exists()


def test_a_write_that_was_cut_off_is_not_seen(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path, 1, ARRAYS, {"epoch": 1})
    (tmp_path / "0000000002.new").write_bytes(path.read_bytes()[:100])
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.number == 1
    checkpoints.write(tmp_path, 2, ARRAYS, {"epoch": 2})
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.number == 2


def test_a_full_disk_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, 1, ARRAYS, {"epoch": 1})
    (tmp_path / "0000000002.checkpoint").mkdir()  # the name cannot be taken
    with pytest.raises(StorageFull):
        checkpoints.write(tmp_path, 2, ARRAYS, {"epoch": 2})
    (tmp_path / "0000000002.checkpoint").rmdir()
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.progress == {"epoch": 1}
    assert len(list(tmp_path.iterdir())) == 1
