"""Mixed requests of several tenants, and the books that they must agree with."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.conftest import deploy_echo
from tests.processes import ServerProcess, serving

TENANTS = ("acme", "globex", "initech")


class Seen(NamedTuple):
    """What a client saw of one request."""

    request: str
    tenant: str
    status: int
    whole: bool  # the answer came to its end
    usage: tuple[int, int] | None  # input and output tokens, as the answer said
    read: int = 0  # output tokens, of a stream that was left


class House(NamedTuple):
    server: ServerProcess
    keys: dict[str, str]
    logs: list[Path]  # the runtimes' own


def prepare(data: Path, url: str | None = None, **options: Any) -> list[Path]:
    logs = []
    for name in ("one", "two"):
        logs.append(data / f"{name}.jsonl")
        deploy_echo(data, name, database_url=url, token_log=str(logs[-1]), **options)
    return logs


@contextmanager
def housed(data: Path, url: str | None = None, **env: str) -> Iterator[House]:
    """Echo models ``one`` and ``two``, and three tenants with a key each."""
    logs = prepare(data, url)
    with serving(data, OPENMAAS_DATABASE_URL=url or "", **env) as server:
        yield House(server, tenants(server), logs)


def tenants(server: ServerProcess) -> dict[str, str]:
    keys = {}
    for tenant in TENANTS:
        assert server.client.post("/v1/tenants", json={"id": tenant}).status_code == 200
        body = {"name": "test", "scopes": ["inference", "manage"]}
        made = server.client.post(f"/v1/tenants/{tenant}/keys", json=body)
        keys[tenant] = made.json()["secret"]
    return keys


def mixed(house: House, count: int, seed: int = 0, leave: bool = False) -> list[Seen]:
    """So many requests of all kinds, sixteen at a time."""
    rng = random.Random(seed)
    plans = [
        (rng.choice(TENANTS), rng.choice(("one", "two")), rng.randrange(6), rng.randrange(1, 9), at)
        for at in range(count)
    ]
    limits = httpx.Limits(max_connections=32)
    with (
        httpx.Client(base_url=house.server.url, timeout=60, limits=limits) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        return [
            seen
            for seen in pool.map(lambda plan: _one(client, house, *plan, leave=leave), plans)
            if seen is not None
        ]


def _one(
    client: httpx.Client,
    house: House,
    tenant: str,
    model: str,
    kind: int,
    size: int,
    at: int,
    *,
    leave: bool,
) -> Seen | None:
    headers = {"Authorization": f"Bearer {house.keys[tenant]}"}
    words = " ".join(f"w{at % 97}" for _ in range(size))
    chat = {
        "model": model,
        "max_tokens": size,
        "messages": [{"role": "user", "content": words}],
    }
    try:
        if kind == 0:
            body = {"model": model, "prompt": [words, "b"], "n": 2, "max_tokens": size}
            return _whole(client, headers, tenant, "/v1/completions", body)
        if kind == 1:
            body = {"model": model, "input": words}
            return _whole(client, headers, tenant, "/v1/tokenize", body)
        if kind in (2, 3):
            return _whole(client, headers, tenant, "/v1/chat/completions", chat)
        stop = size if leave and kind == 5 else None
        return _stream(client, headers, tenant, chat, stop)
    except httpx.TransportError:
        return None  # a server that was killed: the client knows nothing


def _whole(
    client: httpx.Client, headers: dict[str, str], tenant: str, path: str, body: Any
) -> Seen:
    answer = client.post(path, json=body, headers=headers)
    used = answer.json().get("usage")
    usage = (used["prompt_tokens"], used["completion_tokens"]) if used else None
    return Seen(answer.headers["x-request-id"], tenant, answer.status_code, True, usage)


def _stream(
    client: httpx.Client, headers: dict[str, str], tenant: str, body: Any, stop: int | None
) -> Seen:
    """Args:
    stop: leave after so many pieces of text.
    """
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    if stop is not None:
        asked |= {"max_tokens": 200, "ignore_eos": True}
    read, usage, done, failed = 0, None, False, False
    path = "/v1/chat/completions"
    with client.stream("POST", path, json=asked, headers=headers) as answer:
        request = answer.headers["x-request-id"]
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                done = not failed
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                failed |= "error" in event  # a worker died: its text ends there, and [DONE] comes
                if event.get("usage"):
                    used = event["usage"]
                    usage = used["prompt_tokens"], used["completion_tokens"]
                read += sum(bool(c["delta"].get("content")) for c in event.get("choices", ()))
                if stop is not None and read >= stop:
                    break
        return Seen(request, tenant, answer.status_code, done, usage, read)


# --- the books -----------------------------------------------------------------------------


def ledger(server: ServerProcess) -> list[dict[str, Any]]:
    """Every row."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        query = {"limit": "1000", "since": "2020-01"} | ({"after": after} if after else {})
        page = server.client.get("/v1/usage/rows", params=query).json()
        found += page["data"]
        if not page["has_more"]:
            return found
        after = page["last_id"]


def produced(logs: list[Path]) -> tuple[int, int]:
    """Tokens that the runtimes took and made, by their own logs."""
    total: Counter[str] = Counter()
    for log in logs:
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            total["in"] += entry["in"]
            total["out"] += entry["out"]
    return total["in"], total["out"]


def check_sums(server: ServerProcess, rows: list[dict[str, Any]]) -> None:
    """Sums by any dimension are those of the rows."""
    for dimension in ("tenant", "project", "key", "model", "task", "outcome"):
        told = {
            one[dimension]: (one["requests"], one["input_tokens"], one["output_tokens"])
            for one in server.client.get(f"/v1/usage?by={dimension}&since=2020-01").json()["data"]
        }
        real: dict[str, list[int]] = {}
        for row in rows:
            of = real.setdefault(row[dimension], [0, 0, 0])
            of[0] += row["part"] == 0
            of[1] += row["input_tokens"]
            of[2] += row["output_tokens"]
        assert told == {name: tuple(sums) for name, sums in real.items()}, dimension
