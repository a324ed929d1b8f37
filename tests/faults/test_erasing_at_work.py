"""A tenant is erased while processes work for it: all of them end, and another tenant's go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from openmaas.client import Client
from openmaas.client.datasets import Dataset
from openmaas.client.sessions import Session
from openmaas.client.training import Job
from tests.batches import begin, line, look
from tests.conftest import deploy_echo
from tests.privacy.searching import places
from tests.privacy.test_service import CHAT, House, chat
from tests.processes import ServerProcess, serving

RECIPE: dict[str, Any] = {
    "recipe": "text_embeddings", "parameters": {"dimensions": 8, "length": 16},
}  # fmt: skip
SLOW = 5.0  # tokens a second


class Work(NamedTuple):
    """What goes on for one tenant."""

    client: Client
    http: httpx.Client
    dataset: Dataset
    session: Session
    batch: str


@pytest.fixture
def server(data: Path) -> Iterator[ServerProcess]:
    deploy_echo(data)
    deploy_echo(data, "slow", tokens_per_second=SLOW)
    with serving(data) as running:
        yield running


def test_what_works_for_a_tenant_ends(server: ServerProcess, tmp_path: Path) -> None:
    with ExitStack() as stack:
        house = House(server, stack)
        acme, other = (begun(house, name, tmp_path) for name in ("acme", "other"))
        running, waiting = (endless(work) for work in (acme, other))
        server.wait_until(lambda: running.refresh().state == "running", 60)
        stream = stack.enter_context(acme.http.stream("POST", CHAT, json=talk("acme", stream=True)))
        lines = stream.iter_lines()
        assert next(lines)
        before = set(server.children())
        assert places(server.data, "canary-acme-row")  # in memory: jobs and sessions work with it

        answer = acme.http.post("/v1/tenants/acme/erase", json={"confirm": "acme"})
        assert answer.status_code == 200, answer.text
        done = house.done(answer.json()["id"])
        assert done["found"] is not None
        assert places(server.data, "canary-acme-") == []
        with pytest.raises(httpx.HTTPError):  # it would have gone on for minutes
            for _ in lines:
                pass
        assert acme.http.get("/v1/models").status_code == 401
        # The worker of its model, the job's process and the session's.
        server.wait_until(lambda: len(before - set(server.children())) >= 3, 20)

        server.wait_until(lambda: waiting.refresh().state == "running", 60)  # there is room now
        rows = other.session.forward_backward(rows=[0, 1, 2, 3])
        assert rows.loss > 0
        assert label(other) == "canary-other-label"
        assert look(other.http, other.batch)["status"] == "in_progress"
        waiting.cancel()
        other.session.close()


def begun(house: House, name: str, folder: Path) -> Work:
    http = house.tenant(name)
    key = http.headers["Authorization"].removeprefix("Bearer ")
    client = house.clients.enter_context(Client(house.server.url, key))
    file = folder / f"{name}.csv"
    rows = [f"the sea {at} canary-{name}-row,canary-{name}-label\n" for at in range(30)]
    file.write_text("text,label\n" + "".join(rows) + "a wood,wood\n" * 30)
    dataset = client.datasets.upload(file, target="label")
    client.training.train(
        "seas", dataset, target="label", promote=True, fit={"epochs": 20}, **RECIPE
    )
    session = client.sessions.open(dataset=dataset, target="label", **RECIPE)
    session.forward_backward(rows=[0, 1])
    server = house.server
    lines = [line(str(at), talk(name), CHAT) for at in range(3)]
    batch = begin(http, lines)
    server.wait_until(lambda: look(http, batch)["status"] == "in_progress", 20)
    work = Work(client, http, dataset, session, batch)
    assert label(work)
    return work


def endless(work: Work) -> Job:
    return work.client.training.train(
        "longer", work.dataset, wait=False, target="label", **RECIPE,
        fit={"epochs": 100_000, "batch_size": 8, "callbacks": []},
    )  # fmt: skip


def talk(name: str, **more: Any) -> dict[str, Any]:
    """What takes minutes to answer."""
    body = chat(f"canary-{name}-said " * 100, **more)
    return body | {"model": "slow", "max_tokens": 3000}


def label(work: Work) -> str:
    ask = {"model": "seas", "input": "the sea 3"}
    answer = work.http.post("/v1/classify", json=ask)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["label"])
