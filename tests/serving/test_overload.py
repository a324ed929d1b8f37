"""L3 in short form: beyond the queue, refusals at once with Retry-After, and no resets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.conftest import deploy_echo
from tests.processes import serving


def test_a_full_queue_refuses_with_retry_after(data: Path) -> None:
    deploy_echo(data, "slow", tokens_per_second=50)
    with serving(data, OPENMAAS_LIMITS_QUEUE="4") as server, ThreadPoolExecutor(16) as pool:

        def ask(_: int) -> httpx.Response:
            body = {
                "model": "slow",
                "messages": [{"role": "user", "content": "a b"}],
                "max_tokens": 50,
            }
            return server.client.post("/v1/chat/completions", json=body)

        answers = list(pool.map(ask, range(16)))
        refused = [one for one in answers if one.status_code == 503]
        assert {one.status_code for one in answers} == {200, 503}
        assert len(refused) == 12
        for one in refused:
            assert one.json()["error"]["code"] == "overloaded"
            assert 1 <= int(one.headers["retry-after"]) <= 60
        assert ask(0).status_code == 200  # the places are free again
