"""M4: one Idempotency-Key × 50 at once is one run and one row; the same answer each time.
All on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import deploy_echo
from tests.postgres import Postgres
from tests.processes import ServerProcess, serving

TIMES = 50


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def echo(
    request: pytest.FixtureRequest, digits_only: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("idempotency") / "data"
    shutil.copytree(digits_only, data)
    url = None
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.url(postgres.database())
    with slow(data, url) as server:
        yield server


def slow(data: Path, url: str | None) -> AbstractContextManager[ServerProcess]:
    """A server of a chat model that notes what it makes."""
    log = str(data / "tokens.jsonl")
    deploy_echo(data, "slow", database_url=url, tokens_per_second=50, token_log=log)
    return serving(data, OPENMAAS_DATABASE_URL=url or "")


def body(text: str = "one two three", **more: Any) -> dict[str, Any]:
    return {"model": "slow", "max_tokens": 5, "messages": [{"role": "user", "content": text}],
            **more}  # fmt: skip


def ask(server: ServerProcess, key: str, asked: dict[str, Any]) -> httpx.Response:
    return server.client.post("/v1/chat/completions", json=asked, headers={"Idempotency-Key": key})


def rows(server: ServerProcess) -> int:
    return int(server.client.get("/v1/usage").json()["data"][0]["requests"])


@pytest.mark.parametrize("stream", [False, True])
def test_fifty_at_once_are_one(echo: ServerProcess, stream: bool) -> None:
    log = echo.data / "tokens.jsonl"
    log.write_text("")
    asked = body(stream=stream)
    with ThreadPoolExecutor(TIMES) as pool:
        answers = list(pool.map(lambda _: ask(echo, f"same-{stream}", asked), range(TIMES)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["x-request-id"] for answer in answers}) == 1
    replayed = [answer.headers.get("idempotent-replayed") for answer in answers]
    assert replayed.count("true") == TIMES - 1
    found = echo.client.get("/v1/usage/rows?limit=1000").json()["data"]
    request = answers[0].headers["x-request-id"]
    assert [row["output_tokens"] for row in found if row["request"] == request] == [5]
    assert sum(line.count('"out": 1') for line in log.read_text().splitlines()) == 5


def test_another_request_under_the_same_key_is_refused(echo: ServerProcess) -> None:
    assert ask(echo, "changed", body("a")).status_code == 200
    refused = ask(echo, "changed", body("b"))
    assert refused.status_code == 400
    assert "another request" in refused.json()["error"]["message"]


def test_another_tenant_has_keys_of_its_own(echo: ServerProcess) -> None:
    assert echo.client.post("/v1/tenants", json={"id": "other"}).status_code == 200
    made = echo.client.post("/v1/tenants/other/keys", json={"name": "x"}).json()
    headers = {"Authorization": f"Bearer {made['secret']}", "Idempotency-Key": "shared"}
    first = ask(echo, "shared", body("mine"))
    second = httpx.post(
        f"{echo.url}/v1/chat/completions", json=body("theirs"), headers=headers, timeout=30
    )
    assert second.status_code == 200
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_a_refusal_is_not_kept(echo: ServerProcess) -> None:
    wrong = ask(echo, "mended", {"model": "slow"})
    assert wrong.status_code == 400
    assert ask(echo, "mended", body()).status_code == 200


def test_the_answer_is_there_for_a_client_that_lost_it(echo: ServerProcess) -> None:
    asked = body("lost", stream=True, max_tokens=30)
    headers = {"Idempotency-Key": "lost"}
    with echo.client.stream("POST", "/v1/chat/completions", json=asked, headers=headers) as cut:
        next(cut.iter_lines())
    whole = ask(echo, "lost", asked)
    assert whole.text.endswith("data: [DONE]\n\n")
    assert whole.headers["idempotent-replayed"] == "true"


def test_a_restart_forgets_the_answer_and_not_the_bill(
    data: Path, database_url: str | None
) -> None:
    with slow(data, database_url) as server:
        assert ask(server, "durable", body()).status_code == 200
        before = rows(server)
    with serving(data, OPENMAAS_DATABASE_URL=database_url or "") as server:
        again = ask(server, "durable", body())
        assert again.status_code == 409
        assert "billed" in again.json()["error"]["message"]
        assert rows(server) == before


def test_keys_that_are_none(echo: ServerProcess) -> None:
    assert ask(echo, "x" * 256, body()).status_code == 400
