"""T5 at rest: what tenants store is on no disk as they gave it, whatever the server is doing."""

from __future__ import annotations

import csv
import io
import json
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openmaas.client import Client
from openmaas.encryption.records import MAGIC
from tests.batches import begin, finished, line
from tests.conftest import deploy_echo
from tests.postgres import Postgres
from tests.processes import ServerProcess, serving
from tests.stores import memory_of

SEALED = ("artifacts/tenants", "batches", "datasets", "files", "jobs", "sessions", "uploads")
CANARIES = {
    # letters alone: a word of a vocabulary too
    what: f"canary{what}" + "".join(secrets.choice("bcdfghjklmnpqrstvwz") for _ in range(12))
    for what in ("upload", "row", "label", "prompt", "weights")
}


def found(*places: Path) -> dict[str, list[str]]:
    """By canary, the files that hold it."""
    seen: dict[str, list[str]] = {}
    for place in places:
        for path in place.rglob("*"):
            if not path.is_file() or path.is_symlink():
                continue
            content = path.read_bytes()
            for what, canary in CANARIES.items():
                forms = (canary.encode(), canary.encode("utf-16-le"), canary[::-1].encode())
                if any(form in content for form in forms):
                    seen.setdefault(what, []).append(str(path))
    return seen


def plain(data: Path) -> list[Path]:
    """Files of tenants that are not sealed. Some are packed, where no search finds anything."""
    stored = [path for place in SEALED for path in (data / place).rglob("*") if path.is_file()]
    assert stored
    return [
        path
        for path in stored
        if not path.read_bytes().startswith(MAGIC) and (path.name != "away" or path.stat().st_size)
    ]


def rows() -> bytes:
    """A table in which each text holds the row's canary, and a label is one."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["text", "label"])
    for number in range(60):
        other = f"the sea near number {number} {CANARIES['row']}"
        writer.writerow([other, CANARIES["label"] if number % 2 else "wood"])
    return text.getvalue().encode()


@pytest.fixture
def house(data: Path, database_url: str | None) -> Iterator[tuple[ServerProcess, list[Path]]]:
    """A server, and the folders that its disks are."""
    deploy_echo(data, database_url=database_url)
    places = [data]
    if database_url is not None:
        import psycopg

        with psycopg.connect(database_url) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        places.append(Path(row[0]))
    with serving(data, OPENMAAS_DATABASE_URL=database_url or "") as server:
        yield server, places


def test_no_canary_is_on_a_disk(
    house: tuple[ServerProcess, list[Path]], tmp_path: Path, postgres: Postgres
) -> None:
    server, places = house
    (server.data / "control").write_text(CANARIES["upload"])  # what is there is found
    assert list(found(*places)) == ["upload"]
    (server.data / "control").unlink()
    with Client(server.url, server.key) as client:
        upload = _upload(server, CANARIES["upload"].encode() * 100)
        dataset = client.datasets.upload(_file(tmp_path, rows()), target="label")
        assert CANARIES["label"] in json.dumps(dataset.told)  # the API tells what it was given
        said = [{"role": "user", "content": CANARIES["prompt"]}]
        body = {"model": "echo", "max_tokens": 64, "messages": said}
        batch = finished(server, server.client, begin(server.client, [line("1", body)]))
        output = server.client.get(f"/v1/files/{batch['output_file_id']}/content")
        assert CANARIES["prompt"] in output.text  # echo says what it was told
        assert found(*places) == {}
        assert plain(server.data) == []

        job = client.training.train(
            "seas", dataset, wait=False, recipe="text_embeddings", target="label",
            parameters={"dimensions": 8, "length": 16}, checkpoint_seconds=1, promote=True,
            fit={"epochs": 100_000, "batch_size": 8, "callbacks": []},  # nothing ends it early
        )  # fmt: skip
        kept = server.data / "jobs" / job.id
        server.wait_until(lambda: any((kept / "checkpoints").glob("*.checkpoint")), 60)
        assert "row" in found(memory_of(server.data))  # in memory it is as it was given
        assert found(*places) == {}
        assert plain(server.data) == []
        job.pause()
        server.wait_until(lambda: job.refresh().state == "paused", 60)
        assert found(memory_of(server.data)) == {}
        assert any((kept / "checkpoints").glob("*.checkpoint"))
        assert plain(server.data) == []
        job.cancel()

        done = client.training.train(
            "seas", dataset, recipe="text_embeddings", target="label", promote=True,
            parameters={"dimensions": 8, "length": 16}, fit={"epochs": 2},
        )  # fmt: skip
        assert CANARIES["label"] in json.dumps(done.card())
        ask = {"model": "seas", "input": f"the sea {CANARIES['row']}"}
        answer = server.client.post("/v1/classify", json=ask)
        assert CANARIES["label"] in answer.text
        assert list((server.data / "artifacts" / "tenants").rglob("*.xml"))
        assert found(*places, memory_of(server.data)) == {}
        assert plain(server.data) == []

        server.process.send_signal(signal.SIGKILL)  # as it lies when nobody could tidy up
        server.process.wait()
        assert found(*places) == {}
        assert (server.data / "uploads" / upload).read_bytes().startswith(MAGIC)


def _upload(server: ServerProcess, content: bytes) -> str:
    """One that stays."""
    body = {"name": "x.csv", "size": len(content) + 1}
    id = str(server.client.post("/v1/uploads", json=body).json()["id"])
    headers: dict[str, Any] = {"Upload-Offset": "0"}
    sent = server.client.patch(f"/v1/uploads/{id}", content=content, headers=headers)
    assert sent.json()["received"] == len(content)
    return id


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(content)
    return path
