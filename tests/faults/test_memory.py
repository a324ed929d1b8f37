"""The memory budget: more models than fit, all of them answering."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from openmaas.client import Client
from tests.conftest import deploy_echo
from tests.processes import ServerProcess, cli, serving
from tests.stores import copy_model, deploy

ROW = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64}]}
NAMES = ("a", "b", "c", "d", "e", "f")
FIT = 3  # of them
CALLS = 60
MIB = 1 << 20


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


class Peak:
    """The most that a server's workers took together."""

    def __init__(self, server: ServerProcess) -> None:
        self.bytes = 0
        self._server = server
        self._stop = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[Peak]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, sum(map(resident, self._server.workers())))


def predict(server: ServerProcess, model: str) -> httpx.Response:
    return server.client.post(f"/v2/models/{model}/infer", json=ROW)


def states(server: ServerProcess) -> dict[str, str]:
    found = server.client.get("/v1/deployments").json()["data"]
    return {one["model"]: one["state"] for one in found}


@pytest.fixture
def six(data: Path) -> Path:
    """The same network under six names, in a folder where none was ever loaded."""
    copy_model(data, "digits", *NAMES)
    return data


@pytest.fixture(scope="module")
def one_worker(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes that a worker of ``digits`` takes here."""
    import shutil

    data = tmp_path_factory.mktemp("one") / "data"
    shutil.copytree(digits_only, data)
    deploy(data, "digits")
    with serving(data) as server:
        assert predict(server, "digits").status_code == 200
        (pid,) = server.workers()
        return resident(pid)


def test_twice_as_many_models_as_fit(six: Path, one_worker: int) -> None:
    budget = int(one_worker * (FIT + 0.6))
    settings = {"OPENMAAS_MEMORY_BUDGET": str(budget), "OPENMAAS_IDLE_SECONDS": "3"}
    for name in NAMES:
        deploy(six, name)
    with serving(six, **settings) as server, Peak(server).watched() as peak:

        def call(seed: int) -> list[int]:
            names = random.Random(seed)
            return [predict(server, names.choice(NAMES)).status_code for _ in range(CALLS // 3)]

        with ThreadPoolExecutor(3) as pool:
            answers = [status for one in pool.map(call, range(3)) for status in one]
        assert Counter(answers) == {200: CALLS}
        memory = server.client.get("/v1/deployments").json()["memory"]
        assert memory["budget"] == budget
        assert memory["evictions"] > 0
        assert peak.bytes <= 1.05 * budget, (peak.bytes / MIB, budget / MIB)
        server.wait_until(lambda: set(states(server).values()) == {"asleep"}, 20)  # scaled to zero
        server.wait_until(lambda: server.workers() == [], 20)  # one told to end needs a moment
        assert predict(server, "a").status_code == 200  # and back


def test_a_model_that_can_never_fit_is_refused_with_the_numbers(data: Path) -> None:
    deploy(data, "digits")
    with serving(data, OPENMAAS_MEMORY_BUDGET=str(48 * MIB)) as server:
        answer = predict(server, "digits")
        assert answer.status_code == 507
        assert "48 MiB" in answer.json()["error"]
        assert answer.headers["x-should-retry"] == "false"
        assert "48 MiB" in cli(data, "status")


def test_pinned_models_stay(six: Path, one_worker: int) -> None:
    deploy(six, "a", replicas=(1, 1))
    for name in ("b", "c"):
        deploy(six, name)
    budget = int(one_worker * 2.6)
    with serving(six, OPENMAAS_MEMORY_BUDGET=str(budget), OPENMAAS_IDLE_SECONDS="1") as server:
        pid = server.worker_pid("a")
        assert pid is not None
        for name in ("b", "c", "b", "c"):
            assert predict(server, name).status_code == 200
        server.wait_until(lambda: states(server)["b"] == states(server)["c"] == "asleep", 15)
        assert server.worker_pid("a") == pid


def test_a_busy_model_makes_room_in_the_end(six: Path, one_worker: int) -> None:
    for name in ("a", "b"):
        deploy(six, name)
    with serving(six, OPENMAAS_MEMORY_BUDGET=str(int(one_worker * 1.6))) as server:
        stop = threading.Event()

        def keep_busy(name: str) -> set[int]:
            found = set()
            while not stop.is_set():
                found.add(predict(server, name).status_code)
            return found

        with ThreadPoolExecutor(4) as pool:
            busy = [pool.submit(keep_busy, "a") for _ in range(3)]
            try:
                for _ in range(2):
                    assert predict(server, "b").status_code == 200
            finally:
                stop.set()
            assert [job.result() for job in busy] == [{200}] * 3


def test_what_slept_sleeps_on_and_a_stream_sees_it_wake(data: Path) -> None:
    deploy_echo(data, "talk", start_seconds=3)
    with serving(data, OPENMAAS_IDLE_SECONDS="1") as server:
        server.wait_until(lambda: states(server) == {"talk": "asleep"}, 20)
        with Client(server.url, server.key) as client:
            (one,) = client.deployments.list()
            assert one["expected_memory"] > 0  # measured, and kept
        server.wait_until(lambda: " asleep " in cli(data, "status"), 20)  # it is written down
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
    with serving(data) as server:
        assert states(server) == {"talk": "asleep"}
        body = {"model": "talk", "max_tokens": 3, "stream": True,
                "messages": [{"role": "user", "content": "a"}]}  # fmt: skip
        with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = list(answer.iter_lines())
        assert any(line.startswith(": talk is loading") for line in lines), lines
        assert "data: [DONE]" in lines
