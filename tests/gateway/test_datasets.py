"""I4 and I5 for data: uploads in pieces and what is made of them, through a real server."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.processes import ServerProcess, serving
from tests.stores import memory_of
from tests.training.service import digits, submit

from openmaas.client import ApiError, Client, DatasetFailed

LIMIT = 1 << 24


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("datasets") / "data"
    data.mkdir()
    with serving(data, OPENMAAS_LIMITS_BODY_BYTES=str(LIMIT)) as server:
        yield server


@pytest.fixture(scope="module")
def client(house: ServerProcess) -> Iterator[Client]:
    with Client(house.url, house.key) as found:
        yield found


def begin(house: ServerProcess, size: int, name: str = "x.csv", **more: Any) -> str:
    answer = house.client.post("/v1/uploads", json={"name": name, "size": size, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def send(
    house: ServerProcess, id: str, offset: int | str, content: Any, **headers: str
) -> httpx.Response:
    told = {"upload-offset": str(offset)} | headers
    return house.client.patch(f"/v1/uploads/{id}", content=content, headers=told)


def received(house: ServerProcess, id: str) -> int:
    return int(house.client.get(f"/v1/uploads/{id}").json()["received"])


def uploaded(house: ServerProcess, content: bytes, name: str = "x.csv") -> str:
    id = begin(house, len(content), name)
    assert send(house, id, 0, content).json()["received"] == len(content)
    return id


class Peak:
    """The most memory that a server has meanwhile."""

    def __init__(self, house: ServerProcess) -> None:
        self.most, self._house, self._over = 0, house, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.002):
            self.most = max(self.most, self._house.rss())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


# --- the limit of a piece ------------------------------------------------------------------------


def by_length(content: bytes) -> tuple[Any, dict[str, str]]:
    return content, {}


def in_chunks(content: bytes) -> tuple[Any, dict[str, str]]:
    return (content[at : at + 70_000] for at in range(0, len(content), 70_000)), {}


def packed(content: bytes) -> tuple[Any, dict[str, str]]:
    return gzip.compress(content, 1), {"content-encoding": "gzip"}


@pytest.mark.parametrize("how", [by_length, in_chunks, packed])
def test_a_piece_of_the_limit_and_one_of_a_byte_more(
    house: ServerProcess, how: Callable[[bytes], tuple[Any, dict[str, str]]]
) -> None:
    id = begin(house, 3 * LIMIT)
    content, headers = how(b"x" * LIMIT)
    assert send(house, id, 0, content, **headers).json()["received"] == LIMIT
    content, headers = how(b"x" * (LIMIT + 1))
    answer = send(house, id, LIMIT, content, **headers)
    assert answer.status_code == 413
    assert str(LIMIT) in answer.json()["error"]["message"]
    # Of what has no length told before, the slices until there are to be on disk.
    assert LIMIT <= received(house, id) <= (2 * LIMIT if how is in_chunks else LIMIT)
    house.client.delete(f"/v1/uploads/{id}")


def test_pieces_cost_little_memory(house: ServerProcess) -> None:
    content = b"x" * LIMIT
    uploaded(house, content)  # whatever is kept is there now
    ids = [begin(house, LIMIT) for _ in range(4)]
    before = house.rss()
    with ThreadPoolExecutor(4) as pool, Peak(house) as peak:
        answers = list(pool.map(lambda id: send(house, id, 0, content), ids))
    assert [one.json()["received"] for one in answers] == [LIMIT] * 4
    assert peak.most - before < LIMIT  # of 4 LIMIT


# --- pieces --------------------------------------------------------------------------------------


def test_a_wrong_offset_is_told_the_right_one(house: ServerProcess) -> None:
    id = begin(house, 10)
    assert send(house, id, 0, b"0123").headers["upload-offset"] == "4"
    for offset in (0, 3, 5, 10, 10**17):
        answer = send(house, id, offset, b"xxxx")
        assert answer.status_code == 409
        assert answer.headers["upload-offset"] == "4"
        assert answer.json()["error"]["param"] == "Upload-Offset"
    assert send(house, id, 4, b"456789x").status_code == 413
    assert send(house, id, 4, b"456789").json()["received"] == 10
    assert send(house, id, 0, b"0123").headers["upload-offset"] == "10"
    assert b"0123456789" not in (house.data / "uploads" / id).read_bytes()


@pytest.mark.parametrize("offset", ["", "-1", "1.5", "0x1", "1" * 19])
def test_an_offset_that_is_none(house: ServerProcess, offset: str) -> None:
    answer = send(house, begin(house, 10), offset, b"x")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Upload-Offset"


def test_a_piece_of_another_media_type(house: ServerProcess) -> None:
    answer = send(house, begin(house, 10), 0, b"{}", **{"content-type": "application/json"})
    assert answer.status_code == 415


def test_the_sum_is_checked_when_it_is_whole(house: ServerProcess) -> None:
    content = b"a,b\n1,2\n3,4\n"
    id = begin(house, len(content), sha256=hashlib.sha256(content).hexdigest())
    send(house, id, 0, content[:6])
    answer = send(house, id, 6, b"x" * (len(content) - 6))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "sha256"
    assert received(house, id) == 0
    assert send(house, id, 0, content).json()["received"] == len(content)


def test_an_upload_that_is_not_whole_is_no_data_set(house: ServerProcess) -> None:
    body = {"name": "x", "upload": begin(house, 10)}
    answer = house.client.post("/v1/datasets", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "upload"
    assert "0 of 10 bytes" in answer.json()["error"]["message"]


def test_a_tenant_stores_no_more_than_its_quota(house: ServerProcess) -> None:
    house.client.post("/v1/tenants", json={"id": "small", "quota": {"stored_bytes": 1000}})
    key = {"name": "x", "scopes": ["train"]}
    secret = house.client.post("/v1/tenants/small/keys", json=key).json()["secret"]
    headers = {"authorization": f"Bearer {secret}"}

    def ask(size: int) -> httpx.Response:
        body = {"name": "x.csv", "size": size}
        return house.client.post("/v1/uploads", json=body, headers=headers)

    assert ask(1001).status_code == 429
    first = ask(600)
    assert first.status_code == 200
    refused = ask(401)
    assert refused.status_code == 429
    assert "stored_bytes=1000" in refused.json()["error"]["message"]
    assert ask(400).status_code == 200
    house.client.delete(f"/v1/uploads/{first.json()['id']}", headers=headers)
    assert ask(600).status_code == 200


# --- data sets -----------------------------------------------------------------------------------


def test_what_is_read_is_described_previewed_listed_in_pages(
    house: ServerProcess, client: Client
) -> None:
    rows = [{"text": f"word {at}", "label": "odd" if at % 2 else "even"} for at in range(40)]
    made = [client.datasets.upload(rows, name=f"set {number}") for number in range(3)]
    assert len({one.fingerprint for one in made}) == 1
    assert made[0].splits == {"train": 28, "validation": 4, "test": 8}
    preview = house.client.get(f"/v1/datasets/{made[0].id}/preview").json()
    assert preview["columns"] == ["text", "label"]
    assert preview["rows"][:2] == [["word 0", "even"], ["word 1", "odd"]]

    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = house.client.get("/v1/datasets", params={"limit": "2"} | after).json()
        found += [one["id"] for one in page["data"]]
        assert page["last_id"] == found[-1]
        after = {"after": page["last_id"]}
        if not page["has_more"]:
            break
    assert len(set(found)) == len(found)
    assert {one.id for one in made} <= set(found)
    assert house.client.get("/v1/datasets?after=ds_00").status_code == 404
    assert house.client.get("/v1/datasets?limit=0").status_code == 400
    assert house.client.get("/v1/datasets?limit=1001").status_code == 400


def test_uploads_are_listed_in_pages(house: ServerProcess) -> None:
    made = {begin(house, 10) for _ in range(3)}
    found: list[str] = []
    query = {"limit": "2"}
    while True:
        page = house.client.get("/v1/uploads", params=query).json()
        found += [one["id"] for one in page["data"]]
        query["after"] = page["last_id"]
        if not page["has_more"]:
            break
    assert len(set(found)) == len(found)
    assert made <= set(found)


def test_what_a_job_learns_from_is_not_removed(house: ServerProcess, client: Client) -> None:
    dataset = client.datasets.upload_arrays("digits", **digits())
    job = submit(client, dataset, fit={"epochs": 50_000})
    answer = house.client.delete(f"/v1/datasets/{dataset.id}")
    assert answer.status_code == 409
    assert job.id in answer.json()["error"]["message"]
    job.cancel()
    house.wait_until(lambda: job.refresh().state == "cancelled", 60)
    assert (house.data / "datasets" / dataset.id).is_dir()
    client.datasets.delete(dataset.id)
    assert not (house.data / "datasets" / dataset.id).exists()
    with pytest.raises(ApiError) as caught:
        client.datasets.preview(dataset.id)
    assert caught.value.status == 404


# --- what is made to do harm ---------------------------------------------------------------------


class Harm:
    """Unpickled, it writes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def pickled(canary: Path) -> tuple[bytes, str]:
    file = io.BytesIO()
    harm = np.array([Harm(canary)] * 3, dtype=object)
    np.savez(file, x=np.zeros(3), y=harm)
    return file.getvalue(), "x.npz"


