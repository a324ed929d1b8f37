"""A trainer's process as the supervisor sees it: started, followed, stopped, believed little."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

import openmaas
from openmaas.config import told_children
from openmaas.errors import TrainingFailed

SANDBOX = "openmaas.placement.sandbox"  # run as a program
SAID = b"@openmaas "  # before each line that is the trainer's; libraries print what they like
LINE = 1 << 16  # bytes of one line
NEWS = 10_000  # that are kept until they are asked for
ERROR_BYTES = 1 << 16
LOG_BYTES = 4096
NICE = 10  # requests come first where the cores are contended
FILE_BYTES = 64 << 30
ADDRESS_SPACE = 64 << 30  # frameworks reserve far more than they use; what they use is watched
# after a checkpoint; only what is cancelled needs none
SIGNALS = {"cancel": signal.SIGTERM}


class Bounds(msgspec.Struct, frozen=True):
    """What one trainer may take."""

    threads: int
    memory: int  # bytes, resident


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a trainer."""

    kind: Literal["epoch", "step", "checkpoint", "message"]
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    metrics: dict[str, float | None] = {}
    text: str = ""

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class Running:
    """One process, from start to end."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, bounds: Bounds) -> None:
        self.checkpoints = 0
        self._process = process
        self._folder = folder
        self._bounds = bounds
        self._news: list[Said] = []
        self._pending = b""
        self._killed = ""  # why we did it
        self._watch = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, module: str, folder: Path, readable: Sequence[Path], bounds: Bounds
    ) -> Running:
        """Starts ``module FOLDER`` where it may write in the folder alone.

        Raises:
            TrainingFailed: the system starts no more processes.
        """
        limits = {"address_space": ADDRESS_SPACE, "file_bytes": FILE_BYTES}
        command = [sys.executable, "-m", SANDBOX, "--write", str(folder)]
        for path in (folder, *readable):
            command += ["--read", str(path)]
        command += ["--limits", msgspec.json.encode(limits).decode(), "--module", module]
        for name in ("error.json", "result.json"):
            (folder / name).unlink(missing_ok=True)
        (folder / "tmp").mkdir(exist_ok=True)
        try:
            with open(folder / "log", "ab") as log:  # noqa: ASYNC230  a local file, for its number
                process = await asyncio.create_subprocess_exec(
                    *command,
                    "--",
                    str(folder),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    env=environment(folder, bounds.threads),
                    cwd=folder,
                    start_new_session=True,
                )
        except OSError as error:
            raise TrainingFailed(f"no process could be started: {error.strerror}") from None
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        return cls(process, folder, bounds)

    # --- following --------------------------------------------------------------------------

    async def ended(self, seconds: float) -> bool:
        """Waits for its end, so long at the most; one that takes too much memory is ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._watch)
            return True
        if self._memory() > self._bounds.memory:
            self._killed = f"it took more than {self._bounds.memory >> 20} MiB of memory"
            self.kill()
        return False

    def news(self) -> list[Said]:
        """What it said since the last time."""
        news, self._news = self._news, []
        return news

    @property
    def status(self) -> int:
        return self._process.returncode if self._process.returncode is not None else -1

    @property
    def end(self) -> str:
        """How it ended, in words."""
        if self._killed:
            return self._killed
        code = self.status
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    @property
    def last_words(self) -> str:
        """The last line of its log."""
        with contextlib.suppress(OSError), open(self._folder / "log", "rb") as log:
            log.seek(max(0, log.seek(0, 2) - LOG_BYTES))
            lines = log.read(LOG_BYTES).decode(errors="replace").strip().splitlines()
            return printable(lines[-1]) if lines else ""
        return ""

    def error(self) -> TrainingFailed | None:
        """What it says was wrong with what it was given."""
        try:
            with open(self._folder / "error.json", "rb") as file:
                told = msgspec.json.decode(file.read(ERROR_BYTES), type=dict[str, str])
            return TrainingFailed(printable(told["message"], 2000), cause=told["code"])
        except (OSError, msgspec.DecodeError, KeyError):
            if self._killed:
                return TrainingFailed(self._killed, cause="out_of_memory")
            return None

    # --- ending ------------------------------------------------------------------------------

    def ask(self, wish: str) -> None:
        """Tells it to end: at once where the wish is "cancel", else after a checkpoint."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(SIGNALS.get(wish, signal.SIGUSR1))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _memory(self) -> int:
        try:
            fields = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        except OSError:
            return 0
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(LINE):
            *lines, self._pending = (self._pending + data).split(b"\n")
            self._pending = self._pending[-LINE:]
            for line in lines:
                self._take(line)
        await self._process.wait()
        self.kill()  # whatever it started

    def _take(self, line: bytes) -> None:
        if not line.startswith(SAID):
            return
        try:
            said = msgspec.json.decode(line.removeprefix(SAID), type=Said)
        except msgspec.DecodeError:
            return
        if said.kind == "checkpoint":
            self.checkpoints += 1
        metrics = {
            printable(name, 100): value if value is not None and math.isfinite(value) else None
            for name, value in list(said.metrics.items())[:100]
        }
        said = msgspec.structs.replace(said, metrics=metrics, text=printable(said.text))
        self._news.append(said)
        del self._news[:-NEWS]


def environment(folder: Path, threads: int) -> dict[str, str]:
    """Nothing of ours but where the program lies: no key, no token, no proxy."""
    return {
        "PYTHONPATH": str(Path(openmaas.__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder / "tmp"),
        "TMPDIR": str(folder / "tmp"),
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "HF_HUB_OFFLINE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": str(threads),
    } | told_children()


def printable(text: str, limit: int = 500) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:limit])
