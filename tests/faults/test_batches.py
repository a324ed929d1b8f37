"""F1, F2, F5 for batches: whatever dies meanwhile, a line has one answer and is billed once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from openmaas.encryption.sealed import SealedWriter, open_sealed
from tests.batches import Object, begin, files, finished, line, look
from tests.conftest import deploy_echo
from tests.faults.metering import check_sums, ledger, produced
from tests.postgres import Postgres
from tests.processes import ServerProcess, serving
from tests.stores import opened

# `make soak-batches` takes 2000. (LINES alone is what shells call a terminal's height.)
LINES = int(os.environ.get("BATCH_LINES", "200"))
KILLS = int(os.environ.get("BATCH_KILLS", "2"))
# tokens a second of each line: many are under way at any moment, and not over before one looks
SPEED = 12.0


def house(data: Path, url: str | None = None) -> Path:
    """Deploys the model; its own log."""
    log = data / "one.jsonl"
    deploy_echo(data, "one", database_url=url, token_log=str(log), tokens_per_second=SPEED)
    return log


def asked(count: int = LINES) -> list[Object]:
    rng = random.Random(count)
    lines = []
    for number in range(count):
        said = {"role": "user", "content": " ".join(["word"] * rng.randrange(1, 6))}
        body = {"model": "one", "max_tokens": rng.randrange(1, 9), "messages": [said]}
        lines.append(line(f"{number}", body))
    return lines


def answers(data: Path, id: str, url: str | None = None) -> int:
    """How many are on disk."""
    name = f"batches/{id}.jsonl"
    with (
        opened(data, url) as store,
        contextlib.suppress(FileNotFoundError),
        open_sealed(data / name, store.keyring, name, growing=True) as file,
    ):
        return file.read().count(b"\n")
    return 0


def tear(data: Path, id: str, url: str | None) -> None:
    """Ends the answers with half a line, and with half a record."""
    name = f"batches/{id}.jsonl"
    path = data / name
    with opened(data, url) as store:
        key = store.keyring.key("default")
        writer = SealedWriter.append(path, store.keyring, key, name)
        writer.write(b'{"id":"batch_req_' + id[6:].encode() + b'000001","custom')
        writer.close()
    with path.open("ab") as file:
        file.write(path.read_bytes()[-20:])


def check(server: ServerProcess, batch: Object, lines: list[Object], log: Path) -> None:
    """One answer and one row for each line, which agree; nothing else is in the books."""
    count = len(lines)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": count, "completed": count, "failed": 0}
    output, errors = files(server.client, batch)
    assert errors == {}
    assert output.keys() == {one["custom_id"] for one in lines}
    rows = ledger(server)
    known: dict[str, dict[str, Any]] = {row["request"]: row for row in rows}
    assert len(known) == len(rows) == count
    for one in output.values():
        row, used = known[one["response"]["request_id"]], one["response"]["body"]["usage"]
        assert row["outcome"] == "ok"
        assert row["input_tokens"] == used["prompt_tokens"]
        assert row["output_tokens"] == used["completion_tokens"]
    check_sums(server, [row for row in rows if row["outcome"] == "ok"])
    (sums,) = server.client.get("/v1/usage?since=2020-01&outcome=ok").json()["data"]
    assert sums["requests"] == count
    assert sums["output_tokens"] == sum(row["output_tokens"] for row in rows)
    told = server.client.get("/v1/quota").json()["data"][0]["used"]["all"]
    assert told["requests"] == str(count)
    assert sums["output_tokens"] <= produced([log])[1]  # what was lost was made again
    assert not list((server.data / "batches").iterdir())


def test_the_gateway_is_killed_while_lines_are_asked(data: Path, database_url: str | None) -> None:
    """F2, with a torn line at the end of what was written."""
    log = house(data, database_url)
    env = {"OPENMAAS_DATABASE_URL": database_url or ""}
    lines = asked()
    rng = random.Random()
    id = ""
    for number in range(KILLS):
        with serving(data, **env) as server:
            id = id or begin(server.client, lines)
            # the last part is left for the server that is not killed
            part = LINES // (KILLS + 1)
            at = rng.randrange(number * part, (number + 1) * part)
            server.wait_until(lambda at=at, id=id: answers(data, id, database_url) >= at, 60)
            server.process.kill()
            server.process.wait()
        if number == KILLS - 1:
            tear(data, id, database_url)
    with serving(data, **env) as server:
        check(server, finished(server, server.client, id), lines, log)


def test_workers_are_killed_and_the_gateway_stopped_while_lines_are_asked(data: Path) -> None:
    """F1: what a dead worker held is asked again, what a stopped gateway asked by the next one."""
    log = house(data)
    lines = asked()
    with serving(data) as server:
        id = begin(server.client, lines)
        for part in (1, 2):
            server.wait_until(lambda part=part: answers(data, id) >= part * LINES // 4, 60)
            pid = server.worker_pid("one")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        server.wait_until(lambda: answers(data, id) >= 3 * LINES // 4, 60)
        assert server.stop() == 0
    assert answers(data, id) < LINES
    with serving(data) as server:
        check(server, finished(server, server.client, id), lines, log)


@pytest.fixture
def own_postgres() -> Any:
    server = Postgres()
    yield server
    server.remove()


def test_the_database_is_away_while_lines_are_asked(data: Path, own_postgres: Postgres) -> None:
    """F5."""
    url = own_postgres.url(own_postgres.database())
    log = house(data, url)
    lines = asked()
    with serving(data, OPENMAAS_DATABASE_URL=url) as server:
        id = begin(server.client, lines)
        server.wait_until(lambda: answers(data, id, url) >= LINES // 4, 60)
        own_postgres.stop()
        server.wait_until(lambda: server.client.get("/v1/batches").status_code == 503, 20)
        own_postgres.start()
        server.wait_until(lambda: server.client.get("/v1/batches").status_code == 200, 20)
        assert look(server.client, id)["status"] in ("in_progress", "finalizing", "completed")
        check(server, finished(server, server.client, id), lines, log)
