"""What a server tells of its workers' confinement, and replicas of a tenant's own through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from openmaas.placement import sandbox
from tests.conftest import deploy_echo
from tests.faults.requests import chat
from tests.processes import ServerProcess, cli, serving
from tests.stores import deploy

TENANTS = ("acme", "beta", "gamma")
DEDICATED = ("acme", "beta")


@pytest.fixture
def house(data: Path) -> Iterator[ServerProcess]:
    deploy_echo(data, "echo")
    deploy(data, "digits")
    with serving(data) as server:
        yield server


def keys(server: ServerProcess) -> dict[str, dict[str, str]]:
    found = {}
    for tenant in TENANTS:
        server.client.post("/v1/tenants", json={"id": tenant}).raise_for_status()
        body = {"name": "k", "scopes": ["inference", "manage"]}
        made = server.client.post(f"/v1/tenants/{tenant}/keys", json=body).json()
        found[tenant] = {"Authorization": f"Bearer {made['secret']}"}
    return found


def deployments(server: ServerProcess, headers: dict[str, str] | None = None) -> list[Any]:
    found: list[Any] = server.client.get("/v1/deployments", headers=headers).json()["data"]
    return found


def asked(server: ServerProcess, headers: dict[str, str]) -> httpx.Response:
    return server.client.post("/v1/chat/completions", json=chat("echo", "Hi"), headers=headers)


@pytest.mark.skipif(
    bool(sandbox.lacking(sandbox.available())), reason="this machine cannot confine"
)
def test_it_says_that_workers_are_confined(house: ServerProcess) -> None:
    house.wait_until(lambda: house.client.get("/health").json()["confined"] is not None, 30)
    assert house.client.get("/health").json()["confined"] is True
    assert asked(house, {}).status_code == 200
    house.wait_until(lambda: {one["state"] for one in deployments(house)} == {"ready"}, 30)
    said = cli(house.data, "status")
    assert "confined without" not in said
    assert str(house.worker_pid("echo")) in said


def test_tenants_have_workers_of_their_own(house: ServerProcess) -> None:
    mine = keys(house)
    policy = "/v1/tenants/acme/privacy"
    refused = house.client.put(policy, json={"dedicated": True}, headers=mine["acme"])
    assert refused.status_code == 403  # it takes everybody's memory
    for tenant in DEDICATED:
        path = f"/v1/tenants/{tenant}/privacy"
        house.client.put(path, json={"dedicated": True}).raise_for_status()

    def settled() -> bool:  # keys are asked after within half a second
        for tenant in TENANTS:
            assert asked(house, mine[tenant]).status_code == 200
        return {one["serves"] for one in deployments(house)} == {None, *DEDICATED}

    house.wait_until(settled, 30)
    seen = [one for one in deployments(house) if one["model"] == "echo"]
    pids = [worker["pid"] for one in seen for worker in one["workers"]]
    assert len(set(pids)) == len(pids) == 3
    before = {one["serves"]: _done(house, one["serves"]) for one in seen}
    assert asked(house, mine["acme"]).status_code == 200
    after = {one["serves"]: _done(house, one["serves"]) for one in seen}
    assert after["acme"] == before["acme"] + 1
    assert (after["beta"], after[None]) == (before["beta"], before[None])
    # A tenant sees its own workers, and nobody else's.
    assert {one["serves"] for one in deployments(house, mine["acme"])} == {"acme"}
    assert deployments(house, mine["gamma"]) == []
    # By another way to the model, too.
    tokens = {"model": "echo", "prompt": "Hi", "max_tokens": 2}
    path = "/v1/completions"
    assert house.client.post(path, json=tokens, headers=mine["acme"]).status_code == 200
    assert _done(house, None) == after[None]
    assert _done(house, "acme") == after["acme"] + 1


def _done(server: ServerProcess, serves: str | None) -> float:
    """Calls that ended in a tenant's own workers, or in those for all."""
    label = "echo" if serves is None else f"echo (for {serves})"
    wanted = f'openmaas_requests_total{{model="{label}"'
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(wanted))
