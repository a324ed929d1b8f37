"""Rollouts under load: no call is lost, shares are as stated, and every answer says who gave it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from openmaas.client import ApiError, Client
from tests.conftest import deploy_echo
from tests.processes import ServerProcess, cli, serving
from tests.stores import another_version, deploy

CLIENTS = 8
ROW = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64}]}


class Got(NamedTuple):
    began: float
    status: int
    body: str  # the version that the body names
    header: str  # … and the header


class Load:
    """Clients that call one model without a pause, and what they got."""

    def __init__(self, server: ServerProcess, path: str, body: dict[str, Any]) -> None:
        self.got: list[Got] = []
        self._server = server
        self._path = path
        self._body = body
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Load]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            jobs = [pool.submit(self._call) for _ in range(CLIENTS)]
            try:
                yield self
            finally:
                self._stop.set()
            for job in jobs:
                job.result()

    def _call(self) -> None:
        headers = {"Authorization": f"Bearer {self._server.key}"}
        with httpx.Client(base_url=self._server.url, headers=headers, timeout=60) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                answer = client.post(self._path, json=self._body)
                told = answer.json().get("model_version", "") if answer.is_success else ""
                header = answer.headers.get("x-openmaas-model", "")
                self.got.append(Got(began, answer.status_code, told, header))

    def next(self, count: int) -> list[Got]:
        """What the next so many calls that begin from now on get."""
        now = time.monotonic()
        while len(found := [one for one in list(self.got) if one.began > now]) < count:
            assert time.monotonic() < now + 60, f"{len(found)} answers, {self._server.tail()}"
            time.sleep(0.02)
        return found


def shares(got: list[Got]) -> dict[str, float]:
    return {version: n / len(got) for version, n in Counter(one.body for one in got).items()}


@pytest.fixture
def two(data: Path) -> Path:
    """Two versions of digits, of which the first is deployed."""
    deploy(data, "digits")
    another_version(data, "digits")
    return data


def test_a_rollout_under_load_loses_nothing(two: Path) -> None:
    with serving(two) as server, Client(server.url, server.key, timeout=120) as client:
        rollouts = client.deployments
        with Load(server, "/v2/models/digits/infer", ROW).running() as load:
            assert shares(load.next(100)) == {"1": 1.0}
            rollouts.point("digits", {1: 90, 2: 10})
            canary = shares(load.next(600))
            assert abs(canary["2"] - 0.1) <= 0.02
            rollouts.promote("digits", 2)
            assert shares(load.next(100)) == {"2": 1.0}
            back = rollouts.roll_back("digits")
            assert back["targets"] == [{"version": 1, "weight": 100.0}]
            assert shares(load.next(100)) == {"1": 1.0}
        assert Counter(one.status for one in load.got).keys() == {200}
        assert all(one.header == f"digits@{one.body}" for one in load.got)
        usage = server.client.get("/v1/usage?by=version").json()["data"]
        billed = {one["version"]: one["requests"] for one in usage}
        assert billed == Counter(one.body for one in load.got)  # and each is billed as what it was


def test_a_version_that_cannot_be_loaded_changes_nothing(two: Path) -> None:
    with serving(two) as server, Client(server.url, server.key, timeout=120) as client:
        client.deployments.deploy("digits", 2, live=False, options={"colour": "blue"})
        with Load(server, "/v2/models/digits/infer", ROW).running() as load:
            with pytest.raises(ApiError, match="colour") as caught:
                client.deployments.promote("digits", 2)
            assert caught.value.status == 409
            assert shares(load.next(50)) == {"1": 1.0}
        assert {one.status for one in load.got} == {200}
        assert client.deployments.alias("digits")["pending"] is None


def test_a_rollout_goes_on_after_the_gateway_was_killed(two: Path) -> None:
    with serving(two) as server:
        with Client(server.url, server.key) as client:
            client.deployments.point("digits", {1: 50, 2: 50})
            client.deployments.deploy("digits", 2, live=False, replicas={"min": 1, "max": 1})
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
    with serving(two) as server:
        answers = [server.client.post("/v2/models/digits/infer", json=ROW) for _ in range(20)]
        assert Counter(one.json()["model_version"] for one in answers) == {"1": 10, "2": 10}
        assert "version 2 50 %" in cli(two, "status")


@pytest.fixture
def echoes(data: Path) -> Path:
    """Two versions of a chat model, both the echo runtime; the first one is deployed."""
    deploy_echo(data, "talk")
    another_version(data, "talk")
    return data


CHAT = {"model": "talk", "max_tokens": 4, "messages": [{"role": "user", "content": "a b c"}]}


def test_a_bad_canary_is_taken_back_by_itself(echoes: Path) -> None:
    with serving(echoes) as server, Client(server.url, server.key) as client:
        bad = {"task": "chat", "fault": "crash"}
        client.deployments.deploy("talk", 2, runtime="echo", options=bad, live=False)
        bounds = {"errors": 0.2, "calls": 2}
        client.deployments.point("talk", {1: 90, 2: 10}, bounds=bounds)
        with Load(server, "/v1/chat/completions", CHAT).running():
            server.wait_until(lambda: len(client.deployments.alias("talk")["targets"]) == 1, 60)
            alias = client.deployments.alias("talk")
        assert alias["targets"] == [{"version": 1, "weight": 100.0}]
        assert "rolled back: " in alias["detail"]
        assert "version 2" in alias["detail"]
        acts = server.client.get("/v1/audit").json()["data"]
        assert any(one["act"] == "alias.roll_back" for one in acts)
        assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_shadow_traffic_is_compared_and_never_returned(echoes: Path) -> None:
    with serving(echoes) as server, Client(server.url, server.key) as client:
        other = {"task": "chat", "answer_tokens": 2}
        client.deployments.deploy("talk", 2, runtime="echo", options=other, live=False)
        client.deployments.point("talk", {1: 100}, shadow={"version": 2, "share": 1.0})
        server.wait_until(
            lambda: all(one["state"] == "ready" for one in client.deployments.list()), 30
        )
        for text, tokens in (("a b c", 4), ("a b", 2)) * 5:
            body = CHAT | {
                "max_tokens": tokens,
                "messages": [{"role": "user", "content": text}],
            }
            answer = server.client.post("/v1/chat/completions", json=body)
            assert answer.headers["x-openmaas-model"] == "talk@1"
            assert answer.json()["usage"]["completion_tokens"] == tokens
        server.wait_until(lambda: client.deployments.alias("talk")["comparison"]["calls"] == 10, 10)
        seen = client.deployments.alias("talk")["comparison"]
        assert (seen["same"], seen["different"], seen["failed"]) == (5, 5, 0)
        usage = server.client.get("/v1/usage?by=version").json()["data"]
        assert {one["version"]: one["requests"] for one in usage} == {"1": 10}  # nobody pays for it


def test_aliases_versions_and_sticky_keys(echoes: Path) -> None:
    with serving(echoes) as server, Client(server.url, server.key) as client:
        client.deployments.deploy("talk", 2, runtime="echo", options={"task": "chat"}, live=False)
        client.deployments.point("talk", {2: 100}, alias="next")
        client.deployments.point("talk", {1: 50, 2: 50})

        def version(model: str, **headers: str) -> str:
            answer = server.client.post(
                "/v1/chat/completions", json=CHAT | {"model": model}, headers=headers
            )
            assert answer.status_code == 200, answer.text
            return str(answer.headers["x-openmaas-model"])

        assert [version("talk@1"), version("talk@2"), version("talk@next")] == [
            "talk@1", "talk@2", "talk@2",
        ]  # fmt: skip
        assert {version("talk") for _ in range(4)} == {"talk@1", "talk@2"}
        for key in ("ann", "bob"):
            assert len({version("talk", **{"x-openmaas-sticky-key": key}) for _ in range(6)}) == 1
        for model in ("talk@3", "talk@nope", "talk@", "talk@999999999999999"):
            answer = server.client.post("/v1/chat/completions", json=CHAT | {"model": model})
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "model_not_found"


def test_what_is_in_use_cannot_be_removed(echoes: Path) -> None:
    with serving(echoes) as server, Client(server.url, server.key) as client:
        client.deployments.deploy("talk", 2, runtime="echo", options={"task": "chat"}, live=False)
        client.deployments.point("talk", {2: 100}, alias="next")
        for refused in (
            lambda: client.deployments.remove_version("talk", 2),
            lambda: client.deployments.undeploy("talk", 2),
            lambda: client.deployments.remove_alias("talk", "live"),
            lambda: client.deployments.roll_back("talk"),
        ):
            with pytest.raises(ApiError) as caught:
                refused()
            assert caught.value.status == 409, caught.value
        for weights in ({1: 50, 2: 40}, {1: 100, 2: 10}, {}):
            with pytest.raises(ApiError) as caught:
                client.deployments.point("talk", weights)
            assert caught.value.status == 400
        with pytest.raises(ApiError) as caught:
            client.deployments.point("talk", {7: 100})
        assert caught.value.status == 404
        client.deployments.remove_alias("talk", "next")
        client.deployments.undeploy("talk", 2)
        client.deployments.remove_version("talk", 2)
        assert "2" not in {
            line.split()[1] for line in cli(echoes, "models", "list").splitlines()
            if line.startswith("talk ")
        }  # fmt: skip


def test_a_worker_that_stops_is_found_by_its_missed_beat(echoes: Path) -> None:
    with serving(echoes, OPENMAAS_LIMITS_STEP_SECONDS="2") as server:
        pid = server.worker_pid("talk")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # nobody calls it: no deadline would tell
        server.wait_until(lambda: server.worker_pid("talk") not in (None, pid), 15)
        server.wait_until(
            lambda: server.client.post("/v1/chat/completions", json=CHAT).status_code == 200, 15
        )
        # and one whose engine hangs in a step, long before its callers' deadline
        began = time.monotonic()
        hang = CHAT | {"messages": [{"role": "user", "content": "<<hang>>"}]}
        answer = server.client.post("/v1/chat/completions", json=hang)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "worker_failed"
        assert time.monotonic() - began < 60  # the request's own deadline is 300 s
        assert "it hung" in server.tail() or "hangs" in server.tail()
