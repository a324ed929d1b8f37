"""A tenant is erased whatever dies on the way, wherever it is looked for, and others stay."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from openmaas.app import open_privacy
from openmaas.config import load
from openmaas.privacy.signing import verified
from tests.conftest import deploy_echo
from tests.postgres import Postgres
from tests.privacy.searching import places
from tests.privacy.seeds import canary, fill, ids
from tests.privacy.test_service import House, chat, store
from tests.processes import ServerProcess, cli, serving
from tests.stores import ME, opened

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("ERASURE_KILLS", "5"))  # `make soak-erasure` takes 1000: at every point
SERVER_KILLS = int(os.environ.get("ERASURE_SERVER_KILLS", "2"))
CANARIES = b"canary-acme-"


def run(data: Path, fatal: int, url: str | None = None) -> subprocess.CompletedProcess[str]:
    arguments = [str(data), "acme", str(fatal), *([url] if url else [])]
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.erasing_child", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def filled(digits_only: Path, folder: Path, url: str | None) -> Path:
    data = Path(shutil.copytree(digits_only, folder))
    with opened(data, url) as store:
        if url is not None:
            with opened(data) as files:
                store.records.add(files.records.version("digits"), ME)
        for tenant in ("acme", "other"):
            fill(store, data, tenant)
    return data


def check(data: Path, url: str | None) -> None:
    """Nothing is left but the record, and all of another tenant's is there."""
    settings = load(None, {}, {"data_dir": str(data), "database_url": url})
    with opened(data, url) as store:
        privacy = open_privacy(settings, store)
        (one,) = privacy.erasures.list("acme")
        assert one.state == "done"
        assert one.record is not None
        assert verified(one.record, privacy.signer.public_key())
        found = one.record.record["removed"]
        assert {kind: found[kind]["count"] for kind in ("uploads", "files", "data sets")} == {
            "uploads": 1, "files": 1, "data sets": 1,
        }  # fmt: skip
        assert privacy.erasing.left(one) == {}
        store.artifacts.manifest(store.records.version("learnt", tenant="other").digest, "other")
        _, bodies = privacy.retained.get("other", "req_other")
        assert bodies.sent == canary("other", "said").encode()
        assert (data / "uploads" / ids("other")["upload"]).exists()
        assert len(store.records.versions(tenant="other")) == 2
    assert places(data, CANARIES, url) == []


def test_it_is_killed_at_every_point_and_ends_all_the_same(
    digits_only: Path, tmp_path: Path, database_url: str | None, request: pytest.FixtureRequest
) -> None:
    def fresh(number: int) -> tuple[Path, str | None]:
        url = database_url
        if url is not None and number:
            postgres: Postgres = request.getfixturevalue("postgres")
            url = postgres.url(postgres.database())
        return filled(digits_only, tmp_path / str(number), url), url

    data, url = fresh(0)
    done = run(data, 0, url)
    assert done.returncode == 0, done.stderr
    check(data, url)
    points = int(done.stdout)
    assert points > 40
    chosen = sorted(random.Random(7).sample(range(1, points + 1), min(KILLS, points)))
    for point in chosen:
        data, url = fresh(point)
        assert run(data, point, url).returncode == -signal.SIGKILL, point
        again = run(data, 0, url)
        assert again.returncode == 0, (point, again.stderr)
        check(data, url)
        shutil.rmtree(data)


def test_a_server_that_is_killed_goes_on_when_it_is_back(digits_only: Path, tmp_path: Path) -> None:
    """Or the command does, where none is started again."""
    rng = random.Random(11)
    for number in range(SERVER_KILLS):
        data = Path(shutil.copytree(digits_only, tmp_path / str(number)))
        deploy_echo(data)
        with serving(data) as server, ExitStack() as stack:
            house = House(server, stack)
            clients = {name: house.tenant(name, retain_days=3) for name in ("acme", "other")}
            for name, client in clients.items():
                store(house, client, name)
                client.post("/v1/chat/completions", json=chat(f"canary-{name}-said"))
                house.kept(client, name, 1)
            id = begin(clients["acme"])
            time.sleep(rng.random() * 0.5)  # a random moment, not a wait for anything
            server.process.kill()
            server.process.wait()
        if number % 2:
            cli(data, "privacy", "erase", "acme", "--yes")
        with serving(data) as server:
            ended(server, id)
            assert places(data, CANARIES) == []
            with httpx.Client(base_url=server.url, headers=clients["other"].headers) as other:
                assert other.post("/v1/chat/completions", json=chat("hello")).status_code == 200
                assert b"canary-other-row" in other.get("/v1/tenants/other/export").content
        left_no_core(data)


def left_no_core(data: Path) -> None:
    for folder in (data, Path.cwd()):
        assert [path for path in folder.glob("core*") if path.is_file()] == []


def begin(client: httpx.Client) -> str:
    answer = client.post("/v1/tenants/acme/erase", json={"confirm": "acme"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def ended(server: ServerProcess, id: str) -> None:
    path = f"/v1/erasures/{id}"
    server.wait_until(lambda: server.client.get(path).json()["state"] == "done", 30)
