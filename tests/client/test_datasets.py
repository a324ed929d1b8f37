"""Data through the client: whatever form they have, and over links that break."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from openmaas.client import ApiError, Client, ConnectionFailed, DatasetFailed, datasets
from tests.link import Link, arrivals
from tests.processes import ServerProcess, serving
from tests.training.test_ingest_arrays import picture

LIMIT = 100_000


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("client") / "data"
    data.mkdir()
    with serving(data, OPENMAAS_LIMITS_BODY_BYTES=str(LIMIT)) as server:
        yield server


@pytest.fixture
def client(house: ServerProcess) -> Iterator[Client]:
    with Client(house.url, house.key) as found:
        yield found


class BreakingLink(Link):
    """A TCP proxy before a server that breaks the connections of the first pieces.

    Args:
        within: so many break before a piece is through.
        after: so many of the next break before its answer is.
    """

    def __init__(self, port: int, *, within: int = 0, after: int = 0) -> None:
        self.within, self.after, self.pieces = within, after, 0
        super().__init__(port)
        self.url = f"http://127.0.0.1:{self.port}"

    def relay(self, client: socket.socket, server: socket.socket) -> None:
        piece = False  # whether the last request is one
        for source, data in arrivals(client, server):
            if source is client and data.startswith((b"PATCH", b"GET", b"POST")):
                piece = data.startswith(b"PATCH")
                self.pieces += piece
                if piece and self.within:
                    self.within -= 1
                    server.sendall(data[: len(data) // 2])
                    return
            elif source is server and piece and self.after:
                self.after -= 1
                return
            (server if source is client else client).sendall(data)


def table(rows: int = 4000) -> bytes:
    lines = [f"{number},text number {number},{number % 3}" for number in range(rows)]
    return ("\n".join(["id,text,label", *lines]) + "\n").encode()


@pytest.mark.parametrize(("within", "after"), [(3, 0), (0, 3), (2, 2)])
def test_a_link_that_breaks(
    house: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    within: int,
    after: int,
) -> None:
    monkeypatch.setattr(datasets, "PIECE", 20_000)
    content = table()
    path = tmp_path / f"{within}{after}.csv"
    path.write_bytes(content)
    link = BreakingLink(int(house.url.rsplit(":", 1)[1]), within=within, after=after)
    told: list[tuple[int, int, str]] = []
    try:
        with Client(link.url, house.key) as client:
            made = client.datasets.upload(path, tell=lambda *news: told.append(news))
    finally:
        link.close()
    assert made.rows == 4000  # and its sha256 was checked by the server
    assert (link.within, link.after) == (0, 0)
    # What arrived though its answer was lost is not sent twice.
    assert link.pieces == -(-len(content) // 20_000) + within
    sent = [done for done, size, doing in told if doing == "sending" and size == len(content)]
    assert sent == sorted(sent)
    assert (len(content), len(content), "sent") in told


def test_pieces_fit_the_limit_of_the_server(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(table(30_000))
    assert path.stat().st_size > 5 * LIMIT
    assert client.datasets.upload(path).rows == 30_000


def test_what_another_process_began_goes_on(client: Client, house: ServerProcess) -> None:
    path = house.data / "begun.csv"
    path.write_bytes(table())
    size, sha256 = datasets._measured(path)
    body = {"name": path.name, "size": size, "sha256": sha256}
    begun = house.client.post("/v1/uploads", json=body).json()["id"]
    house.client.patch(f"/v1/uploads/{begun}", content=path.read_bytes()[:50_000],
                       headers={"upload-offset": "0"})  # fmt: skip
    told: list[int] = []
    assert client.datasets.send(path, lambda done, *_: told.append(done)) == begun
    assert told[0] == 50_000


def test_nobody_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(table(10))
    with Client("http://127.0.0.1:1") as client, pytest.raises(ConnectionFailed):
        client.datasets.upload(path)


def test_what_cannot_go_on_is_told_at_once(
    client: Client, house: ServerProcess, tmp_path: Path
) -> None:
    """The upload is removed while it is sent."""
    path = tmp_path / "gone.csv"
    path.write_bytes(table(30_000))

    def remove(done: int, size: int, _: str) -> None:
        if 0 < done < size:
            for one in house.client.get("/v1/uploads").json()["data"]:
                house.client.delete(f"/v1/uploads/{one['id']}")

    with pytest.raises(ApiError) as caught:
        client.datasets.upload(path, tell=remove)
    assert caught.value.status == 404


# --- forms ---------------------------------------------------------------------------------------


def test_rows_arrays_files_and_folders(client: Client, tmp_path: Path) -> None:
    rows = [{"text": "é\n" + "x" * number, "label": number % 2} for number in range(20)]
    assert client.datasets.upload(rows, name="rows").format == "jsonl"
    made = client.datasets.upload(iter(rows), name="an iterator", target="label", seed=3)
    assert (made.rows, made.target, made.name) == (20, "label", "an iterator")
    arrays = client.datasets.upload_arrays("arrays", x=np.eye(20), y=[0, 1] * 10)
    assert [one["name"] for one in arrays.columns] == ["x", "y"]
    assert arrays.splits == {"train": 14, "validation": 2, "test": 4}
    again = client.datasets.upload({"x": np.eye(20), "y": np.arange(20) % 2})
    assert again.fingerprint == arrays.fingerprint
    for number in range(6):
        folder = tmp_path / "pets" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(picture((number, 0, 0)))
    (tmp_path / "pets" / ".hidden").write_bytes(b"x")
    pets = client.datasets.upload(tmp_path / "pets", image_size=(4, 4), channels=1)
    assert (pets.name, pets.description["classes"]) == ("pets.zip", ["cats", "dogs"])
    assert pets.columns[0]["shape"] == [4, 4, 1]
    preview = client.datasets.preview(arrays.id)
    assert preview["rows"][1] == [[0.0, 1.0, *[0.0] * 18], 1]


def test_what_is_no_data(client: Client, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="objects"):
        client.datasets.upload(["a", "b"])
    with pytest.raises(FileNotFoundError):
        client.datasets.upload(tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match=r"(?i)object arrays"):
        client.datasets.upload_arrays("x", x=np.array([{}], dtype=object))
    with pytest.raises(DatasetFailed, match="nothing to learn"):
        client.datasets.upload([{"label": 1}, {"label": 1}])
    with pytest.raises(ApiError, match="colour"):
        client.datasets.upload([{"a": 1}], colour="red")


def test_the_client_needs_no_numpy() -> None:
    code = "import openmaas.client, sys; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "False", done.stderr
