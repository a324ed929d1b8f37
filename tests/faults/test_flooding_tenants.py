"""T4: one tenant floods; the others are not refused, and wait for their own share alone.

The suite asserts on counts and on the order of service. How long the others wait, beside how long
they wait without the flood, is measured by ``make soak-flood``.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import deploy_echo
from tests.faults.metering import TENANTS, tenants
from tests.faults.requests import chat, in_flight
from tests.processes import ServerProcess, serving

FLOOD, *CALM = TENANTS
EACH = 15  # requests of one that is calm; the flood sends ten times as many
QUEUE = 96  # requests that the model holds: less than the flood alone
TOKENS = 20  # that each request makes
# --- of `make soak-flood` ---
SECONDS = float(os.environ.get("FLOOD_SECONDS", "0"))  # of each run; it takes 20
ROUNDS = 3
RATE = 10  # requests a second of one that is calm


@contextmanager
def housed(
    data: Path, fairness: str, **options: Any
) -> Iterator[tuple[ServerProcess, dict[str, str]]]:
    """A model and a key of each tenant."""
    deploy_echo(data, "slow", **options)
    env = {"OPENMAAS_FAIRNESS": fairness, "OPENMAAS_LIMITS_QUEUE": str(QUEUE)}
    with serving(data, **env) as server:
        yield server, tenants(server)


def body(tenant: str) -> dict[str, Any]:
    """Tenants' prompts differ in length, so that the model's own log tells whose each was."""
    return chat("slow", "abc" * (1 + TENANTS.index(tenant)), max_tokens=TOKENS, ignore_eos=True)


def order_of_service(log: Path, lengths: dict[int, str]) -> list[str]:
    """Whose sequences the model began, one after the other."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return [lengths[entry["in"]] for entry in entries if entry["in"] in lengths]


def served(
    server: ServerProcess, keys: dict[str, str]
) -> tuple[dict[str, Counter[int]], list[str]]:
    """What becomes of a flood and of the calm that come while the model is taken, and in which
    order the model begins them."""
    statuses: dict[str, list[int]] = {tenant: [] for tenant in TENANTS}
    limits = httpx.Limits(max_connections=400)
    with (
        httpx.Client(base_url=server.url, timeout=120, limits=limits) as client,
        ThreadPoolExecutor(EACH * (10 + len(CALM))) as pool,
    ):

        def one(tenant: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {keys[tenant]}"}
            answer = client.post("/v1/chat/completions", json=body(tenant), headers=headers)
            statuses[tenant].append(answer.status_code)
            return answer

        lengths = {one(tenant).json()["usage"]["prompt_tokens"]: tenant for tenant in TENANTS}
        log = server.data / "tokens.jsonl"
        before = len(order_of_service(log, lengths))
        taken = chat("slow", "the one place is taken <<slow>>", max_tokens=4000, stream=True)
        with server.client.stream("POST", "/v1/chat/completions", json=taken):
            server.wait_until(lambda: in_flight(server, "slow") == 1, 10)
            for _ in range(10 * EACH):
                pool.submit(one, FLOOD)
            refused = 1 + 10 * EACH - QUEUE
            server.wait_until(lambda: statuses[FLOOD].count(503) == refused, 60)
            for tenant in CALM * EACH:
                pool.submit(one, tenant)
            # Each of the calm either waits now, at the cost of one of the flood, or was refused.
            came = refused + len(CALM) * EACH
            server.wait_until(lambda: sum(it.count(503) for it in statuses.values()) == came, 60)
        pool.shutdown()
    counts = {tenant: Counter(found) for tenant, found in statuses.items()}
    return counts, order_of_service(log, lengths)[before:]


@pytest.fixture
def one_at_a_time(data: Path) -> dict[str, Any]:
    """Options of a model that runs one sequence at a time, a thousand tokens a second."""
    return {"slots": 1, "tokens_per_second": 1000, "token_log": str(data / "tokens.jsonl")}


def test_others_are_not_refused_and_wait_for_their_share_alone(
    data: Path, one_at_a_time: dict[str, Any]
) -> None:
    with housed(data, "tokens", **one_at_a_time) as (server, keys):
        statuses, order = served(server, keys)
    for tenant in CALM:
        assert statuses[tenant] == {200: 1 + EACH}
    assert len(order) == QUEUE - 1
    # Three tenants in turn: when the calm have got all of theirs, the flood has got as much as
    # one of them.
    of_calm = max(at for at, tenant in enumerate(order) if tenant in CALM) + 1
    assert abs(of_calm - EACH * len(TENANTS)) <= 3
    for at in range(of_calm):
        counts = Counter(order[:at])
        assert max(counts.values(), default=0) - min(counts[one] for one in TENANTS) <= 3


def test_by_arrival_the_flood_has_everything(data: Path, one_at_a_time: dict[str, Any]) -> None:
    """What the test above sees is not there by itself."""
    with housed(data, "arrival", **one_at_a_time) as (server, keys):
        statuses, order = served(server, keys)
    for tenant in CALM:
        assert statuses[tenant] == {200: 1, 503: EACH}
    assert set(order) == {FLOOD}


@pytest.mark.skipif(not SECONDS, reason="make soak-flood")
@pytest.mark.parametrize("fairness", ["tokens", "arrival"])
def test_others_wait_at_the_most_twice_as_long(
    data: Path, fairness: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of eight sequences at once, eighty requests a second; the flood asks for more."""
    with housed(data, fairness, slots=8, tokens_per_second=200) as (server, keys):
        waits: dict[int, list[float]] = {1: [], 10: []}
        for _ in range(ROUNDS):
            for times, found in waits.items():
                found += beside_a_flood(server.url, keys, times)
    calm, flooded = (p99(waits[times]) for times in (1, 10))
    with capsys.disabled():
        print(
            f"\n{fairness}: p99 of the others {calm * 1000:.0f} ms alone, {flooded * 1000:.0f} ms "
            f"beside a flood of ten times: {flooded / calm:.2f} times ({len(waits[10])} requests)"
        )
    assert fairness == "arrival" or flooded <= 2 * calm


def beside_a_flood(url: str, keys: dict[str, str], times: int) -> list[float]:
    """How long each request of the calm took; one that was refused took for ever.

    Args:
        times: what the flood asks for, in what one of the calm does.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(TENANTS), mp_context=context) as pool:  # none slows another
        flood = pool.submit(paced, url, keys[FLOOD], FLOOD, RATE * times)
        calm = [pool.submit(paced, url, keys[tenant], tenant, RATE) for tenant in CALM]
        flood.result()
        return [seconds for one in calm for seconds in one.result()]


def paced(url: str, key: str, tenant: str, rate: float) -> list[float]:
    """Seconds that each request of one tenant took, begun at random moments."""
    return asyncio.run(_paced(url, key, tenant, rate))


async def _paced(url: str, key: str, tenant: str, rate: float) -> list[float]:
    rng = random.Random(tenant)
    limits = httpx.Limits(max_connections=QUEUE * 2)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=60
    ) as client:

        async def one() -> float:
            began = time.monotonic()
            answer = await client.post("/v1/chat/completions", json=body(tenant))
            return time.monotonic() - began if answer.status_code == 200 else math.inf

        asked, due = [], time.monotonic()
        until = due + SECONDS
        while (due := due + rng.expovariate(rate)) < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            asked.append(asyncio.create_task(one()))
        return list(await asyncio.gather(*asked))


def p99(waits: list[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.99)]
