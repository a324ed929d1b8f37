"""OpenAI's files and batches, through its own client and by hand, on a real server."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from tests.batches import (
    CHAT,
    Object,
    begin,
    files,
    finished,
    jsonl,
    line,
    look,
    read,
    send,
    task,
)
from tests.conftest import deploy_echo
from tests.faults.metering import ledger
from tests.processes import ServerProcess, pulled, serving
from tests.stores import deploy

FILE_BYTES = 32 << 20
BODY_BYTES = 1 << 20
EMBEDDER = "minilm-l6-v2"
OPENED: list[httpx.Client] = []


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Models ``echo``, ``slow`` and an encoder; little may be asked at one time."""
    data = tmp_path_factory.mktemp("batches") / "data"
    shutil.copytree(pulled(tmp_path_factory, "batches", ["digits", EMBEDDER]), data)
    deploy_echo(data)
    deploy_echo(data, "slow", tokens_per_second=10)
    deploy(data, EMBEDDER)
    with serving(
        data,
        OPENMAAS_LIMITS_FILE_BYTES=str(FILE_BYTES),
        OPENMAAS_LIMITS_BODY_BYTES=str(BODY_BYTES),
        OPENMAAS_BATCH_CONCURRENCY="16",
    ) as server:
        yield server
    while OPENED:
        OPENED.pop().close()


