"""T5: no key's secret and no word of a prompt is in the log, the database, the data folder, the
metrics or a command line, whatever breaks."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from openmaas.database import connect
from tests.conftest import deploy_echo
from tests.faults.requests import chat
from tests.processes import ServerProcess, cli, serving

PLANTED, COLUMN = "planted-model", "planted-column"  # names, which are kept: the search finds them
PROMPT, LEARNT = (f"canary{secrets.token_hex(8)}" for _ in range(2))


class House(NamedTuple):
    server: ServerProcess
    database_url: str | None
    secrets: dict[str, str]  # every one that was issued, by its name

    def key(self, name: str) -> str:
        body = {"name": name, "scopes": ["inference", "train"]}
        made = self.server.client.post("/v1/tenants/acme/keys", json=body).json()
        self.secrets[name] = made["secret"]
        return str(made["key"]["id"])

    def ask(self, path: str, body: Any, key: str = "good", **headers: str) -> httpx.Response:
        headers["Authorization"] = f"Bearer {self.secrets[key]}"
        return self.server.client.post(path, json=body, headers=headers)

    def change(self, *statements: str) -> None:
        """Behind the server's back."""
        database = connect(self.server.data, self.database_url)
        with closing(database), database.write() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))


@pytest.fixture
def house(data: Path, database_url: str | None) -> Iterator[House]:
    deploy_echo(data, PLANTED, database_url=database_url)
    env = {"OPENMAAS_DATABASE_URL": database_url or ""}
    with serving(data, **env) as server:
        found = House(server, database_url, {"environment": server.key})
        server.client.post("/v1/tenants", json={"id": "acme"})
        found.key("good")
        old = found.key("rotated")
        new = server.client.post(f"/v1/tenants/acme/keys/{old}/rotate", json={"overlap": 60})
        found.secrets["new"] = new.json()["secret"]
        server.client.delete(f"/v1/tenants/acme/keys/{found.key('revoked')}")
        found.secrets["command"] = cli(
            data, "keys", "create", "c", "--tenant", "acme", **env
        ).split()[-1]
        if database_url is not None:
            found.secrets["database"] = urlsplit(database_url).password or ""
        yield found


def test_nothing_keeps_a_secret_or_a_prompt(house: House) -> None:
    answer_well(house)
    learn(house)
    break_inside(house)
    crash(house)
    ask_wrongly(house)
    places = everywhere(house)
    house.server.stop()
    places["log"] = house.server.log.read_bytes()  # what it said at its end too
    for place in ("log", "database", "metrics", "processes"):
        assert PLANTED.encode() in places[place], place
    stored = {"what was learnt": LEARNT, "a column": COLUMN}  # sealed alone
    searched = house.secrets | {"a prompt": PROMPT} | stored
    assert len(set(searched.values())) >= 9
    hits = [
        (name, place)
        for name, value in searched.items()
        for place, content in places.items()
        if value.encode() in content
    ]
    assert hits == []


def answer_well(house: House) -> None:
    for name in ("good", "new", "rotated", "command"):
        for stream in (False, True):
            answer = house.ask("/v1/chat/completions", chat(PLANTED, PROMPT, stream=stream), name)
            assert answer.status_code == 200
    assert PROMPT in house.ask("/v1/chat/completions", chat(PLANTED, PROMPT)).text
    once = {"Idempotency-Key": PROMPT}
    for _ in range(2):
        body = {"model": PLANTED, "prompt": PROMPT, "max_tokens": 3}
        answer = house.ask("/v1/completions", body, **once)
        assert answer.status_code == 200, answer.text


def learn(house: House) -> None:
    """A data set that is read, and some that cannot be."""
    rows = "".join(f"{LEARNT} says {n},{n % 2}\n" for n in range(50))
    assert dataset(house, "good.csv", f"text,{COLUMN}\n{rows}") == "ready"
    headers = {"Authorization": f"Bearer {house.secrets['good']}"}
    (made,) = house.server.client.get("/v1/datasets", headers=headers).json()["data"]
    shown = house.server.client.get(f"/v1/datasets/{made['id']}/preview", headers=headers).text
    assert LEARNT in shown  # it is there, for who owns it
    assert COLUMN in shown
    for name, content in (
        ("ragged.csv", f"text,label\n{LEARNT},1,2,3\n"),
        ("cut.jsonl", f'{{"text": "{LEARNT}'),
        ("type.jsonl", f'{{"text": ["{LEARNT}"]}}\n{LEARNT}\n'),
        ("false.parquet", f"PAR1{LEARNT}PAR1"),
        ("false.npz", f"PK\3\4{LEARNT}"),
    ):
        assert dataset(house, name, content) == "failed", name


def dataset(house: House, name: str, content: str) -> str:
    headers = {"Authorization": f"Bearer {house.secrets['good']}"}
    client = house.server.client
    id = house.ask("/v1/uploads", {"name": name, "size": len(content)}).json()["id"]
    piece = headers | {"Upload-Offset": "0"}
    client.patch(f"/v1/uploads/{id}", content=content.encode(), headers=piece)
    made = house.ask("/v1/datasets", {"name": name, "upload": id}).json()
    if "id" not in made:
        return "failed"
    state = ""

    def done() -> bool:
        nonlocal state
        state = client.get(f"/v1/datasets/{made['id']}", headers=headers).json()["state"]
        return state in ("ready", "failed")

    house.server.wait_until(done, 60)
    return state


