"""F2, F4, F5: the gateway dies, the disk is full, PostgreSQL stops, a COMMIT's answer is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pysqlite3 import dbapi2 as sqlite

from tests.conftest import deploy_echo
from tests.faults.cut_link import CutLink
from tests.faults.metering import House, Seen, ledger, mixed, prepare, tenants
from tests.faults.test_metering import by_request, check_finished
from tests.postgres import Postgres
from tests.processes import ServerProcess, alive, serving

KILLS = int(os.environ.get("KILLS", "3"))  # `make soak-kill` takes 100


class Load:
    """Requests without end, in threads of their own."""

    def __init__(self, server: ServerProcess, workers: int = 4) -> None:
        self.seen: list[Seen] = []
        self.statuses: Counter[int] = Counter()
        self.headers: list[httpx.Headers] = []  # of refusals
        self._server = server
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(workers)
        self._jobs = [self._pool.submit(self._run, number) for number in range(workers)]

    def _run(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {self._server.key}"}
        body = {"model": "one", "max_tokens": 3, "messages": [{"role": "user", "content": "a b"}]}
        with httpx.Client(base_url=self._server.url, headers=headers, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/v1/chat/completions", json=body)
                except httpx.TransportError:
                    self._stop.wait(0.02)
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    used = answer.json()["usage"]
                    usage = used["prompt_tokens"], used["completion_tokens"]
                    id = answer.headers["x-request-id"]
                    self.seen.append(Seen(id, "default", 200, True, usage))
                else:
                    self.headers.append(answer.headers)
                    self._stop.wait(0.02)

    def stop(self) -> None:
        self._stop.set()
        for job in self._jobs:
            job.result(60)
        self._pool.shutdown()


def test_the_gateway_is_killed_again_and_again(data: Path, database_url: str | None) -> None:
    """F2: ready within 10 s, the database whole, every acknowledged row there, no orphan."""
    logs = prepare(data, database_url)
    env = {"OPENMAAS_DATABASE_URL": database_url or ""}
    seen: list[Seen] = []
    keys: dict[str, str] = {}
    for number in range(KILLS):
        began = time.monotonic()
        with serving(data, **env) as server:
            assert time.monotonic() - began < 10
            keys = keys or tenants(server)
            house = House(server, keys, logs)
            with ThreadPoolExecutor(1) as pool:
                some = pool.submit(mixed, house, 400, number, True)
                time.sleep(0.3 + 0.17 * (number % 7))  # a random moment, not a wait for anything
                children = server.children()
                server.process.kill()
                seen += some.result()
            server.process.wait()
            until = time.monotonic() + 10
            while any(map(alive, children)) and time.monotonic() < until:
                time.sleep(0.02)
            assert not any(map(alive, children))
        if database_url is None:
            with sqlite.connect(data / "openmaas.db") as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert sum(one.whole for one in seen) > KILLS
    with serving(data, **env) as server:
        check_finished(by_request(ledger(server)), seen)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


def test_postgresql_stops_and_comes_back(data: Path, own_postgres: Postgres) -> None:
    """F5: 503 with Retry-After meanwhile, back by itself, nothing lost or doubled."""
    url = own_postgres.url(own_postgres.database())
    prepare(data, url)
    with serving(data, OPENMAAS_DATABASE_URL=url) as server:
        load = Load(server)
        server.wait_until(lambda: load.statuses[200] > 50, 20)
        own_postgres.stop()
        server.wait_until(lambda: load.statuses[503] > 20, 20)
        good = load.statuses[200]
        server.wait_until(lambda: load.statuses[503] > 60, 20)
        assert load.statuses[200] == good  # nothing is served that could not be billed
        own_postgres.start()
        back = server.wait_until(lambda: load.statuses[200] > good + 20, 30)
        load.stop()
        assert back < 5
        assert set(load.statuses) == {200, 503}
        assert all(int(headers["retry-after"]) >= 1 for headers in load.headers)
        check_finished(by_request(ledger(server)), load.seen)


def test_the_answer_to_a_commit_is_lost(data: Path, postgres: Postgres) -> None:
    """F5: nobody knows whether it was committed; it is there once all the same."""
    name = postgres.database()
    prepare(data, postgres.url(name))
    link = CutLink(postgres.port)
    with serving(data, OPENMAAS_DATABASE_URL=postgres.url(name, link.port)) as server:
        load = Load(server)
        for cuts in range(1, 9):
            link.armed = 1
            server.wait_until(lambda cuts=cuts: link.cuts == cuts, 20)
            good = load.statuses[200]
            server.wait_until(lambda good=good: load.statuses[200] > good + 10, 20)
        load.stop()
        rows = ledger(server)
        check_finished(by_request(rows), load.seen)
        billed = sum(row["outcome"] == "ok" for row in rows)
        assert billed == load.statuses[200]
    link.close()


@pytest.fixture
def small_disk(data: Path, tmp_path: Path) -> Iterator[Path]:
    """The data folder on a disk of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = sum(file.stat().st_size for file in data.rglob("*") if file.is_file()) + (4 << 20)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes root")
    try:
        shutil.copytree(data, folder / "data")
        yield folder / "data"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    """F4: 507 rather than service that is not metered; back within 10 s of there being room."""
    deploy_echo(small_disk, "one")
    filler = small_disk / "filler"
    with serving(small_disk) as server:
        load = Load(server, 2)
        server.wait_until(lambda: load.statuses[200] > 20, 20)
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        server.wait_until(lambda: load.statuses[507] > 10, 60)
        good = load.statuses[200]
        server.wait_until(lambda: load.statuses[507] > 40, 30)
        assert load.statuses[200] == good
        filler.unlink()
        back = server.wait_until(lambda: load.statuses[200] > good + 20, 30)
        load.stop()
        assert back < 10
        assert set(load.statuses) <= {200, 503, 507}
        check_finished(by_request(ledger(server)), load.seen)


def test_the_ledgers_writer_is_killed(data: Path, database_url: str | None) -> None:
    """Another takes over; nothing is lost or doubled."""
    prepare(data, database_url)
    with serving(data, OPENMAAS_DATABASE_URL=database_url or "") as server:
        load = Load(server)
        for _ in range(3):
            good = load.statuses[200]
            server.wait_until(lambda good=good: load.statuses[200] > good + 30, 20)
            (writer,) = set(server.children()) - set(server.workers())
            os.kill(writer, signal.SIGKILL)
        good = load.statuses[200]
        server.wait_until(lambda: load.statuses[200] > good + 30, 20)
        load.stop()
        assert set(load.statuses) == {200}
        rows = ledger(server)
        check_finished(by_request(rows), load.seen)
        assert len(rows) == load.statuses[200]