@pytest.fixture(scope="module")
def client(house: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as made:
        yield made


def tenant(house: ServerProcess, name: str, **quota: int) -> tuple[httpx.Client, Object]:
    """A client of a new tenant, and its key."""
    made = house.client.post("/v1/tenants", json={"id": name, "quota": quota})
    assert made.status_code == 200, made.text
    body = {"name": "test", "scopes": ["inference"]}
    key = house.client.post(f"/v1/tenants/{name}/keys", json=body).json()
    headers = {"authorization": f"Bearer {key['secret']}"}
    OPENED.append(httpx.Client(base_url=house.url, headers=headers, timeout=60))
    return OPENED[-1], key["key"]


def rows(house: ServerProcess, batch: str) -> list[dict[str, Any]]:
    """The ledger's, of a batch."""
    return [row for row in ledger(house) if row["request"][4:28] == batch[6:]]


# --- OpenAI's client -----------------------------------------------------------------------------


def test_a_batch_of_chats(house: ServerProcess, client: OpenAI) -> None:
    lines = [line(f"ask {number}") for number in range(100)]
    lines[7]["body"]["model"] = "nobody"
    lines[8]["body"]["temperature"] = 3
    content = jsonl(lines).replace(b"\n", b"\n\n", 3)  # blank lines are none
    after = {"anchor": "created_at", "seconds": 7200}
    file = client.files.create(
        file=("asked.jsonl", content),
        purpose="batch",
        expires_after=after,  # type: ignore[arg-type]
    )
    assert (file.filename, file.bytes, file.purpose) == ("asked.jsonl", len(content), "batch")
    assert file.expires_at == file.created_at + 7200
    made = client.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="24h",
        metadata={"for": "a test"},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (made.status, made.metadata, made.object) == ("validating", {"for": "a test"}, "batch")
    assert made.expires_at == made.created_at + 86_400
    finished(house, house.client, made.id)
    batch = client.batches.retrieve(made.id)
    assert batch.status == "completed"
    assert batch.errors is None
    assert batch.request_counts is not None
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (100, 98, 2)
    assert made.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at  # type: ignore[operator]
    assert batch.output_file_id is not None
    output = read(client.files.content(batch.output_file_id).text)
    assert {one["custom_id"] for one in output} == {f"ask {n}" for n in range(100)} - {
        "ask 7",
        "ask 8",
    }
    for one in output:
        assert set(one) == {"id", "custom_id", "response", "error"}
        assert one["error"] is None
        assert one["response"]["status_code"] == 200
        said = one["response"]["body"]["choices"][0]["message"]["content"]
        assert f"said {one['custom_id']}".startswith(said)
    assert batch.error_file_id is not None
    errors = {one["custom_id"]: one for one in read(client.files.content(batch.error_file_id).text)}
    assert errors["ask 7"]["response"]["status_code"] == 404
    assert errors["ask 7"]["error"]["code"] == "model_not_found"
    assert errors["ask 8"]["response"]["body"]["error"]["param"] == "temperature"
    about = client.files.retrieve(batch.output_file_id)
    assert (about.purpose, about.expires_at) == ("batch_output", about.created_at + 3600)
    used = [one["response"]["body"]["usage"] for one in output]
    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(one["prompt_tokens"] for one in used)
    assert batch.usage.total_tokens == sum(one["total_tokens"] for one in used)
    known = {one["response"]["request_id"]: one["response"]["body"] for one in output}
    found = rows(house, batch.id)
    assert {row["request"] for row in found} == set(known)
    for row in found:
        assert (row["outcome"], row["priority"], row["task"]) == ("ok", "batch", "chat")
        assert row["output_tokens"] == known[row["request"]]["usage"]["completion_tokens"]
    assert batch.id in [one.id for one in client.batches.list()]
    assert batch.id not in [one.id for one in client.batches.list(after=batch.id)]
    assert not list((house.data / "batches").iterdir())


REAL = {
    "/v1/embeddings": {"model": EMBEDDER, "input": "a text"},
    "/v1/rerank": {"model": EMBEDDER, "query": "a cat", "documents": ["a dog", "a kitten"]},
    "/v1/classify": {"input": "what a game", "labels": ["sports", "politics"]},
    "/v1/summarize": {"model": EMBEDDER, "input": "One. Two is more. Three is most of all."},
    "/v1/completions": {"model": "echo", "prompt": "a prompt"},
}


@pytest.mark.parametrize("endpoint", REAL)
def test_a_batch_of_each_kind_says_what_a_call_says(house: ServerProcess, endpoint: str) -> None:
    one = house.client.post(endpoint, json=REAL[endpoint]).json()
    lines = [task(str(number), endpoint, **REAL[endpoint]) for number in range(5)]
    batch = finished(house, house.client, begin(house.client, lines, endpoint))
    assert (batch["status"], batch["error_file_id"]) == ("completed", None)
    for found in files(house.client, batch)[0].values():
        body = found["response"]["body"]
        for name in ("data", "results", "choices"):
            if name in one:
                assert json.dumps(body[name])[:60] == json.dumps(one[name])[:60]


def test_batches_and_files_are_listed_in_pages(house: ServerProcess) -> None:
    other, _ = tenant(house, "pages")
    ids = [send(other, jsonl([line(str(number))])).json()["id"] for number in range(5)]

    def paged(path: str, **query: str) -> list[str]:
        found: list[str] = []
        while True:
            page = other.get(path, params={"limit": "2"} | query).json()
            found += [one["id"] for one in page["data"]]
            assert page["last_id"] == found[-1]
            query["after"] = page["last_id"]
            if not page["has_more"]:
                return found

    assert set(paged("/v1/files")) == set(ids)
    assert paged("/v1/files", order="asc") == paged("/v1/files", order="desc")[::-1]
    assert other.get("/v1/files?purpose=batch_output").json()["data"] == []
    made = [begin(other, [line("x")]) for _ in range(3)]
    assert set(paged("/v1/batches")) == set(made)
    for bad in ("files?limit=0", "files?limit=10001", "files?order=up", "batches?limit=101"):
        assert other.get(f"/v1/{bad}").status_code == 400
    for absent in ("files?after=file-0", "batches?after=batch_0"):
        assert other.get(f"/v1/{absent}").status_code == 404


# --- what is sent wrong --------------------------------------------------------------------------


GOOD = line("a")
WRONG: dict[str, tuple[list[bytes], str, str | None]] = {
    "no JSON": ([b"{"], "invalid_json_line", None),
    "no object": ([b"[1]"], "invalid_json_line", None),
    "too deep": ([b'{"custom_id":' + b"[" * 100_000], "invalid_json_line", None),
    "no custom_id": (
        [jsonl([{k: v for k, v in GOOD.items() if k != "custom_id"}])],
        "missing_required_parameter",
        "custom_id",
    ),
    "no body": (
        [jsonl([{k: v for k, v in GOOD.items() if k != "body"}])],
        "missing_required_parameter",
        "body",
    ),
    "no url": ([jsonl([GOOD | {"url": None}])], "missing_required_parameter", "url"),
    "a number": ([jsonl([GOOD | {"custom_id": 1}])], "invalid_custom_id", "custom_id"),
    "too long": ([jsonl([GOOD | {"custom_id": "x" * 513}])], "invalid_custom_id", "custom_id"),
    "twice": ([jsonl([line("0")])], "duplicate_custom_id", "custom_id"),
    "GET": ([jsonl([GOOD | {"method": "GET"}])], "invalid_method", "method"),
    "another url": ([jsonl([GOOD | {"url": "/v1/embeddings"}])], "invalid_url", "url"),
    "a list": ([jsonl([GOOD | {"body": []}])], "invalid_body", "body"),
    "a stream": (
        [jsonl([line("a", {"stream": True})])],
        "unsupported_parameter",
        "body.stream",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_fails_the_batch_before_anything_is_asked(
    house: ServerProcess, name: str
) -> None:
    wrong, code, param = WRONG[name]
    content = jsonl([line("0"), line("1")]) + wrong[0] + b"\n" + jsonl([line("2")])
    content = content.replace(b"\n\n", b"\n")
    batch = finished(house, house.client, begin(house.client, content))
    assert batch["status"] == "failed"
    assert batch["failed_at"] >= batch["created_at"]
    (error,) = batch["errors"]["data"]
    assert (error["code"], error["line"], error["param"]) == (code, 3, param)
    assert error["message"]
    assert rows(house, batch["id"]) == []
    assert batch["output_file_id"] is batch["error_file_id"] is None


def test_an_empty_file_and_a_hundred_wrong_lines(house: ServerProcess) -> None:
    for content, code, count in ((b"\n \n", "empty_file", 1), (b"x\n" * 500, None, 100)):
        batch = finished(house, house.client, begin(house.client, content))
        assert batch["status"] == "failed"
        assert len(batch["errors"]["data"]) == count
        assert batch["errors"]["data"][-1]["code"] == (code or "invalid_json_line")
    assert batch["errors"]["data"][-1]["line"] == 100


BODY = {"input_file_id": "file-0", "endpoint": CHAT, "completion_window": "24h"}


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({}, 404, None),
        ({"endpoint": "/v1/tokenize"}, 400, "endpoint"),
        ({"endpoint": "/v1/batches"}, 400, "endpoint"),
        ({"completion_window": "48h"}, 400, "completion_window"),
        ({"metadata": {str(number): "x" for number in range(17)}}, 400, "metadata"),
        ({"metadata": {"x" * 65: "x"}}, 400, None),
        ({"metadata": {"x": "x" * 513}}, 400, None),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400, None),
        ({"output_expires_after": {"anchor": "now", "seconds": 3600}}, 400, None),
        ({"priority": 1}, 400, "priority"),
    ],
)
def test_a_batch_that_is_asked_for_wrongly(
    house: ServerProcess, change: Object, status: int, param: str | None
) -> None:
    answer = house.client.post("/v1/batches", json=BODY | change)
    assert answer.status_code == status, answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param