def break_inside(house: House) -> None:
    """Errors that nobody foresaw: as a key is looked up, a prompt is at hand, a row is written."""
    body, id = chat(PLANTED, PROMPT), house.key("scopeless")
    house.change(f"UPDATE keys SET scopes = '1' WHERE id = '{id}'")
    broken = house.ask("/v1/chat/completions", body, "scopeless")
    assert broken.status_code == 500
    assert broken.headers["x-request-id"] in house.server.log.read_text()
    house.change("ALTER TABLE usage RENAME TO gone")
    once = {"Idempotency-Key": "broken"}
    broken = house.ask("/v1/chat/completions", body, **once)
    assert broken.status_code in (500, 503)  # SQLite does not tell it from a file that is away
    assert broken.json()["error"]["message"]
    house.change("ALTER TABLE gone RENAME TO usage")
    assert house.ask("/v1/chat/completions", body, **once).status_code == 200
    house.change("DELETE FROM uploads", "CREATE UNIQUE INDEX one ON uploads (tenant)")
    file = {"name": f"{PROMPT}.csv", "size": 1}
    assert house.ask("/v1/uploads", file | {"name": "x.csv"}).status_code == 200
    assert house.ask("/v1/uploads", file).status_code == 500


def crash(house: House) -> None:
    for fault in ("crash", "oom"):
        body = chat(PLANTED, f"{PROMPT} <<{fault}>>")
        assert house.ask("/v1/chat/completions", body).status_code == 503
        house.server.wait_until(
            lambda: house.ask("/v1/chat/completions", chat(PLANTED, "a")).status_code == 200, 10
        )
    assert f"worker of {PLANTED} ended" in house.server.log.read_text()


def ask_wrongly(house: House) -> None:
    """What cannot be read, with the prompt or a secret where neither belongs."""
    client, good = house.server.client, house.secrets["good"]
    path, asked = "/v1/chat/completions", chat(PLANTED, PROMPT)
    bodies = (
        f'{{"model": "{PROMPT}'.encode(),
        json.dumps(asked).encode().replace(b'"', b"'"),
        json.dumps(asked).encode() + PROMPT.encode(),
        PROMPT.encode() + b"\xff\x00",
    )
    answers = [client.post(path, content=body) for body in bodies]
    answers += [
        client.post(path, json=body)
        for body in (
            asked | {PROMPT: 1},
            asked | {"model": PROMPT},
            asked | {"temperature": PROMPT},
            asked | {"messages": [{"role": PROMPT, "content": PROMPT}]},
            asked | {"messages": PROMPT, "api_key": good},
        )
    ]
    answers += [
        client.post(path, json=asked, headers=headers)
        for headers in (
            {"Content-Encoding": PROMPT},
            {"Content-Encoding": "gzip"},
            {"x-openmaas-priority": PROMPT},
            {"Authorization": f"Basic {good}"},
            {"Authorization": f"Bearer {good}x"},
            {"Authorization": PROMPT},
        )
    ]
    answers += [
        client.get(f"/v1/{PROMPT}"),
        client.get(f"/v1/models?key={good}&q={PROMPT}"),
        client.get(f"/v1/models/{PROMPT}"),
        client.get(f"/v1/tenants/{PROMPT}/keys/{good}"),
        client.post(f"/v2/models/{PROMPT}/infer", json={"inputs": []}),
        client.request(PROMPT.upper(), path),
    ]
    assert {answer.status_code // 100 for answer in answers} == {4}
    address = urlsplit(house.server.url)
    for start in (
        f"{PROMPT} {good}\r\n\r\n",
        f"POST {path} HTTP/1.1\r\nAuthorization: Bearer {good}\r\nContent-Length: {PROMPT}\r\n\r\n",
        f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{PROMPT}\r\n",
    ):
        with socket.create_connection((address.hostname, address.port), 30) as raw:
            raw.sendall(start.encode())
            assert b" 40" in raw.recv(1 << 16)


def everywhere(house: House) -> dict[str, bytes]:
    """What is kept or shown, by its place."""
    server = house.server
    files: dict[str, list[bytes]] = {"log": [], "database": [], "data folder": []}
    for path in server.data.rglob("*"):
        if not path.is_file():
            continue
        inside = path.relative_to(server.data).parts[0]
        place = "database" if inside.startswith("openmaas.db") else "data folder"
        place = "log" if inside == server.log.name else place
        files[place] += [str(path).encode(), path.read_bytes()]
    found = {place: b"\n".join(contents) for place, contents in files.items()}
    if house.database_url is not None:
        found["database"] = _rows(house.database_url, server.data)
    pids = [server.process.pid, *server.children()]
    found["processes"] = b"\n".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
    found["metrics"] = server.client.get("/metrics").content
    found["health"] = server.client.get("/health").content
    return found


def _rows(url: str, data: Path) -> bytes:
    """Every column of every row of every table."""
    with closing(connect(data, url)) as database, database.read() as connection:
        return b"\n".join(
            str(text).encode()
            for table in sa.inspect(connection).get_table_names()
            for text in connection.scalars(sa.text(f'SELECT t::text FROM "{table}" t'))
        )
