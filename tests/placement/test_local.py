"""Workers as the server starts them: confined, in a folder in memory that goes with them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from openmaas.config import SANDBOX_VARIABLE, Settings, load
from openmaas.errors import ConfigurationError, WorkerFailed
from openmaas.frames import Ready, Refused
from openmaas.placement import sandbox
from openmaas.placement.base import WorkerSpec
from openmaas.placement.local import LocalPlacement, LocalWorker
from tests.stores import opened

AVAILABLE = sandbox.available()


def spec(data: Path, **more: object) -> WorkerSpec:
    with opened(data) as store:
        digest = store.records.version("digits").digest
        root = str(store.artifacts.root)
    return WorkerSpec(
        deployment="digits", runtime="openvino_tensors", artifacts=root, digest=digest,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def scratch_of(worker: LocalWorker) -> Path:
    return Path(os.readlink(f"/proc/{worker.pid}/cwd"))


def status_of(worker: LocalWorker) -> dict[str, str]:
    lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


async def started(
    place: LocalPlacement, wanted: WorkerSpec
) -> tuple[LocalWorker, Ready | Refused, asyncio.Future[str]]:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    worker, first = await place.start(wanted, lambda _: None, lambda _: None, ended.set_result)
    return worker, first, ended


async def test_a_worker_says_what_confines_it_and_the_kernel_agrees(
    digits_only: Path, tmp_path: Path
) -> None:
    worker, first, ended = await started(LocalPlacement(tmp_path), spec(digits_only))
    assert isinstance(first, Ready)
    assert first.info.layers == AVAILABLE
    fields = status_of(worker)
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["CapEff"], 16) in (0, 2)  # root's right to files at the most
    if sandbox.SECCOMP in AVAILABLE:
        assert fields["Seccomp"] == "2"
    if sandbox.NETWORK in AVAILABLE:
        assert os.readlink(f"/proc/{worker.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    scratch = scratch_of(worker)
    assert scratch.stat().st_mode & 0o777 == 0o700
    await worker.stop(5)
    await ended
    assert not scratch.exists()


async def test_a_killed_workers_folder_goes_and_so_does_a_killed_servers(
    digits_only: Path, tmp_path: Path
) -> None:
    worker, _, ended = await started(LocalPlacement(tmp_path), spec(digits_only))
    scratch = scratch_of(worker)
    os.kill(worker.pid, signal.SIGKILL)
    await ended
    assert not scratch.exists()
    left = scratch.parent / f"{scratch.name.rpartition('-')[0]}-left"
    left.mkdir()
    other = LocalPlacement(tmp_path / "another")  # a server's of another data folder
    assert left.exists()
    assert LocalPlacement(tmp_path)._prefix != other._prefix
    assert not left.exists()


async def test_a_file_of_its_options_may_be_written_and_none_beside_it(
    digits_only: Path, tmp_path: Path
) -> None:
    """The echo runtime's log, by which tests know what it said."""
    log = tmp_path / "tokens.jsonl"
    place = LocalPlacement(tmp_path)
    echo = {"runtime": "echo", "options": {"task": "chat", "token_log": str(log)}}
    told = spec(digits_only)
    allowed, first, ended = await started(place, _changed(told, **echo, writes=[str(log)]))
    assert isinstance(first, Ready)
    await allowed.stop(5)
    await ended
    if sandbox.WRITES in AVAILABLE:
        log.unlink()
        refused, word, ended = await started(place, _changed(told, **echo))
        assert isinstance(word, Refused)
        await refused.stop(5)
        await ended
        assert not log.exists()


async def test_where_it_is_required_nothing_runs_unconfined(
    digits_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that cannot filter system calls, made by a module of its name that finds none."""
    (tmp_path / "sitecustomize.py").write_text(
        "import platform\nplatform.machine = lambda: 'riscv64'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    place, told = LocalPlacement(tmp_path), spec(digits_only)
    monkeypatch.setenv(SANDBOX_VARIABLE, "best")
    worker, first, ended = await started(place, told)
    assert isinstance(first, Ready)
    assert sandbox.SECCOMP not in first.info.layers
    await worker.stop(5)
    await ended
    monkeypatch.setenv(SANDBOX_VARIABLE, sandbox.REQUIRED)
    with pytest.raises(WorkerFailed, match="not confined by seccomp: not run"):
        await started(place, told)


def test_the_setting_and_what_children_are_told_have_one_name() -> None:
    assert SANDBOX_VARIABLE == sandbox.POLICY_VARIABLE
    assert load(None, {SANDBOX_VARIABLE: "required"}, {}).sandbox == sandbox.REQUIRED
    assert Settings().sandbox == "best"
    with pytest.raises(ConfigurationError):
        load(None, {SANDBOX_VARIABLE: "off"}, {})


def _changed(told: WorkerSpec, **more: object) -> WorkerSpec:
    return msgspec.structs.replace(told, **more)
