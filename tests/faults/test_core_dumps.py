"""T5: a gateway and a worker that are aborted with prompts in their memory leave no core file and
no word of a prompt, where the system would write one of any other process."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from openmaas.placement.local import IN_MEMORY
from tests.conftest import deploy_echo
from tests.faults.requests import chat
from tests.processes import ServerProcess, serving

PROMPT = f"canary{secrets.token_hex(8)}"
ABORT = f"canary = {PROMPT!r}; import os; os.abort()"


@pytest.fixture
def cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder in which the system writes a core file of whoever is aborted."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    resource.setrlimit(resource.RLIMIT_CORE, before)


def test_whoever_is_aborted_leaves_no_core(data: Path, cores: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", ABORT])
    if not dumped(other):
        pytest.skip("this system writes no core files")
    for path in cores.iterdir():  # none, where it hands them to a program
        assert PROMPT.encode() in path.read_bytes()
        path.unlink()
    deploy_echo(data, "slow", tokens_per_second=2)
    with serving(data) as server, ThreadPoolExecutor(4) as pool:
        worker = asked(server, pool)
        limits = Path(f"/proc/{worker}/limits").read_text()
        assert limits.split("Max core file size")[1].split()[:2] == ["0", "0"]
        os.kill(worker, signal.SIGABRT)
        server.wait_until(lambda: server.worker_pid("slow") not in (None, worker), 30)
        asked(server, pool)
        server.process.send_signal(signal.SIGABRT)
        assert not dumped(server.process)
    assert left(cores, data) == []


def asked(server: ServerProcess, pool: ThreadPoolExecutor) -> int:
    """Has a prompt answered slowly; the process of the worker that has it."""
    for _ in range(2):
        pool.submit(answered, server)
    running = 'openmaas_num_requests_running{model="slow"} 2.0'
    server.wait_until(lambda: running in server.client.get("/metrics").text, 30)
    pid = server.worker_pid("slow")
    assert pid is not None
    return pid


def answered(server: ServerProcess) -> None:
    try:
        server.client.post("/v1/chat/completions", json=chat("slow", PROMPT, max_tokens=200))
    except httpx.TransportError:
        return  # the gateway is gone


def dumped(process: subprocess.Popen[bytes]) -> bool:
    """Whether an aborted process was written down, wherever that is."""
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -os.WTERMSIG(status)
    assert process.returncode == -signal.SIGABRT
    return os.WCOREDUMP(status)


def left(*folders: Path) -> list[Path]:
    """Core files, and files that hold the prompt, in these folders and where scratch files lie."""
    everywhere = [path for folder in folders for path in folder.rglob("*")]
    for place in (IN_MEMORY, Path(tempfile.gettempdir())):
        everywhere += place.glob("core*")
        everywhere += [path for own in place.glob("openmaas-*") for path in own.rglob("*")]
    files = [path for path in everywhere if path.is_file()]
    return [one for one in files if one.name.startswith("core") or PROMPT.encode() in _read(one)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # another's, or gone
        return b""