def zipped(*names: str) -> tuple[bytes, str]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"\x89PNG")
    return file.getvalue(), "x.zip"


def climbing(canary: Path) -> tuple[bytes, str]:
    return zipped("a/1.png", f"../../../../{canary.name}/b.png", f"..{os.sep}{canary.name}.png")


def absolute(canary: Path) -> tuple[bytes, str]:
    return zipped("a/1.png", f"{canary}/b.png")


def climbing_array(canary: Path) -> tuple[bytes, str]:
    content, _ = zipped(f"../../../{canary.name}.npy")
    return content, "x.npz"


def linked(canary: Path) -> tuple[bytes, str]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(canary))
        archive.writestr("b/1.png", b"\x89PNG")
    return file.getvalue(), "x.zip"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (pickled, "'y' holds"),
        (climbing, "unsafe name"),
        (absolute, "unsafe name"),
        (climbing_array, "unsafe name"),
        (linked, "link"),
    ],
)
def test_harm_in_an_archive_is_refused_undone(
    house: ServerProcess,
    client: Client,
    tmp_path: Path,
    harm: Callable[[Path], tuple[bytes, str]],
    words: str,
) -> None:
    canary = tmp_path / "canary"
    content, name = harm(canary)
    upload = uploaded(house, content, name)
    made = house.client.post("/v1/datasets", json={"name": "harm", "upload": upload}).json()
    with pytest.raises(DatasetFailed, match=words):
        client.datasets.wait(made["id"])
    failed = house.client.get(f"/v1/datasets/{made['id']}").json()
    assert failed["state"] == "failed"
    assert failed["error"]["code"]
    assert str(house.data) not in failed["error"]["message"]
    assert house.client.get(f"/v1/datasets/{made['id']}/preview").status_code == 409
    assert not (house.data / "datasets" / made["id"]).exists()
    house.wait_until(lambda: not list((memory_of(house.data) / "reading").iterdir()), 10)
    assert not canary.exists()
    assert not list(house.data.parent.rglob("canary*"))
    assert client.datasets.upload([{"a": 1, "b": 2}] * 3).state == "ready"  # it reads on


