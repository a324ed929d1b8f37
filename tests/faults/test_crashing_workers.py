"""F1 and F8 in short form: workers that die, run out of memory or hang."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.faults.requests import ask, chat, events, predict
from tests.processes import ServerProcess

KILLS = 5
MIB = 1 << 20


def test_killed_worker_fails_only_its_own_requests(patient: ServerProcess) -> None:
    stop = threading.Event()
    outcomes: dict[str, list[int]] = {"fast": [], "digits": []}

    def load(model: str) -> None:
        while not stop.is_set():
            answer = ask(patient, "fast", "a b c") if model == "fast" else predict(patient)
            outcomes[model].append(answer.status_code)
            if answer.status_code == 503:
                assert answer.json()["error"]["code"] == "worker_failed"
                assert "retry-after" in answer.headers

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(load, model) for model in ("fast", "fast", "digits", "digits")]
        for _ in range(KILLS):
            pid = patient.worker_pid("fast")
            assert pid is not None
            done = len(outcomes["fast"])
            patient.wait_until(lambda done=done: len(outcomes["fast"]) > done + 2, 10)
            os.kill(pid, signal.SIGKILL)
            patient.wait_until(
                lambda pid=pid: (
                    patient.worker_pid("fast") not in (None, pid)
                    and ask(patient, "fast", "back").status_code == 200
                ),
                5,
            )
        stop.set()
        for job in jobs:
            job.result()
    assert set(outcomes["digits"]) == {200}
    assert set(outcomes["fast"]) <= {200, 503}
    assert outcomes["fast"].count(503) <= 2 * KILLS  # those that were in flight, two at a time
    assert outcomes["fast"].count(200) > KILLS


def test_a_stream_cut_by_a_crash_ends_with_an_error_and_done(patient: ServerProcess) -> None:
    body = chat("slow", "one two three four five", stream=True, max_tokens=100)
    with patient.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        lines = []
        for line in answer.iter_lines():
            lines.append(line)
            pid = patient.worker_pid("slow")
            if len(lines) == 5 and pid is not None:
                os.kill(pid, signal.SIGKILL)
    found = events(lines)
    assert found[-1] == "[DONE]"
    assert found[-2]["error"]["code"] == "worker_failed"


def test_model_that_crashes_on_a_request_opens_the_breaker(patient: ServerProcess) -> None:
    before = patient.rss()
    for _ in range(3):
        answer = ask(patient, "fast", "<<crash>>")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "worker_failed"
    patient.wait_until(
        lambda: patient.client.get("/health").json()["models"]["fast"] == "broken", 5
    )
    refused = ask(patient, "fast", "hello")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert predict(patient).status_code == 200
    assert patient.rss() - before < 50 * MIB


def test_out_of_memory_fails_one_request(patient: ServerProcess) -> None:
    before = patient.rss()
    answer = ask(patient, "fast", "<<oom>>")
    assert answer.status_code == 503
    patient.wait_until(lambda: ask(patient, "fast", "hello").status_code == 200, 5)
    assert patient.rss() - before < 50 * MIB


def test_hanging_worker_is_killed_after_the_deadline(faulty: ServerProcess) -> None:
    pid = faulty.worker_pid("fast")
    answer = ask(faulty, "fast", "<<hang>>")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    faulty.wait_until(lambda: faulty.worker_pid("fast") not in (None, pid), 5 + 3)
    faulty.wait_until(lambda: ask(faulty, "fast", "hello").status_code == 200, 5)
    assert predict(faulty).status_code == 200


def test_worker_dies_with_its_gateway(patient: ServerProcess) -> None:
    assert len(patient.workers()) == 3
    children = patient.children()
    patient.process.kill()
    patient.process.wait(10)

    def gone(pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    deadline = threading.Event()
    for _ in range(200):
        if all(gone(pid) for pid in children):
            return
        deadline.wait(0.05)
    raise AssertionError("children outlive their gateway")
