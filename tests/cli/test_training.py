"""``openmaas train`` and ``openmaas jobs``: a network from its file to answers, on a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from openmaas.client import Client
from tests.cli.test_datasets import Run, told
from tests.cli.test_errors import refused, run
from tests.processes import ServerProcess, serving
from tests.training.service import dense, digits

SAVE = """
import json, sys, keras
keras.utils.set_random_seed(1)
network = keras.models.model_from_json(open(sys.argv[1]).read())
network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
network.save(sys.argv[2])
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``digits.npz`` and a network as ``net.json`` and as ``net.keras``."""
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "digits.npz", **digits())
    (folder / "net.json").write_text(json.dumps(dense(32, 10)))
    subprocess.run(
        [sys.executable, "-c", SAVE, str(folder / "net.json"), str(folder / "net.keras")],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        check=True,
        timeout=120,
    )
    return folder


@pytest.fixture
def openmaas(house: ServerProcess) -> Run:
    env = {"OPENMAAS_URL": house.url, "OPENMAAS_API_KEY": house.key}
    return lambda *arguments: run(house.data, *map(str, arguments), **env)


def job_of(screen: str) -> str:
    return screen.split(" is queued")[0].splitlines()[-1]


def test_a_network_is_trained_watched_and_served(
    openmaas: Run, house: ServerProcess, files: Path, tmp_path: Path
) -> None:
    done = openmaas(
        "train", "numbers", "--data", files / "digits.npz", "--network", files / "net.json",
        "--target", "y", "--epochs", 8, "--optimizer", "adam", "--learning-rate", 0.005,
        "--promote-if", "accuracy=0.8",
    )  # fmt: skip
    screen = told(done)
    assert "✓ digits.npz: 1,797 rows, 2 columns; data set ds_" in done.stderr
    job = job_of(screen)
    lines = screen.splitlines()
    assert lines[:3] == [f"{job} is queued", "queued", "running"]
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch ")] == [
        f"epoch {number}/8" for number in range(1, 9)
    ]
    assert max(map(len, lines)) <= 100
    assert lines[-4:-1] == ["publishing", "succeeded", "numbers version 1 is there"]
    assert lines[-1].startswith("held-out rows: accuracy 0.")

    with Client(house.url, house.key) as client:
        x, y = digits().values()
        (served,) = client.predict("numbers", x[:200].tolist()).values()
        assert (np.array(served.rows()).argmax(1) == y[:200]).mean() > 0.8

    curve = tmp_path / "curve.png"
    shown = told(openmaas("jobs", "show", job, "--curve", curve))
    assert "numbers version 1" in shown
    assert "own network" in shown
    assert "8/8" in shown
    assert "sha256:" in shown
    confusion = shown.split("Confusion")[1].splitlines()[2:]
    assert confusion[0].split() == [str(number) for number in range(10)]
    assert len(confusion) == 11
    assert curve.read_bytes().startswith(b"\x89PNG")
    known = json.loads(told(openmaas("jobs", "show", job, "--json")))
    assert known["state"] == "succeeded"
    assert known["published"]["card"]["metrics"]["accuracy"] > 0.8
    assert told(openmaas("jobs", "watch", job)).splitlines()[-2:] == lines[-2:]


def test_a_keras_file_keeps_what_it_was_compiled_with(openmaas: Run, files: Path) -> None:
    screen = told(openmaas(
        "train", "own", "--data", files / "digits.npz", "--network", files / "net.keras",
        "--target", "y", "--epochs", 1, "--promote-if", "accuracy=1.01",
    ))  # fmt: skip
    assert "own version 1 is there" in screen
    assert "it is not served: accuracy is 0." in screen
    known = json.loads(told(openmaas("jobs", "show", job_of(screen), "--json")))
    fit = known["published"]["card"]["fit"]
    assert "adam" in json.dumps(fit)


def test_pause_resume_and_cancel(openmaas: Run, house: ServerProcess, files: Path) -> None:
    screen = told(openmaas(
        "train", "long", "--data", files / "digits.npz", "--network", files / "net.json",
        "--target", "y", "--epochs", 50_000, "--detach",
    ))  # fmt: skip
    job = job_of(screen)
    assert screen.splitlines()[-1] == f"Follow it with: openmaas jobs watch {job}"
    with Client(house.url, house.key) as client:
        one = client.training.job(job)
        house.wait_until(lambda: one.refresh().progress.get("epoch", 0) > 0, 60)
        assert told(openmaas("jobs", "pause", job)).split()[2] in ("pausing", "paused")
        house.wait_until(lambda: one.refresh().state == "paused", 60)
        (line,) = [row for row in told(openmaas("jobs", "list")).splitlines() if job in row]
        assert line.split()[:5] == [job, "long", "own", "network", "paused"]
        assert "accuracy 0." in line
        assert told(openmaas("jobs", "resume", job)) == f"{job} is queued\n"
        house.wait_until(lambda: one.refresh().state == "running", 60)
        assert told(openmaas("jobs", "cancel", job)) == f"{job} is cancelling\n"
        house.wait_until(lambda: one.refresh().state == "cancelled", 60)
    done = openmaas("jobs", "watch", job)
    assert done.stdout.splitlines()[-1] == "cancelled"
    assert refused(done) == f"error: {job}: it is cancelled"
    assert "it cannot resume" in refused(openmaas("jobs", "resume", job))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--data", "nowhere.csv", "--recipe", "tabular_mlp"), "nowhere.csv"),
        (("--data", "{}/digits.npz"), "--recipe or --network"),
        (("--data", "{}/digits.npz", "--network", "nowhere.keras"), "nowhere.keras"),
        (("--data", "ds_00", "--recipe", "tabular_mlp"), "ds_00"),
        (("--data", "ds_00", "--recipe", "gpt"), "recipe"),
        (("--data", "ds_00", "--recipe", "tabular_mlp", "--promote-if", "accuracy"), "accuracy="),
        (("--data", "ds_00", "--recipe", "tabular_mlp", "--set", "units"), "--set"),
    ],
)
def test_what_is_typed_wrong(
    openmaas: Run, files: Path, arguments: tuple[str, ...], word: str
) -> None:
    given = [one.format(files) for one in arguments]
    assert word in refused(openmaas("train", "m", *given))