def form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    """A form with the boundary x."""
    return b"".join(
        b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (head.encode(), body)
        for head, body in parts
    ) + end  # fmt: skip


PART, PURPOSE = ('name="file"; filename="a.jsonl"', b"{}"), ('name="purpose"', b"batch")
ANCHOR = ('name="expires_after[anchor]"', b"created_at")
SECONDS = 'name="expires_after[seconds]"'
FORMS = {
    "empty": (b"", 400),
    "nothing": (form(), 400),
    "no form": (b"\x00" * 100, 400),
    "no file": (form(PURPOSE), 400),
    "no purpose": (form(PART), 400),
    "another purpose": (form(PART, ('name="purpose"', b"fine-tune")), 400),
    "no file name": (form(PURPOSE, ('name="file"', b"{}")), 400),
    "a file name of a line": (form(PURPOSE, ('name="file"; filename="a\tb"', b"{}")), 400),
    "two files": (form(PURPOSE, PART, PART), 400),
    "two purposes": (form(PURPOSE, PURPOSE, PART), 400),
    "unknown": (form(PURPOSE, PART, ('name="x"', b"1")), 400),
    "no name": (form(PURPOSE, PART, ('filename="x"', b"1")), 400),
    "not UTF-8": (form(PURPOSE, PART, ('name="purpose"', b"\xff")), 400),
    "cut off": (form(PURPOSE, PART, end=b""), 400),
    "a long field": (form(('name="purpose"', b"x" * 2000), PART), 413),
    "a long header": (form((f'name="{"x" * 9000}"', b"x"), PART), 400),
    "soon": (form(PART, PURPOSE, ANCHOR, (SECONDS, b"3599")), 400),
    "late": (form(PART, PURPOSE, ANCHOR, (SECONDS, b"2592001")), 400),
    "never": (form(PART, PURPOSE, ANCHOR, (SECONDS, b"-1")), 400),
    "no anchor": (form(PART, PURPOSE, (SECONDS, b"3600")), 400),
    "good": (form(PART, PURPOSE, ANCHOR, (SECONDS, b"3600")), 200),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(house: ServerProcess, name: str) -> None:
    content, status = FORMS[name]
    before = {one.name for one in (house.data / "files").glob("*")}
    for media in ("multipart/form-data; boundary=x", 'multipart/form-data; boundary="x"'):
        answer = house.client.post("/v1/files", content=content, headers={"content-type": media})
        assert answer.status_code == status, answer.text
        if status != 200:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert {one.name for one in (house.data / "files").glob("*")} == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "multipart/form-data"},
        {"content-type": "multipart/form-data; boundary=x", "content-encoding": "gzip"},
    ],
)
def test_what_is_no_form(house: ServerProcess, headers: dict[str, str]) -> None:
    answer = house.client.post("/v1/files", content=form(PART, PURPOSE), headers=headers)
    assert answer.status_code == 415


