"""M1–M3: what is billed is what was made, exactly, whatever happens; quotas are never overrun."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import deploy_echo
from tests.faults.metering import (
    House,
    Seen,
    check_sums,
    housed,
    ledger,
    mixed,
    prepare,
    produced,
    tenants,
)
from tests.processes import serving

REQUESTS = int(os.environ.get("REQUESTS", "600"))  # `make soak-metering` takes 10,000


def by_request(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {row["request"]: row for row in rows if row["part"] == 0}
    assert len(found) == len(rows)  # UNIQUE
    return found


def check_finished(rows: dict[str, dict[str, Any]], seen: list[Seen]) -> None:
    """What clients saw to its end is in the ledger as the answer said."""
    for one in seen:
        if one.whole and one.status == 200:
            row = rows[one.request]
            assert row["outcome"] == "ok"
            assert row["tenant"] == one.tenant
            assert (row["input_tokens"], row["output_tokens"]) == one.usage
        elif one.request in rows and one.status != 200:
            assert rows[one.request]["output_tokens"] == 0


def test_billed_is_what_the_runtime_made(data: Path, database_url: str | None) -> None:
    """M1."""
    with housed(data, database_url) as house:
        seen = mixed(house, REQUESTS)
        assert {one.status for one in seen} == {200}
        rows = ledger(house.server)
        known = by_request(rows)
        assert len(known) == REQUESTS
        check_finished(known, seen)
        generated = [row for row in rows if row["task"] != "tokenize"]
        # The log counts a prompt for each of its samples; completions ask for two of each.
        samples = {"chat": 1, "complete": 2}
        taken = sum(row["input_tokens"] * samples[row["task"]] for row in generated)
        made = sum(row["output_tokens"] for row in generated)
        assert (taken, made) == produced(house.logs)
        check_sums(house.server, rows)


def test_billed_is_what_was_delivered_whatever_breaks(data: Path, database_url: str | None) -> None:
    """M2: M1 while workers are killed (F1), clients leave (F6), and the gateway dies (F2)."""
    logs = prepare(data, database_url)
    env = {"OPENMAAS_DATABASE_URL": database_url or ""}
    with serving(data, **env) as server:
        house = House(server, tenants(server), logs)
        stop = threading.Event()

        def kill_workers() -> None:
            while not stop.wait(0.7):
                pid = server.worker_pid("one")
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_workers)
        killer.start()
        seen = mixed(house, REQUESTS // 2, leave=True)
        stop.set()
        killer.join()
        server.wait_until(lambda: server.client.get("/health").status_code == 200, 40)
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(mixed, house, REQUESTS // 2, 1, True)
            server.wait_until(lambda: len(ledger(server)) > REQUESTS // 2, 30)
            server.process.kill()
            seen += last.result()
        server.process.wait()
    with serving(data, **env) as server:
        rows = ledger(server)
        known = by_request(rows)
        check_finished(known, seen)
        cut = [one for one in seen if one.status == 200 and not one.whole and one.request in known]
        assert cut
        for one in cut:
            row = known[one.request]
            assert row["outcome"] in ("cut", "ok", "worker_failed")
            if row["outcome"] == "cut":
                assert row["output_tokens"] >= one.read
        check_sums(server, rows)
        _, made = produced(logs)
        assert sum(row["output_tokens"] for row in rows) <= made


QUOTAS = [
    {"requests_per_day": 50},
    {"requests_in_all": 50},
    {"tokens_per_month": 50 * 17},
    {"tokens_in_all": 50 * 17},
    {"money_per_day": "0.05"},
    {"concurrent": 50},
]


@pytest.mark.parametrize(
    ("database_url", "level"),
    [("sqlite", "tenant"), ("sqlite", "project"), ("postgresql", "key")],
    indirect=["database_url"],
)
def test_a_hundred_at_once_on_a_quota_of_fifty(
    data: Path, database_url: str | None, level: str
) -> None:
    """M3: exactly fifty succeed, for every kind of quota, wherever it is set."""
    deploy_echo(data, "slow", database_url=database_url, tokens_per_second=5)
    with housed(data, database_url) as house:
        client = house.server.client
        client.post("/v1/prices", json={"model": "*", "rates": {"request": 1000}})
        for number, quota in enumerate(QUOTAS):
            tenant = f"t{number}"
            at: dict[str, Any] = {"tenant": {}, "project": {}, "key": {}} | {level: quota}
            client.post("/v1/tenants", json={"id": tenant, "quota": at["tenant"]})
            path = f"/v1/tenants/{tenant}"
            client.post(f"{path}/projects", json={"id": "p", "quota": at["project"]})
            key = {"name": "k", "project": "p", "quota": at["key"]}
            secret = client.post(f"{path}/keys", json=key).json()["secret"]
            answers = hundred(house, secret, "slow" if "concurrent" in quota else "one")
            counts = Counter(answer.status_code for answer in answers)
            assert counts == {200: 50, 429: 50}, (quota, counts)
            refused = [answer for answer in answers if answer.status_code == 429]
            check_refusals(refused, quota)
            if "concurrent" not in quota:
                again = hundred(house, secret)[0]
                assert again.status_code == 429
                assert again.json()["error"]["code"] == "insufficient_quota"
                assert again.headers["x-should-retry"] == "false"
            used = client.get(f"{path}/usage").json()["data"]
            assert used[0]["requests"] == 50


# Takes exactly 17 tokens, of which 9 are made.
SEVENTEEN = {"prompt": list(range(16, 16 + 8)), "max_tokens": 9, "ignore_eos": True}


def hundred(house: House, secret: str, model: str = "one") -> list[httpx.Response]:
    body = SEVENTEEN | {"model": model}
    headers = {"Authorization": f"Bearer {secret}"}
    limits = httpx.Limits(max_connections=100)
    gate = threading.Barrier(100)
    with (
        httpx.Client(base_url=house.server.url, timeout=60, limits=limits) as client,
        ThreadPoolExecutor(100) as pool,
    ):

        def one(_: int) -> httpx.Response:
            gate.wait()
            return client.post("/v1/completions", json=body, headers=headers)

        return list(pool.map(one, range(100)))


def check_refusals(refused: list[httpx.Response], quota: dict[str, Any]) -> None:
    for answer in refused:
        error = answer.json()["error"]
        assert error["code"] in ("rate_limit_exceeded", "insufficient_quota")
        if error["code"] == "insufficient_quota":
            assert answer.headers["x-should-retry"] == "false"
            name = next(iter(quota))
            assert name in error["message"]
            assert ("begins anew" in error["message"]) == (not name.endswith("in_all"))
        else:
            assert float(answer.headers["retry-after"]) >= 1


def test_a_rate_is_smooth_and_its_headers_true(data: Path) -> None:
    with housed(data) as house:
        server = house.server
        server.client.patch("/v1/tenants/acme", json={"quota": {"requests_per_minute": 60}})
        made = server.client.post("/v1/tenants/acme/keys", json={"name": "k"})
        secret = made.json()["secret"]

        def one() -> httpx.Response:
            headers = {"Authorization": f"Bearer {secret}"}
            body = SEVENTEEN | {"model": "one"}
            return server.client.post("/v1/completions", json=body, headers=headers)

        began = time.monotonic()
        for number in range(1, 6):  # one at a time: a header tells of nobody else's
            answer = one()
            grown = time.monotonic() - began  # at the most so many more: one each second
            left = int(answer.headers["x-ratelimit-remaining-requests"])
            assert 60 - number <= left <= 60 - number + grown
            assert answer.headers["x-ratelimit-reset-requests"] == f"{60 - left}s"
        answers = hundred(house, secret)
        seconds = time.monotonic() - began
        good = [answer for answer in answers if answer.status_code == 200]
        assert 55 <= len(good) <= 55 + seconds + 1
        assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"60"}
        for answer in answers:
            if answer.status_code == 429:
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["error"]["code"] == "rate_limit_exceeded"
                assert "x-should-retry" not in answer.headers
        # Smooth: the next is there long before the minute is over.
        server.wait_until(lambda: one().status_code == 200, 30)
