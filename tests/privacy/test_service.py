"""Retention, export, report and erasure as a tenant meets them: over HTTP, with a server that goes
on serving others."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from openmaas.privacy.signing import parsed, verified
from tests import batches
from tests.conftest import deploy_echo
from tests.privacy.searching import places
from tests.processes import ServerProcess, cli, serving

SCOPES = ["inference", "train", "manage"]


class House(NamedTuple):
    server: ServerProcess
    clients: ExitStack  # that are closed at the end

    def tenant(self, name: str, **policy: Any) -> httpx.Client:
        """A new tenant, and a client with its key."""
        self.server.client.post("/v1/tenants", json={"id": name}).raise_for_status()
        path = f"/v1/tenants/{name}"
        if policy:  # before the key is used: what is remembered of it follows in half a second
            self.server.client.put(f"{path}/privacy", json=policy).raise_for_status()
        body = {"name": f"canary-{name}-key", "scopes": SCOPES}
        secret = self.server.client.post(f"{path}/keys", json=body).json()["secret"]
        headers = {"Authorization": f"Bearer {secret}"}
        client = httpx.Client(base_url=self.server.url, headers=headers, timeout=60)
        return self.clients.enter_context(client)

    def kept(self, client: httpx.Client, name: str, count: int) -> list[dict[str, Any]]:
        """Waits until so many exchanges are on disk."""
        path = f"/v1/tenants/{name}/retained"
        self.server.wait_until(lambda: len(client.get(path).json()["data"]) >= count, 10)
        found: list[dict[str, Any]] = client.get(path).json()["data"]
        assert len(found) == count
        return found

    def done(self, id: str) -> dict[str, Any]:
        with httpx.Client(base_url=self.server.url) as anybody:  # no key: they are gone
            path = f"/v1/erasures/{id}"
            self.server.wait_until(lambda: anybody.get(path).json()["state"] == "done", 60)
            found: dict[str, Any] = anybody.get(path).json()
            return found


@pytest.fixture(scope="module")
def house(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    data = tmp_path_factory.mktemp("privacy") / "data"
    shutil.copytree(digits_only, data)
    deploy_echo(data)
    with serving(data) as server, ExitStack() as clients:
        yield House(server, clients)


def chat(text: str, **more: Any) -> dict[str, Any]:
    said = {"role": "user", "content": text}
    return {"model": "echo", "max_tokens": 9, "messages": [said], **more}


CHAT = "/v1/chat/completions"


# --- retention -----------------------------------------------------------------------------


def test_nothing_is_kept_unless_a_tenant_asks_for_it(house: House) -> None:
    client = house.tenant("plain")
    assert client.post(CHAT, json=chat("canary-plain-said")).status_code == 200
    asking = house.tenant("asking", retain_days=3)
    assert asking.post(CHAT, json=chat("hello")).status_code == 200
    house.kept(asking, "asking", 1)  # what is kept of both would be there by now
    found = client.get("/v1/tenants/plain/retained").json()
    assert (found["data"], found["days"]) == ([], [])
    assert places(house.server.data, "canary-plain-said") == []


def test_requests_and_answers_are_kept_as_they_were(house: House) -> None:
    client = house.tenant("keeper", retain_days=3)
    plain = client.post(CHAT, json=chat("canary-keeper-said"))
    stream = client.post(CHAT, json=chat("canary-keeper-said", stream=True))
    wrong = client.post(CHAT, json=chat("x", temperature="canary-keeper-wrong"))
    assert wrong.status_code == 400
    client.get("/v1/models")  # asks no model: it is not kept
    kept = house.kept(client, "keeper", 3)
    assert [one["status"] for one in kept] == [200, 200, 400]
    assert [one["model"] for one in kept] == ["echo@1", "echo@1", ""]
    for answer, one in zip((plain, stream, wrong), kept, strict=True):
        assert one["request"] == answer.headers["x-request-id"]
        path = f"/v1/tenants/keeper/retained/{one['request']}"
        found = client.get(path).json()
        assert found["answered"] == answer.text
        assert json.loads(found["sent"])["messages"]
        assert one["response_bytes"] == len(answer.content)
    for what in ("said", "wrong"):
        assert places(house.server.data, f"canary-keeper-{what}") == [], "sealed"
    first = kept[0]["request"]
    assert client.delete(f"/v1/tenants/keeper/retained/{first}").json()["removed"]
    assert client.get(f"/v1/tenants/keeper/retained/{first}").status_code == 404
    assert client.delete("/v1/tenants/keeper/retained").json() == {"removed": 2}
    assert client.get("/v1/tenants/keeper/retained").json()["data"] == []


def test_long_bodies_are_cut_and_say_so(house: House) -> None:
    client = house.tenant("lengthy", retain_days=3)
    text = "x" * (2 << 20)
    client.post(CHAT, json=chat("short", metadata={"x": text}))
    client.post("/v1/embeddings", json={"model": "nothing", "input": text})
    found = house.kept(client, "lengthy", 2)
    assert [one["cut"] for one in found] == [True, True]
    whole = client.get(f"/v1/tenants/lengthy/retained/{found[1]['request']}").json()
    assert len(whole["sent"]) == 1 << 20
    assert found[1]["request_bytes"] > 2 << 20


def test_what_is_answered_again_is_kept_once(house: House) -> None:
    client = house.tenant("again", retain_days=3)
    once = {"Idempotency-Key": "k"}
    answers = [client.post(CHAT, json=chat("a"), headers=once) for _ in range(3)]
    assert answers[2].headers["idempotent-replayed"] == "true"
    assert client.post(CHAT, json=chat("b")).status_code == 200
    first, second = house.kept(client, "again", 2)
    assert first["request"] == answers[0].headers["x-request-id"]
    found = client.get(f"/v1/tenants/again/retained/{first['request']}").json()
    assert (found["answered"], first["response_bytes"]) == (answers[0].text, len(answers[0].text))
    assert second["request"] > first["request"]


def test_a_key_that_hides_keeps_nothing(house: House) -> None:
    client = house.tenant("hider", retain_days=3)
    key = client.get("/v1/tenants/hider/keys").json()["data"][0]["id"]
    hide = client.put(f"/v1/tenants/hider/keys/{key}/redaction", json={"action": "hide"})
    assert hide.status_code == 200, hide.text

    def hides() -> bool:
        answer = client.post(CHAT, json=chat("write to canary-hider@example.com"))
        return answer.headers.get("x-openmaas-redacted") is not None

    house.server.wait_until(hides, 10)
    answer = client.post(CHAT, json=chat("write to canary-hider@example.com"))
    assert answer.status_code == 200
    other = house.tenant("hider-2", retain_days=3)
    assert other.post(CHAT, json=chat("a")).status_code == 200
    house.kept(other, "hider-2", 1)  # what is kept of both would be there by now
    kept = client.get("/v1/tenants/hider/retained").json()["data"]
    assert answer.headers["x-request-id"] not in {one["request"] for one in kept}
    both = {"retain_days": 3, "redaction": {"action": "hide"}}
    refused = client.put("/v1/tenants/hider/privacy", json=both)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "privacy.retain_days"


def test_the_command_lists_shows_and_removes(house: House) -> None:
    client, data = house.tenant("typed", retain_days=3), house.server.data
    client.post(CHAT, json=chat("canary-typed-said"))
    (one,) = house.kept(client, "typed", 1)
    assert one["request"] in cli(data, "privacy", "retained", "typed")
    shown = cli(data, "privacy", "retained", "typed", "--show", one["request"])
    assert "canary-typed-said" in shown
    cli(data, "privacy", "retained", "typed", "--remove", "all")
    assert client.get("/v1/tenants/typed/retained").json()["data"] == []
    client.post(CHAT, json=chat("canary-typed-said"))  # though the server remembers the day's key
    (two,) = house.kept(client, "typed", 1)
    found = client.get(f"/v1/tenants/typed/retained/{two['request']}").json()
    assert "canary-typed-said" in found["sent"]


# --- export and report -----------------------------------------------------------------------


def test_an_export_has_everything_and_its_digests_are_right(house: House) -> None:
    client = house.tenant("leaver", retain_days=3)
    stored = store(house, client, "leaver")
    client.post(CHAT, json=chat("canary-leaver-said"))
    house.kept(client, "leaver", 1)
    with client.stream("GET", "/v1/tenants/leaver/export") as answer:
        assert answer.headers["content-type"] == "application/x-tar"
        raw = b"".join(answer.iter_bytes())
    files = unpacked(raw)
    assert stored["content"] in files[f"uploads/{stored['upload']}"]
    assert b"canary-leaver-line" in files[f"files/{stored['file']}"]
    assert b"canary-leaver-name" in files["rows/uploads.jsonl"]
    assert b"canary-leaver-key" in files["rows/keys.jsonl"]
    assert b"hash" not in files["rows/keys.jsonl"]
    assert b"leaver" in files["rows/tenant.jsonl"]
    day = next(name for name in files if name.startswith("retained/"))
    assert b"canary-leaver-said" in files[day]
    output = json.loads(files["rows/batches.jsonl"])["output"]
    assert b"canary-leaver-line" in files[f"files/{output}"]
    for name in ("rows/usage.jsonl", "rows/audit.jsonl", "rows/data-sets.jsonl"):
        assert files[name].count(b"\n") >= 1, name
    inside = [name for name in files if name.startswith(f"datasets/{stored['dataset']}/")]
    assert any(b"canary-leaver-row" in files[name] for name in inside)
    text = files["README.txt"].decode()
    assert "leaver" in text
    assert "SHA256SUMS" in text
    assert "other" not in {json.loads(line)["tenant"] for line in rows(files["rows/usage.jsonl"])}


def test_the_command_exports_the_same(house: House, tmp_path: Path) -> None:
    client = house.tenant("mover", retain_days=3)
    client.post(CHAT, json=chat("canary-mover-said"))
    house.kept(client, "mover", 1)
    file = tmp_path / "mover.tar"
    cli(house.server.data, "privacy", "export", "mover", "--output", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    theirs = unpacked(client.get("/v1/tenants/mover/export").content)
    ours = unpacked(file.read_bytes())
    assert ours.keys() == theirs.keys()
    assert ours["rows/usage.jsonl"] == theirs["rows/usage.jsonl"]
    with pytest.raises(AssertionError, match="cannot make"):
        cli(house.server.data, "privacy", "export", "mover", "--output", str(file))


def test_tar_itself_and_sha256sum_read_it(house: House, tmp_path: Path) -> None:
    client = house.tenant("plainly", retain_days=3)
    store(house, client, "plainly")
    raw = client.get("/v1/tenants/plainly/export").content
    subprocess.run(["tar", "-xf", "-"], input=raw, cwd=tmp_path, check=True)
    inside = tmp_path / "openmaas-plainly"
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=inside, check=False
    )
    assert checked.returncode == 0
    there = {path.relative_to(inside).as_posix() for path in inside.rglob("*") if path.is_file()}
    summed = {line.split("  ", 1)[1] for line in (inside / "SHA256SUMS").read_text().splitlines()}
    assert there == summed | {"SHA256SUMS"}


def test_a_report_counts_what_is_there_and_tells_no_content(house: House) -> None:
    client = house.tenant("asker", retain_days=3)
    stored = store(house, client, "asker")
    client.post(CHAT, json=chat("canary-asker-said"))
    house.kept(client, "asker", 1)
    answer = client.get("/v1/tenants/asker/privacy/report")
    report = answer.json()
    held = {one["kind"]: one for one in report["held"]}
    assert {kind: held[kind]["count"] for kind in (
        "tenant", "projects", "keys", "uploads", "data sets", "files", "batches",
        "retained exchanges", "jobs",
    )} == {
        "tenant": 1, "projects": 1, "keys": 1, "uploads": 1, "data sets": 1, "files": 2,
        "batches": 1, "retained exchanges": 1, "jobs": 0,
    }  # fmt: skip
    assert held["uploads"]["bytes"] == len(stored["content"])
    assert held["data sets"]["sealed"] == "a key of each one's own"
    assert report["policy"]["retain_days"] == 3
    assert "3 days" in held["retained exchanges"]["until"]
    assert all(one["purpose"] and one["where"] and one["until"] for one in held.values())
    assert "canary" not in answer.text
    shown = cli(house.server.data, "privacy", "report", "asker")
    assert "data sets" in shown
    assert "canary" not in shown
    typed = json.loads(cli(house.server.data, "privacy", "report", "asker", "--json"))
    assert typed["held"] == report["held"]


# --- erasure -----------------------------------------------------------------------------------


def test_a_tenant_is_erased_beside_others(house: House) -> None:
    client, other = house.tenant("gone", retain_days=3), house.tenant("stays", retain_days=3)
    for one, name in ((client, "gone"), (other, "stays")):
        store(house, one, name)
        one.post(CHAT, json=chat(f"canary-{name}-said"), headers={"Idempotency-Key": name})
        house.kept(one, name, 1)
    data = house.server.data
    names = {place.split("/")[0].split("-")[0] for place in places(data, "canary-gone")}
    assert names == {"openmaas.db"}, "names alone, which are metadata"
    refused = client.post("/v1/tenants/gone/erase", json={"confirm": "stays"})
    assert refused.status_code == 400
    begun = client.post("/v1/tenants/gone/erase", json={"confirm": "gone"}).json()
    house.server.wait_until(lambda: client.get("/v1/models").status_code == 401, 5)
    done = house.done(begun["id"])
    assert places(data, "canary-gone") == []
    key = house.server.client.get("/v1/erasures/key").json()["public_key"]
    assert verified(parsed(json.dumps(done["record"]).encode()), key)
    assert done["found"]["things"]["data sets"]["count"] == 1
    listed = house.server.client.get("/v1/tenants/gone/erasures").json()["data"]
    assert [one["id"] for one in listed] == [begun["id"]]
    assert other.post(CHAT, json=chat("hello")).status_code == 200
    (first, _) = house.kept(other, "stays", 2)
    kept = other.get(f"/v1/tenants/stays/retained/{first['request']}").json()
    assert "canary-stays-said" in kept["sent"]
    files = unpacked(other.get("/v1/tenants/stays/export").content)
    assert any(name.startswith("datasets/") for name in files)
    report = house.server.client.get("/v1/tenants/gone/privacy/report").json()
    left = {one["kind"] for one in report["held"] if one["count"]}
    assert left == {"tenant", "audit", "usage", "usage by day", "erasures"}


def test_the_command_has_the_server_do_it(house: House, tmp_path: Path) -> None:
    client = house.tenant("typing", retain_days=3)
    store(house, client, "typing")
    data, file = house.server.data, tmp_path / "record.json"
    with pytest.raises(AssertionError, match="--yes"):
        cli(data, "privacy", "erase", "typing")
    told = cli(data, "privacy", "erase", "typing", "--yes", "--record", str(file))
    assert "data sets" in told
    assert places(data, "canary-typing") == []
    assert "record.json: all of the tenant" in cli(data, "privacy", "verify", str(file))
    listed = cli(data, "privacy", "erasures", "typing")
    assert "done" in listed


def test_a_stream_is_ended(house: House) -> None:
    """Of a tenant that is erased meanwhile: nobody is answered any more."""
    client = house.tenant("streamer", retain_days=3)
    with client.stream("POST", CHAT, json=chat("<<slow>> a b c", stream=True, max_tokens=9)) as one:
        events = one.iter_lines()
        next(events)
        house.server.client.post("/v1/tenants/streamer/erase", json={"confirm": "streamer"})
        listed = house.server.client.get("/v1/tenants/streamer/erasures").json()["data"]
        assert house.done(listed[0]["id"])["state"] == "done"


def test_a_data_set_is_erased_with_proof(house: House) -> None:
    client = house.tenant("learner")
    stored = store(house, client, "learner")
    path = f"/v1/datasets/{stored['dataset']}"
    assert client.post(f"{path}/erase", json={"confirm": "ds_0"}).status_code == 400
    begun = client.post(f"{path}/erase", json={"confirm": stored["dataset"]}).json()
    done = house.done(begun["id"])
    assert done["object"] == stored["dataset"]
    assert done["record"]["record"]["removed"]["data sets"]["count"] == 1
    assert client.get(path).status_code == 404
    assert client.get(f"/v1/uploads/{stored['upload']}").status_code == 200
    assert client.post(f"{path}/erase", json={"confirm": stored["dataset"]}).status_code == 404
    assert places(house.server.data, "canary-learner-rows") == []


def store(house: House, client: httpx.Client, name: str) -> dict[str, Any]:
    """An upload, a data set, a file and a batch with its answers."""
    content = f"canary-{name}-content".encode()
    made: dict[str, Any] = {"content": content}
    made["upload"] = send(client, f"canary-{name}-name.bin", content)
    rows = "".join(f"canary-{name}-row {number},{number % 2}\n" for number in range(20))
    table = f"canary-{name}-column,label\n{rows}".encode()
    id = send(client, f"canary-{name}-name.csv", table)
    body = {"name": f"canary-{name}-rows", "upload": id}
    made["dataset"] = client.post("/v1/datasets", json=body).json()["id"]
    one = f"/v1/datasets/{made['dataset']}"
    house.server.wait_until(lambda: client.get(one).json()["state"] == "ready", 30)
    lines = [batches.line(f"canary-{name}-line")]  # it says its own name
    batch = batches.begin(client, lines)
    done = batches.finished(house.server, client, batch)
    assert done["status"] == "completed", done
    made["file"] = done["input_file_id"]
    return made


def send(client: httpx.Client, name: str, content: bytes) -> str:
    id = str(client.post("/v1/uploads", json={"name": name, "size": len(content)}).json()["id"])
    headers = {"Upload-Offset": "0"}
    client.patch(f"/v1/uploads/{id}", content=content, headers=headers).raise_for_status()
    return id


def unpacked(raw: bytes) -> dict[str, bytes]:
    """Entries by name, all of them with the digest that is told."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        for entry in tar:
            opened = tar.extractfile(entry)
            assert opened is not None
            files[entry.name.split("/", 1)[1]] = opened.read()
    sums = files["SHA256SUMS"].decode().splitlines()
    told = {name: digest for digest, name in (line.split("  ", 1) for line in sums)}
    real = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    del real["SHA256SUMS"]
    assert told == real
    return files


def rows(content: bytes) -> list[str]:
    return content.decode().splitlines()
