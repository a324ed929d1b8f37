"""Sessions that are put away, killed, resumed, billed, bounded, and nobody else's."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.processes import ServerProcess, serving
from tests.training.test_sessions import LOSS, network, rows, values

from openmaas.client import ApiError, Client, ClientError
from openmaas.client.sessions import Session

X, Y = rows(16)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("kept"), OPENMAAS_TRAINING_SESSIONS="1") as running:
        yield running


@pytest.fixture(scope="module")
def client(house: ServerProcess) -> Iterator[Client]:
    with Client(house.url, house.key) as made:
        yield made


def opened(client: Client, **more: Any) -> Session:
    return client.sessions.open(network(8, 3), loss=LOSS, optimizer="adam", **more)


def learn(session: Session, steps: int) -> None:
    for _ in range(steps):
        session.forward_backward_async(X, Y)
        last = session.optim_step_async()
    last.result()


def processes(server: ServerProcess) -> list[int]:
    """Of sessions."""
    found = []
    for pid in server.children():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"session_worker" in line:
            found.append(pid)
    return found


def test_an_idle_session_is_put_away_and_goes_on(house: ServerProcess, client: Client) -> None:
    with opened(client, idle_seconds=1) as session:
        learn(session, 3)
        session.forward_backward(X, Y)  # waits for a step: that must be kept too
        session.save("mid")
        house.wait_until(lambda: session.refresh()["state"] == "idle", 20)
        house.wait_until(lambda: not processes(house), 20)
        told = session.refresh()
        assert (told["step"], told["checkpoint"]) == (3, "auto")
        answer = session.optim_step()  # its number fits: nothing was lost
        assert (answer.step, answer.resumed_from_step) == (4, 3)
        assert session.refresh()["state"] == "open"
        weights = values(session.weights())
        session.load("mid")  # what an uninterrupted one would have had
        session.optim_step()
        for name, array in values(session.weights()).items():
            np.testing.assert_array_equal(array, weights[name])


@pytest.mark.slow
def test_a_session_whose_process_dies(house: ServerProcess, client: Client) -> None:
    with opened(client) as session:
        learn(session, 2)
        session.save("two")
        learn(session, 3)
        (pid,) = processes(house)
        files = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [one for one in files if "openmaas.db" in one]  # nothing of the server's
        assert house.key.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        os.kill(pid, signal.SIGKILL)
        house.wait_until(lambda: session.refresh()["state"] == "idle", 20)
        with pytest.raises(ApiError) as error:
            session.forward_backward(X, Y)  # its number is one of what was lost
        assert error.value.status == 409
        assert "step 2" in error.value.message
        assert session.resume() == 2
        learn(session, 1)
        assert session.step == 3

        (pid,) = processes(house)  # … and one that dies under a call
        os.kill(pid, signal.SIGSTOP)
        waiting = [session.forward_backward_async(X, Y), session.optim_step_async()]
        os.kill(pid, signal.SIGKILL)
        for one in waiting:
            with pytest.raises(ClientError):
                one.result()
        path = f"/v1/training/sessions/{session.id}/predict"
        house.wait_until(lambda: session.refresh()["state"] == "idle", 20)
        answer = house.client.post(path, json={"inputs": X.tolist(), "expected_step": 3})
        assert answer.status_code == 409
        assert "is at step 2" in answer.json()["error"]["message"]
        answer = house.client.post(path, json={"inputs": X.tolist()}).json()
        assert answer["step"] == 2


@pytest.mark.slow
def test_a_server_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.url, server.key) as client:
        session = opened(client)
        learn(session, 2)
        session.save("kept")
        weights = values(session.weights())
        learn(session, 2)
        (pid,) = processes(server)
        sequence = session.refresh()["sequence"]
        server.process.kill()
        server.process.wait()
        session.leave()
    with serving(tmp_path) as server, Client(server.url, server.key) as client:
        server.wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20)  # it went with its server
        path = f"/v1/training/sessions/{session.id}"
        told = server.client.get(path).json()
        assert (told["state"], told["step"], told["error"]["code"]) == ("idle", 2, "lost")
        answer = server.client.post(f"{path}/optim_step", json={"sequence": sequence})
        assert answer.status_code == 409
        assert "is at step 2" in answer.text
        answer = server.client.post(f"{path}/weights", json={"names": ["last/bias"]}).json()
        assert answer["resumed_from_step"] == 2
        np.testing.assert_allclose(answer["data"][0]["data"], weights["last/bias"], rtol=1e-6)
        again = client.sessions.get(session.id)
        learn(again, 1)
        assert again.step == 3
        again.close()
        assert server.client.post(f"{path}/weights", json={}).status_code == 409
        assert not list((tmp_path / "sessions").iterdir())


def test_another_tenants_session_looks_absent(house: ServerProcess, client: Client) -> None:
    client.tenants.create("other")
    secret, _ = client.tenants.create_key("other", "k", scopes=["train", "inference"])
    absent = "session_" + "0" * 24
    with (
        opened(client) as session,
        httpx.Client(base_url=house.url, headers={"x-api-key": secret}) as other,
    ):
        paths = {
            path.removeprefix("/v1/training/sessions/{session}"): list(methods)
            for path, methods in house.client.get("/openapi.json").json()["paths"].items()
            if path.startswith("/v1/training/sessions/{session}")
        }
        assert len(paths) == 12
        bodies: dict[str, Any] = {"/calls": {"calls": [{"call": "optim_step"}]}}
        for path, methods in paths.items():
            for method in methods:
                answers = [
                    other.request(
                        method, f"/v1/training/sessions/{id}{path}",
                        json=None if method == "get" else bodies.get(path, {}),
                    )
                    for id in (session.id, absent)
                ]  # fmt: skip
                assert [one.status_code for one in answers] == [404, 404], (method, path)
                assert answers[0].text.replace(session.id, absent) == answers[1].text
        assert other.get("/v1/training/sessions").json()["data"] == []
        assert session.refresh()["state"] == "open"


def test_compute_is_in_the_ledger_and_under_its_quota(house: ServerProcess, client: Client) -> None:
    client.tenants.set_price("paid", second=1_000_000)
    client.tenants.create("paying", quota={"compute_seconds_in_all": 2})
    secret, _ = client.tenants.create_key("paying", "k", scopes=["train"])
    with Client(house.url, secret) as own:
        session = opened(own, model="paid", idle_seconds=60)
        big = np.repeat(X, 4000, axis=0), np.repeat(Y, 4000)

        def use_up() -> ApiError:
            while True:
                try:
                    session.forward_backward(*big)
                except ApiError as error:
                    # until its own seconds are in the ledger they may be another's, for a moment
                    if error.code != "rate_limit_exceeded":
                        return error

        error = use_up()
        assert (error.status, error.code) == (429, "insufficient_quota")
        assert "compute_seconds_in_all" in error.message
        busy = session.refresh()["seconds"]
        session.close()
        with pytest.raises(ApiError, match="compute_seconds_in_all"):
            opened(own)
    (total,) = client.tenants.usage("paying", by=["model", "task", "version"])
    assert (total["model"], total["task"], total["version"]) == ("paid", "train", session.id)
    assert total["seconds"] == int(np.ceil(busy))
    assert total["seconds"] >= 2
    assert float(total["cost"]) == total["seconds"]
    assert total["requests"] == 0


@pytest.mark.slow
def test_the_longest_idle_gives_way(house: ServerProcess, client: Client) -> None:
    with opened(client) as first, opened(client) as second:
        assert [one.refresh()["state"] for one in (first, second)] == ["idle", "open"]
        assert len(processes(house)) == 1
        learn(first, 1)
        assert first.step == 1
        assert second.refresh()["state"] == "idle"
