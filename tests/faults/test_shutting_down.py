"""F10: SIGTERM lets requests in flight finish, then ends every process."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.faults.requests import ask, events, in_flight
from tests.processes import ServerProcess


def test_sigterm_under_load(patient: ServerProcess) -> None:
    children = patient.children()  # the ledger's writer too

    def stream() -> list[str]:
        body = {
            "model": "slow",
            "messages": [{"role": "user", "content": "a b c"}],
            "stream": True,
            "max_tokens": 60,
        }
        with patient.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            return list(answer.iter_lines())

    with ThreadPoolExecutor(5) as pool:
        streams = [pool.submit(stream) for _ in range(4)]
        whole = pool.submit(ask, patient, "slow", "a b c", max_tokens=60)
        patient.wait_until(lambda: in_flight(patient, "slow") == 5, 10)
        os.kill(patient.process.pid, signal.SIGTERM)
        for one in streams:
            found = events(one.result(40))
            assert found[-1] == "[DONE]"
            assert found[-2]["choices"][0]["finish_reason"] == "length"
        assert whole.result(40).json()["usage"]["completion_tokens"] == 60
    assert patient.process.wait(10) == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)