def test_the_form_is_described_as_it_is(house: ServerProcess) -> None:
    paths = house.client.get("/openapi.json").json()["paths"]
    content = paths["/v1/files"]["post"]["requestBody"]["content"]
    (schema,) = [one["schema"] for one in content.values()]
    assert list(content) == ["multipart/form-data"]
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["file", "purpose"]
    assert set(schema["properties"]) == {
        "file", "purpose", "expires_after[anchor]", "expires_after[seconds]",
    }  # fmt: skip
    seconds = schema["properties"]["expires_after[seconds]"]
    for value, status in ((seconds["minimum"], 200), (seconds["minimum"] - 1, 400),
                          (seconds["maximum"], 200), (seconds["maximum"] + 1, 400)):  # fmt: skip
        fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(value)}
        assert send(house.client, b"{}", **fields).status_code == status
    answers = paths["/v1/files/{file}/content"]["get"]["responses"]
    assert list(answers["200"]["content"]) == ["application/octet-stream"]


def test_bounds_of_a_file(house: ServerProcess) -> None:
    client = house.client
    before = {one.name for one in (house.data / "files").iterdir()}
    row = b"x" * (BODY_BYTES - 1)
    whole = (row + b"\n") * (FILE_BYTES // BODY_BYTES)
    assert send(client, whole).status_code == 200
    assert send(client, whole + b"x").status_code == 413
    assert send(client, row + b"xx\n").status_code == 413
    assert send(client, b"x\n" * 50_000).status_code == 200
    many = send(client, b"x\n" * 50_001)
    assert many.status_code == 413
    assert "50000 lines" in many.json()["error"]["message"]

    def chunks() -> Iterator[bytes]:  # of a length that nobody said before
        head = form(PURPOSE, PART, end=b"")[: -len(b"{}\r\n")]
        yield head
        for _ in range(FILE_BYTES // BODY_BYTES + 1):
            yield row + b"\n"

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/files", content=chunks(), headers=headers).status_code == 413
    kept = {one["id"] for one in client.get("/v1/files").json()["data"]}
    after = {one.name for one in (house.data / "files").iterdir()}
    assert len(after - before) == 2
    assert after - before <= kept
    assert all(one.stat().st_mode & 0o777 == 0o600 for one in (house.data / "files").iterdir())


def test_a_file_costs_little_memory(house: ServerProcess) -> None:
    whole = (b"x" * 1000 + b"\n") * (FILE_BYTES // 1001)
    send(house.client, whole)  # whatever is kept is there now
    before = house.rss()
    for _ in range(3):
        file = send(house.client, whole).json()["id"]
        with house.client.stream("GET", f"/v1/files/{file}/content") as answer:
            assert sum(map(len, answer.iter_raw())) == len(whole)
    assert house.rss() - before < FILE_BYTES // 2


# --- whose they are, and for how long ------------------------------------------------------------


def test_files_are_removed_and_not_while_they_are_read(house: ServerProcess) -> None:
    client = house.client
    slow = [line(str(number), {"model": "slow", "max_tokens": 50}) for number in range(4)]
    id = begin(client, slow)
    file = look(client, id)["input_file_id"]
    assert client.delete(f"/v1/files/{file}").status_code == 409
    house.wait_until(lambda: look(client, id)["status"] == "in_progress", 20)
    assert client.post(f"/v1/batches/{id}/cancel").json()["status"] == "cancelling"
    assert finished(house, client, id)["status"] == "cancelled"
    assert client.delete(f"/v1/files/{file}").json() == {
        "id": file, "object": "file", "deleted": True,
    }  # fmt: skip
    assert not (house.data / "files" / file).exists()
    for path in (f"/v1/files/{file}", f"/v1/files/{file}/content"):
        assert client.get(path).status_code == 404
    assert client.post(f"/v1/batches/{id}/cancel").status_code == 409


def test_output_is_no_input(house: ServerProcess) -> None:
    batch = finished(house, house.client, begin(house.client, [line("x")]))
    body = BODY | {"input_file_id": batch["output_file_id"]}
    answer = house.client.post("/v1/batches", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input_file_id"


def test_files_count_in_what_a_tenant_stores(house: ServerProcess) -> None:
    small, _ = tenant(house, "small-store", stored_bytes=3000)
    assert send(small, b"x" * 3001).status_code == 429
    first = send(small, b"x" * 1800)
    assert first.status_code == 200
    refused = send(small, b"x" * 1201)
    assert refused.status_code == 429
    assert "stored_bytes=3000" in refused.json()["error"]["message"]
    small.delete(f"/v1/files/{first.json()['id']}")
    assert send(small, b"x" * 1201).status_code == 200


def test_a_quota_that_is_used_up_is_final(house: ServerProcess) -> None:
    few, _ = tenant(house, "few", requests_in_all=5)
    batch = finished(house, few, begin(few, [line(str(number)) for number in range(12)]))
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 12, "completed": 5, "failed": 7}
    output, errors = files(few, batch)
    assert len(output) == 5
    assert {one["error"]["code"] for one in errors.values()} == {"insufficient_quota"}
    assert len([row for row in rows(house, batch["id"]) if row["outcome"] == "ok"]) == 5


def test_a_line_that_is_told_to_wait_is_asked_again(house: ServerProcess) -> None:
    one, _ = tenant(house, "one-at-a-time", concurrent=1)
    lines = [line(str(number), {"model": "slow", "max_tokens": 1}) for number in range(8)]
    batch = finished(house, one, begin(one, lines))
    assert batch["request_counts"] == {"total": 8, "completed": 8, "failed": 0}
    assert len(rows(house, batch["id"])) == 8


def test_lines_of_a_revoked_key_fail(house: ServerProcess) -> None:
    gone, key = tenant(house, "gone")
    lines = [line(str(number), {"model": "slow", "max_tokens": 4}) for number in range(80)]
    id = begin(gone, lines)
    house.wait_until(lambda: look(gone, id)["request_counts"]["completed"] > 0, 20)
    house.client.delete(f"/v1/tenants/gone/keys/{key['id']}")
    house.wait_until(lambda: gone.get(f"/v1/batches/{id}").status_code == 401, 5)
    body = {"name": "other", "scopes": ["inference"]}
    secret = house.client.post("/v1/tenants/gone/keys", json=body).json()["secret"]
    gone.headers["authorization"] = f"Bearer {secret}"
    batch = finished(house, gone, id)
    assert batch["status"] == "completed"
    output, errors = files(gone, batch)
    assert len(output) + len(errors) == 80
    assert len(output) == len(rows(house, id)) > 0
    assert {one["response"]["status_code"] for one in errors.values()} == {401}
    assert {one["error"]["code"] for one in errors.values()} == {"invalid_api_key"}


def test_tenants_take_turns(house: ServerProcess) -> None:
    """Sixteen lines are asked at one time, and one tenant's would fill them for long."""
    many, _ = tenant(house, "many")
    some, _ = tenant(house, "some")
    ids = [
        begin(many, [line(str(n), {"model": "slow", "max_tokens": 20}) for n in range(200)])
        for _ in range(2)
    ]
    house.wait_until(lambda: all(look(many, id)["status"] == "in_progress" for id in ids), 20)
    short = begin(some, [line(str(n), {"model": "slow", "max_tokens": 1}) for n in range(8)])
    assert finished(house, some, short)["status"] == "completed"
    for id in ids:
        assert look(many, id)["status"] == "in_progress"
        many.post(f"/v1/batches/{id}/cancel")
    for id in ids:
        finished(house, many, id)


def test_what_is_answered_of_a_cancelled_batch_is_kept(house: ServerProcess) -> None:
    client = house.client
    lines = [line(str(number), {"model": "slow", "max_tokens": 3}) for number in range(200)]
    id = begin(client, lines)
    house.wait_until(lambda: look(client, id)["request_counts"]["completed"] > 0, 20)
    answer = client.post(f"/v1/batches/{id}/cancel").json()
    assert answer["status"] == "cancelling"
    assert answer["cancelling_at"] >= answer["in_progress_at"]
    batch = finished(house, client, id)
    assert batch["status"] == "cancelled"
    assert batch["cancelled_at"] >= batch["cancelling_at"]
    output, errors = files(client, batch)
    assert batch["request_counts"] == {"total": 200, "completed": len(output), "failed": 0}
    assert 0 < len(output) < 200
    assert errors == {}
    billed = {row["request"] for row in rows(house, id) if row["outcome"] == "ok"}
    assert billed == {one["response"]["request_id"] for one in output.values()}


# --- a server of its own -------------------------------------------------------------------------


def database(data: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(data / "openmaas.db") as connection:
        connection.execute(statement, values)


def test_batches_and_files_expire(data: Path) -> None:
    deploy_echo(data, "slow", tokens_per_second=10)
    with serving(data) as server:
        client = server.client
        lines = [line(str(n), {"model": "slow", "max_tokens": 3}) for n in range(150)]
        id = begin(client, lines)
        unseen = send(client, b"{}").json()["id"]
        server.wait_until(lambda: look(client, id)["request_counts"]["completed"] > 0, 20)
        output = finished(server, client, begin(client, [line("x", {"model": "slow"})]))
    database(data, "UPDATE batches SET expires = created WHERE id = ?", id)
    for file in (unseen, output["output_file_id"]):
        database(data, "UPDATE files SET expires = created WHERE id = ?", file)
    with serving(data) as server:
        client = server.client
        batch = finished(server, client, id)
        assert batch["status"] == "expired"
        assert batch["expired_at"] is not None
        good, errors = files(client, batch)
        assert len(good) > 0
        assert good.keys() | errors.keys() == {one["custom_id"] for one in lines}
        assert len(good) + len(errors) == 150
        for one in errors.values():
            assert (one["response"], one["error"]["code"]) == (None, "batch_expired")
        assert batch["request_counts"] == {
            "total": 150, "completed": len(good), "failed": len(errors),
        }  # fmt: skip
        ids = {one["response"]["request_id"] for one in good.values()}
        assert {row["request"] for row in rows(server, id) if row["outcome"] == "ok"} == ids
        for file in (unseen, output["output_file_id"]):
            assert client.get(f"/v1/files/{file}").status_code == 404
            server.wait_until(lambda file=file: not (data / "files" / file).exists(), 10)


def test_a_batch_without_its_file_or_its_tenancy(data: Path) -> None:
    deploy_echo(data, tokens_per_second=10)
    with serving(data) as server:
        id = begin(server.client, [line(str(n)) for n in range(200)])
        server.wait_until(lambda: look(server.client, id)["status"] == "in_progress", 20)
        file = look(server.client, id)["input_file_id"]
    (data / "files" / file).unlink()  # as in a data folder that was restored without it
    with serving(data, OPENMAAS_TENANCY="false") as server:
        batch = finished(server, server.client, id)
        assert batch["status"] == "failed"
        assert batch["errors"]["data"][0]["code"] == "file_gone"
        with httpx.Client(base_url=server.url) as client:  # nobody asks for keys here
            batch = finished(server, client, begin(client, [line("x")]))
            assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