# --- kill -9 -------------------------------------------------------------------------------------


def table_of(rows: int) -> bytes:
    numbers = np.arange(rows)
    lines = [f"{at},{at * 0.37:.4f},word{at % 97}" for at in numbers.tolist()]
    return ("\n".join(["id,x,label", *lines]) + "\n").encode()


def test_an_upload_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    content = table_of(20_000)
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    data = tmp_path / "data"
    data.mkdir()
    third = len(content) // 3
    with serving(data) as server:
        id = begin(server, len(content), path.name, sha256=hashlib.sha256(content).hexdigest())
        assert send(server, id, 0, content[:third]).json()["received"] == third
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(
                f"PATCH /v1/uploads/{id} HTTP/1.1\r\nHost: x\r\nUpload-Offset: {third}\r\n"
                f"Authorization: Bearer {server.key}\r\nContent-Length: {third}\r\n\r\n".encode()
                + content[third : third + third // 2]
            )
            server.process.kill()
            server.process.wait()
    with serving(data) as server, Client(server.url, server.key) as client:
        assert received(server, id) == third  # what was answered, and no byte that was not
        made = client.datasets.upload(path)  # the same bytes: it goes on with them
        server.wait_until(lambda: server.client.get("/v1/uploads").json()["data"] == [], 10)
        assert made.told["upload"] == id
        assert made.rows == 20_000


def test_a_data_set_is_read_anew_after_the_server_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(table_of(300_000))
    data = tmp_path / "data"
    data.mkdir()
    with serving(data) as server, Client(server.url, server.key) as client:
        made = client.datasets.upload(path, target="label", wait=False)
        scratch = memory_of(data) / "reading" / made.id / "out"
        server.wait_until(lambda: scratch.is_dir() and any(scratch.iterdir()), 30)
        assert client.datasets.get(made.id).state == "reading"
        answer = server.client.delete(f"/v1/uploads/{made.told['upload']}")
        assert answer.status_code == 409
        server.process.kill()
        server.process.wait()
    assert not (data / "datasets" / made.id).exists()
    with serving(data) as server, Client(server.url, server.key) as client:
        assert client.datasets.get(made.id).state in ("waiting", "reading")
        done = client.datasets.wait(made.id)
        assert done.rows == 300_000
        assert done.target == "label"
        server.wait_until(lambda: not list((data / "uploads").iterdir()), 10)
        assert server.client.get("/v1/uploads").json()["data"] == []
        assert [one.name for one in (data / "datasets").iterdir()] == [made.id]
        assert not list((memory_of(data) / "reading").iterdir())
