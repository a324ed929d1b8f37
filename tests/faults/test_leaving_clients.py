"""F6: a client that goes away frees its place, streaming or not."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import echoes
from tests.faults.requests import chat, in_flight
from tests.processes import ServerProcess


@pytest.fixture(scope="module")
def patient(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("left") / "data"
    shutil.copytree(digits_only, data)
    with echoes(data) as running:
        yield running


def produced(server: ServerProcess) -> int:
    """Tokens in the slow model's own log."""
    log = server.data / "tokens.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def stays(server: ServerProcess) -> bool:
    """Whether the model has stopped producing: two looks, ten tokens' time apart, agree."""
    before = produced(server)
    threading.Event().wait(0.5)
    return produced(server) == before


def test_leaving_a_stream_frees_its_place(patient: ServerProcess) -> None:
    body = chat("slow", "a b c d", stream=True, max_tokens=4000)
    with patient.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()  # kept: dropping it would close the connection
        for _ in range(5):
            next(lines)
        assert in_flight(patient, "slow") == 1
    patient.wait_until(lambda: in_flight(patient, "slow") == 0, 1)
    patient.wait_until(lambda: stays(patient), 3)


def test_leaving_without_streaming_frees_its_place(patient: ServerProcess) -> None:
    body = chat("slow", "a b c d", max_tokens=4000)
    headers = {"Authorization": f"Bearer {patient.key}"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{patient.url}/v1/chat/completions", json=body, headers=headers, timeout=0.7)
    patient.wait_until(lambda: in_flight(patient, "slow") == 0, 1)
    patient.wait_until(lambda: stays(patient), 3)


def test_token_log_is_what_was_delivered(patient: ServerProcess) -> None:
    before = produced(patient)
    answer = patient.client.post("/v1/chat/completions", json=chat("slow", "a b", max_tokens=7))
    assert answer.json()["usage"]["completion_tokens"] == 7
    assert produced(patient) - before == 7


def long_task() -> dict[str, object]:
    """Three texts for the slow model, which takes twenty seconds for each."""
    text = "\n".join(f"This is sentence {number} of a long report." for number in range(40))
    return {"model": "slow", "input": [text] * 3, "length": "long"}


def test_leaving_a_task_frees_the_places_of_all_its_requests(patient: ServerProcess) -> None:
    headers = {"Authorization": f"Bearer {patient.key}"}
    url = f"{patient.url}/v1/summarize"

    def impatient() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=long_task(), headers=headers, timeout=3)

    caller = threading.Thread(target=impatient)
    caller.start()
    patient.wait_until(lambda: in_flight(patient, "slow") == 3, 3)
    caller.join()
    patient.wait_until(lambda: in_flight(patient, "slow") == 0, 1)
    patient.wait_until(lambda: stays(patient), 3)


def test_leaving_a_tasks_stream_frees_its_place(patient: ServerProcess) -> None:
    body = long_task() | {"stream": True}
    with patient.client.stream("POST", "/v1/summarize", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert in_flight(patient, "slow") == 1
    patient.wait_until(lambda: in_flight(patient, "slow") == 0, 1)
    patient.wait_until(lambda: stays(patient), 3)
