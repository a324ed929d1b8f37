"""``openmaas batch`` and the client below it, on a real server."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openmaas.client import BatchFailed, Client
from tests.batches import CHAT, jsonl, line
from tests.cli.test_datasets import Run, told
from tests.cli.test_errors import refused, run
from tests.conftest import deploy_echo
from tests.processes import ServerProcess, serving


@pytest.fixture(scope="module")
def house(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("batches") / "data"
    shutil.copytree(digits_only, data)
    deploy_echo(data)
    deploy_echo(data, "slow", tokens_per_second=1)
    with serving(data) as server:
        yield server


@pytest.fixture
def openmaas(house: ServerProcess) -> Run:
    env = {"OPENMAAS_URL": house.url, "OPENMAAS_API_KEY": house.key}
    return lambda *arguments: run(house.data, *map(str, arguments), **env)


@pytest.fixture(scope="module")
def client(house: ServerProcess) -> Iterator[Client]:
    with Client(house.url, house.key) as found:
        yield found


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "asked.jsonl"
    path.write_bytes(jsonl([line(str(number)) for number in range(20)]))
    return path


def test_a_file_is_answered_listed_and_shown(openmaas: Run, asked: Path, tmp_path: Path) -> None:
    done = openmaas("batch", "run", asked, "--endpoint", CHAT)
    answers = [json.loads(one) for one in told(done).splitlines()]
    assert {one["custom_id"] for one in answers} == set(map(str, range(20)))
    lines = done.stderr.splitlines()
    id = lines[0].split()[0]
    assert lines[0] == f"{id} is there"
    assert lines[-2:] == ["completed", "✓ 20 of 20 lines are answered"]
    assert id in told(openmaas("batch", "list")).splitlines()[1]
    assert json.loads(told(openmaas("batch", "list", "--json")))[0]["id"] == id
    output = tmp_path / "again.jsonl"
    screen = told(openmaas("batch", "show", id, "--output", output))
    assert "status     completed" in screen
    assert "lines      20: 20 answered, 0 failed" in screen
    assert "tokens     " in screen
    assert [json.loads(one) for one in output.read_text().splitlines()] == answers
    assert json.loads(told(openmaas("batch", "show", id, "--json")))["id"] == id


def test_lines_that_fail_are_written_and_told(openmaas: Run, asked: Path, tmp_path: Path) -> None:
    with asked.open("ab") as file:
        file.write(jsonl([line("x", {"model": "nobody"})]))
    output = tmp_path / "answers.jsonl"
    done = openmaas("batch", "run", asked, "--endpoint", CHAT, "--output", output)
    assert done.returncode == 1
    assert "completed: 20 of 21 lines are answered, 1 failed" in done.stderr.splitlines()[-1]
    last = json.loads(output.read_text().splitlines()[-1])
    assert (last["custom_id"], last["error"]["code"]) == ("x", "model_not_found")


def test_a_file_that_is_wrong(openmaas: Run, asked: Path, tmp_path: Path) -> None:
    with asked.open("ab") as file:
        file.write(b"{\n{\n")
    done = openmaas("batch", "run", asked, "--endpoint", CHAT)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"error: {asked}, line 21: this line is not a JSON object (and 1 more)"
    id = done.stderr.split()[0]
    assert "line 21: this line is not" in told(openmaas("batch", "show", id))
    wrong = openmaas("batch", "run", asked, "--endpoint", "/v1/nothing")
    assert "endpoint" in refused(wrong)
    assert "there is no file" in refused(
        openmaas("batch", "run", tmp_path / "nothing", "--endpoint", CHAT)
    )
    assert "no batch" in refused(openmaas("batch", "show", "batch_0"))


def test_one_that_is_not_waited_for_is_cancelled(openmaas: Run, tmp_path: Path) -> None:
    path = tmp_path / "slow.jsonl"
    path.write_bytes(jsonl([line(str(n), {"model": "slow"}) for n in range(200)]))
    id = told(openmaas("batch", "run", path, "--endpoint", CHAT, "--detach")).strip()
    assert "has answers when it is finished" in refused(
        openmaas("batch", "show", id, "--output", tmp_path / "x")
    )
    assert told(openmaas("batch", "cancel", id)) == f"{id} is cancelling\n"


def test_a_bar_on_a_terminal(house: ServerProcess, asked: Path) -> None:
    ours, theirs = pty.openpty()
    env = os.environ | {"OPENMAAS_URL": house.url, "OPENMAAS_API_KEY": house.key, "TERM": "xterm"}
    command = [sys.executable, "-m", "openmaas.cli", "batch", "run", str(asked), "--endpoint", CHAT]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=env
    ) as process:
        os.close(theirs)
        screen = b""
        while process.poll() is None or select.select([ours], [], [], 0.1)[0]:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    screen += os.read(ours, 1 << 16)
                except OSError:  # the terminal is gone with its program
                    break
    os.close(ours)
    assert process.returncode == 0
    assert "━".encode() in screen
    assert b"20 of 20 lines are answered" in screen


# --- the client ----------------------------------------------------------------------------------


def test_bodies_are_numbered_and_their_results_read(client: Client) -> None:
    said = [[{"role": "user", "content": f"word {number}"}] for number in range(5)]
    bodies = [{"model": "echo", "max_tokens": 9, "messages": one} for one in said]
    seen: list[str] = []
    batch = client.batches.wait(
        client.batches.create(bodies, metadata={"a": "b"}, keep=3600),
        lambda one: seen.append(one.status),
    )
    assert seen[-1] == batch.status == "completed"
    assert (batch.total, batch.completed, batch.failed) == (5, 5, 0)
    assert batch.told["metadata"] == {"a": "b"}
    results = {one.custom_id: one for one in client.batches.results(batch)}
    assert set(results) == set("01234")
    assert all(one.status == 200 and one.error is None for one in results.values())
    assert results["3"].body["choices"][0]["message"]["content"].startswith("word 3")
    assert batch.id in [one.id for one in client.batches.list()]
    output = client.files.get(batch.told["output_file_id"])
    assert (output.purpose, output.expires) == ("batch_output", output.created + 3600)


def test_a_file_is_kept_used_and_removed(client: Client, asked: Path) -> None:
    file = client.files.create(asked, seconds=3600)
    assert (file.name, file.size, file.purpose) == ("asked.jsonl", asked.stat().st_size, "batch")
    assert b"".join(client.files.content(file.id)) == asked.read_bytes()
    assert len(list(client.files.lines(file.id))) == 20
    for given in (file, file.id):
        assert client.batches.wait(client.batches.create(given).id).completed == 20
    client.files.delete(file.id)
    assert file.id not in [one.id for one in client.files.list(limit=1000)]


def test_a_batch_that_fails(client: Client) -> None:
    made = client.batches.create([{"model": "echo", "stream": True}])
    with pytest.raises(BatchFailed, match="line 1: a batch streams nothing") as caught:
        client.batches.wait(made)
    assert caught.value.errors[0]["param"] == "body.stream"
    assert list(client.batches.results(made)) == []
