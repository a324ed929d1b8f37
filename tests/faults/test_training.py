"""F3: a training job, or the server under it, is killed: it goes on, and its result is the same."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from openmaas.client import Client
from openmaas.client.training import Job
from tests.processes import serving
from tests.training.service import digits, layer, submit, trainer

EPOCHS = 300
KILLS = 2


def network() -> dict[str, Any]:
    """With all that a checkpoint must hold: seeds, moving averages, the optimizer's moments."""
    layers = [
        layer("InputLayer", batch_shape=[None, 64], dtype="float32"),
        layer("Dense", units=32, activation="relu"),
        layer("BatchNormalization"),
        layer("Dropout", rate=0.2),
        layer("Dense", units=10, activation="softmax"),
    ]
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "net", "layers": layers},
    }


class Place(NamedTuple):
    data: Path  # of servers, one after the other
    dataset: str
    answers: NDArray[Any]  # of what was trained and not killed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    data = tmp_path_factory.mktemp("killed") / "data"
    data.mkdir()
    with serving(data) as server, Client(server.url, server.key) as client:
        dataset = client.datasets.upload_arrays("digits", **digits())
        begin(client, dataset.id, "whole").wait()
        return Place(data, dataset.id, told(client, "whole"))


def begin(client: Client, dataset: str, model: str) -> Job:
    fit = {"epochs": EPOCHS, "seed": 7, "batch_size": 16}
    more = {"network": {"config": network()}, "promote": True, "checkpoint_seconds": 1}
    return submit(client, dataset, model, fit=fit, **more)


def told(client: Client, model: str) -> NDArray[Any]:
    (output,) = client.predict(model, digits()["x"][:300].tolist()).values()
    return np.array(output.rows())


def checkpoints(client: Client, job: Job) -> int:
    return sum(event["kind"] == "checkpoint" for event in client.training.events(job.id))


def test_a_job_that_is_killed_ends_as_if_it_had_not_been(place: Place) -> None:
    with serving(place.data) as server, Client(server.url, server.key) as client:
        job = begin(client, place.dataset, "killed")
        for _ in range(KILLS):
            before = checkpoints(client, job)
            server.wait_until(lambda n=before: checkpoints(client, job) > n and trainer(server), 60)
            pid = trainer(server)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            server.wait_until(lambda p=pid: trainer(server) not in (p, None), 20)
        job.wait()
        assert job.attempts == KILLS + 1
        assert len(client.training.versions("killed")) == 1
        assert np.array_equal(place.answers, told(client, "killed"))


def test_the_server_under_a_job_is_killed(place: Place) -> None:
    with serving(place.data) as server, Client(server.url, server.key) as client:
        job = begin(client, place.dataset, "orphan")
        server.wait_until(lambda: checkpoints(client, job) > 0, 60)
        pid = trainer(server)
        server.process.kill()
        server.process.wait()
        assert pid is not None
        _wait_for_end(pid)
    with serving(place.data) as server, Client(server.url, server.key) as client:
        again = client.training.job(job.id)
        assert client.training.jobs()[0].state in ("queued", "running")
        again.wait()
        assert again.attempts == 2
        assert [one["version"] for one in client.training.versions("orphan")] == [1]
        assert np.array_equal(place.answers, told(client, "orphan"))


def test_a_server_that_stops_puts_its_job_off(place: Place) -> None:
    with serving(place.data) as server, Client(server.url, server.key) as client:
        job = begin(client, place.dataset, "later")
        server.wait_until(lambda: job.refresh().progress.get("step", 0) > 0, 60)
        assert server.stop() == 0
    with serving(place.data) as server, Client(server.url, server.key) as client:
        again = client.training.job(job.id).wait()
        assert again.version == 1


def _wait_for_end(pid: int) -> None:
    descriptor = os.pidfd_open(pid) if Path(f"/proc/{pid}").exists() else None
    if descriptor is not None:
        assert select.select([descriptor], [], [], 10)[0], "the trainer outlived its server"
        os.close(descriptor)
