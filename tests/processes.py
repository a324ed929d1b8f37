"""Real servers as child processes, for tests."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock

ADMIN_KEY = "om-test-admin-key-0123456789"


def cli(data: Path, *arguments: str, timeout: float = 300, **env: str) -> str:
    """Runs one ``openmaas`` command on a data folder and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "openmaas.cli", *arguments],
        env=os.environ | {"OPENMAAS_DATA_DIR": str(data)} | env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def pulled(factory: pytest.TempPathFactory, name: str, models: Sequence[str]) -> Path:
    """A data folder with models pulled and nothing deployed; one for all processes that test."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"pulled-{name}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            scratch = folder.with_suffix(".new")
            scratch.mkdir()
            cli(scratch, "models", "pull", *models)
            scratch.rename(folder)
    return folder


class ServerProcess:
    """``openmaas serve`` on a free port."""

    def __init__(self, data: Path, **env: str) -> None:
        self.data = data
        self.key = ADMIN_KEY
        self.log = data / "server.log"
        self._output = self.log.open("ab")
        before = self.log.stat().st_size
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openmaas.cli", "serve", "--port", "0"],
            env=os.environ | {"OPENMAAS_DATA_DIR": str(data), "OPENMAAS_ADMIN_KEY": self.key} | env,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self.url = self._wait_for_url(before)
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=120
        )
        self.wait_until(lambda: self.client.get("/health").status_code == 200, 60)

    def _wait_for_url(self, before: int) -> str:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            text = self.log.read_bytes()[before:].decode(errors="replace")
            found = re.search(r"http://127\.0\.0\.1:\d+", text)
            if found:
                return found[0]
            assert self.process.poll() is None, f"the server ended: {text}"
            time.sleep(0.02)
        raise AssertionError("the server printed no address")

    def wait_until(self, holds: Any, seconds: float) -> float:
        """Polls until ``holds()``; returns how long that took."""
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            with contextlib.suppress(httpx.TransportError):
                if holds():
                    return time.monotonic() - start
            assert self.process.poll() is None, f"the server ended: {self.tail()}"
            time.sleep(0.02)
        raise AssertionError(f"did not come true within {seconds} s; {self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def rss(self) -> int:
        """Resident bytes of the gateway alone."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def worker_pid(self, model: str) -> int | None:
        """The process that serves a model now."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                if f'"deployment":"{model}"' in line:
                    return pid
        return None

    def workers(self) -> list[int]:
        """Children that hold a model: not the ledger's writer."""
        return [pid for pid in self.children() if b"serving.worker" in _command(pid)]

    def children(self) -> list[int]:
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
            return [int(pid) for task in tasks for pid in task.read_text().split()]
        return []

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self._output.close()


@contextlib.contextmanager
def serving(data: Path, **env: str) -> Iterator[ServerProcess]:
    server = ServerProcess(data, **env)
    try:
        yield server
    finally:
        server.stop()


def alive(pid: int) -> bool:
    """Whether a process runs: one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
