"""A trainer that is paused or killed, and started anew, comes to the very same weights."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.training import canonical, jobs
from tests.training.networks import dense, dropout, normalization, sequential

from openmaas.training import task
from openmaas.training.task import Result

SPEC = {
    "network": {
        "config": sequential(
            20, dense(32, "relu"), normalization(), dropout(0.3), dense(3, "softmax")
        )
    },
    "fit": {
        "optimizer": "adam",
        "epochs": 4,
        "batch_size": 4,
        "seed": 5,
        "callbacks": [
            {"name": "early_stopping", "patience": 3},
            {"name": "reduce_lr_on_plateau", "patience": 1},
        ],
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows that an epoch takes some tenths of a second."""
    chance = np.random.default_rng(2)
    x = chance.normal(size=(60_002, 20)).astype(np.float32)
    noisy = x[:, :3] + chance.normal(size=(len(x), 3))
    given = {"pixels": x, "label": noisy.argmax(1)}
    return canonical.arrays(tmp_path_factory.mktemp("rows") / "d", given, target="label")


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = jobs.job(tmp_path_factory.mktemp("whole") / "job", data, SPEC)
    jobs.run(folder)
    return left(folder)


def left(folder: Path) -> dict[str, Any]:
    """All that a job came to, to the last bit, but for times."""
    result = msgspec.json.decode((folder / task.RESULT).read_bytes(), type=Result)
    with zipfile.ZipFile(folder / task.EXPORT / "model.keras") as archive:
        weights = archive.read("model.weights.h5")
    with np.load(folder / task.EXPORT / "rows.npz", allow_pickle=False) as rows:
        outputs = rows["outputs"].tobytes()
    history = [
        {name: value for name, value in row.items() if name != "seconds"} for row in result.history
    ]
    return {
        "weights": weights,
        "outputs": outputs,
        "history": history,
        "metrics": result.metrics,
        "best": result.best_epoch,
    }


def until(process: subprocess.Popen[str], kind: str, count: int) -> None:
    """Reads what it says up to the so manyth line of a kind."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(jobs.SAID):
            count -= json.loads(line.removeprefix(jobs.SAID))["kind"] == kind
        if count == 0:
            return
    raise AssertionError("it ended before")


def test_paused_within_an_epoch(data: Path, uninterrupted: dict[str, Any], tmp_path: Path) -> None:
    folder = jobs.job(tmp_path / "job", data, SPEC)
    process = jobs.start(folder)
    until(process, "epoch", 1)
    process.send_signal(signal.SIGUSR1)
    said = jobs.events(process)
    assert process.returncode == task.PAUSED
    assert said[-1]["kind"] == "checkpoint"
    assert not (folder / task.RESULT).exists()
    jobs.run(folder)
    assert left(folder) == uninterrupted


@pytest.mark.slow
def test_killed_again_and_again(data: Path, uninterrupted: dict[str, Any], tmp_path: Path) -> None:
    """Before its first checkpoint, then wherever chance has it."""
    chance = random.Random(11)
    folder = jobs.job(tmp_path / "job", data, SPEC)
    for kind, count in (("epoch", 1), ("checkpoint", chance.randint(1, 2))):
        process = jobs.start(folder)
        until(process, kind, count)
        process.kill()
        jobs.events(process)
        assert process.returncode == -signal.SIGKILL
    jobs.run(folder)
    assert left(folder) == uninterrupted
