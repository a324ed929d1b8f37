"""The trainer's process: what it leaves, what it refuses, and what it says of both."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.training import canonical, jobs
from tests.training.networks import dense, sequential

from openmaas.training import task
from openmaas.training.task import Failure, Result

DIGITS = sequential(64, dense(32, "relu"), dense(10, "softmax"))
HOSTILE = """
import sys, keras
from pathlib import Path
canary = sys.argv[2]
model = keras.Sequential([keras.Input((64,)), keras.layers.Lambda(
    lambda x: (__import__("pathlib").Path(canary).write_text("ran"), x)[1]),
    keras.layers.Dense(10, activation="softmax")])
model.save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sklearn.datasets import load_digits

    data = load_digits()
    given = {"pixels": (data.data / 16).astype(np.float32), "label": data.target}
    return canonical.arrays(tmp_path_factory.mktemp("digits") / "d", given, target="label")


def spec(config: dict[str, Any], **fit: Any) -> dict[str, Any]:
    return {"network": {"config": config}, "fit": {"optimizer": "adam", **fit}}


def failure(folder: Path, *readable: Path) -> Failure:
    process = jobs.start(folder, *readable)
    jobs.events(process)
    assert process.returncode == task.FAILED, (folder / "log").read_text()[-3000:]
    assert not (folder / task.RESULT).exists()
    return msgspec.json.decode((folder / task.ERROR).read_bytes(), type=Failure)


def test_a_network_of_ones_own(digits: Path, tmp_path: Path) -> None:
    folder = jobs.job(tmp_path / "job", digits, spec(DIGITS, epochs=6, metrics=["accuracy"]))
    process = jobs.start(folder)
    said = jobs.events(process)
    assert process.returncode == task.DONE, (folder / "log").read_text()[-3000:]
    result = msgspec.json.decode((folder / task.RESULT).read_bytes(), type=Result)
    epochs = [event for event in said if event["kind"] == "epoch"]
    assert [event["epoch"] for event in epochs] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in result.history] == [one["metrics"]["loss"] for one in epochs]
    assert {"accuracy", "val_loss", "val_accuracy", "learning_rate"} <= epochs[0]["metrics"].keys()
    assert result.split == "test"
    assert (result.metrics["accuracy"] or 0) > 0.85
    assert result.confusion is not None
    right = sum(row[at] for at, row in enumerate(result.confusion.rows))
    assert right / 181 == pytest.approx(result.metrics["accuracy"], abs=1e-6)
    assert result.weights == 64 * 32 + 32 + 32 * 10 + 10
    assert result.fit["loss"] == "sparse_categorical_crossentropy"
    assert result.libraries.keys() >= {"keras", "jax", "numpy"}
    assert result.rows == {"train": 1437, "validation": 179, "test": 181}
    export = folder / task.EXPORT
    with zipfile.ZipFile(export / "model.keras") as archive:
        assert "model.weights.h5" in archive.namelist()
    with np.load(export / "rows.npz", allow_pickle=False) as rows:
        assert rows["pixels"].shape == (64, 64)
        np.testing.assert_allclose(rows["outputs"].sum(1), 1, atol=1e-5)
    assert json.loads((export / "labels.json").read_text()) == [str(at) for at in range(10)]
    picture = Image.open(io.BytesIO((folder / task.CURVE).read_bytes()))
    assert picture.size[0] > picture.size[1] > 300
    kept = (folder / task.EVENTS).read_text().splitlines()
    assert [json.loads(line) for line in kept] == [one for one in said if one["kind"] != "step"]


def test_divergence_is_told_with_its_likely_reason(digits: Path, tmp_path: Path) -> None:
    large = canonical.arrays(
        tmp_path / "large",
        {
            "x": np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32) * 1e4,
            "y": np.random.default_rng(1).normal(size=400).astype(np.float32),
        },
        target="y",
    )
    wanted = spec(sequential(8, dense(8, "relu"), dense(1)), epochs=20)
    wanted["fit"]["optimizer"] = {"name": "sgd", "learning_rate": 1.0}
    told = failure(jobs.job(tmp_path / "job", large, wanted))
    assert told.code == "training_diverged"
    assert "epoch 1" in told.message
    assert "learning rate was 1" in told.message
    assert "inputs go from" in told.message


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"target": "lable"}, "invalid_request", "no column 'lable'; there are pixels, label"),
        (spec(sequential(63, dense(10, "softmax"))), "invalid_request", "rows of 64.* takes 63"),
        (spec(sequential(64, dense(4, "softmax"))), "invalid_request", "10 different .* 4 outputs"),
        (spec(sequential(64, dense(10))), "invalid_request", "name a loss"),
        (
            spec(sequential(64, dense(1 << 23), dense(1 << 23), dense(10, "softmax"))),
            "invalid_request",
            "weights; the limit is",
        ),
    ],
)
def test_what_does_not_fit_is_told(
    digits: Path, tmp_path: Path, change: dict[str, Any], code: str, words: str
) -> None:
    told = failure(jobs.job(tmp_path / "job", digits, spec(DIGITS) | change))
    assert told.code == code
    assert re.search(words, told.message), told.message


def test_code_in_a_network_is_not_run(digits: Path, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "hostile.keras"
    subprocess.run(
        [sys.executable, "-c", HOSTILE, str(path), str(canary)],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        check=True,
        timeout=300,
    )
    assert canary.exists()  # it runs when the network is made; it must not when it is trained
    canary.unlink()
    wanted = {"network": {"upload": "upload_0"}, "fit": {"epochs": 1}}
    folder = jobs.job(tmp_path / "job", digits, wanted, network=str(path))
    told = failure(folder, path)
    assert told.code == "artifact_refused"
    assert "Lambda" in told.message
    assert not canary.exists()


def test_cancelled_at_once(digits: Path, tmp_path: Path) -> None:
    folder = jobs.job(tmp_path / "job", digits, spec(DIGITS, epochs=100_000))
    process = jobs.start(folder)
    assert process.stdout is not None
    for line in process.stdout:
        if '"kind":"epoch"' in line:
            process.send_signal(signal.SIGTERM)
            break
    jobs.events(process)
    assert process.returncode == task.CANCELLED
    assert not (folder / task.RESULT).exists()
    assert not (folder / task.ERROR).exists()
