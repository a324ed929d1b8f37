"""Workers as confined child processes of the gateway, each on a pair of sockets of its own.

A worker opens a file that somebody made, in an engine written in C++: it may read that file and
the programs of this machine, write in a scratch folder in memory, and nothing else
(``sandbox.py``). Its end of the socket is handed to it, so that it needs no way to open one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

import openmaas
from openmaas import frames
from openmaas.config import told_children
from openmaas.errors import WorkerFailed
from openmaas.frames import Ready, Refused, ToGateway, ToWorker
from openmaas.placement.base import WorkerSpec

SANDBOX = "openmaas.placement.sandbox"  # run as a program
MODULE = "openmaas.serving.worker"
LOG_BYTES = 8192
OPEN_FILES = 4096
PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR"),
    *("PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH"),
)
WITH_SOCKETS = frozenset({"llamacpp"})  # runtimes that speak with their engine through one
IN_MEMORY = Path("/dev/shm")  # noqa: S108  what is made there is private and has a random name


class LocalPlacement:
    """Starts ``python -m openmaas.serving.worker`` with an environment that holds no secret.

    Args:
        folder: of the one server at a time whose workers these are.
    """

    def __init__(self, folder: Path) -> None:
        name = hashlib.blake2b(os.fsencode(folder.absolute()), digest_size=6).hexdigest()
        self._prefix = f"openmaas-{name}-"
        self._scratch = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        for left in self._scratch.glob(f"{self._prefix}*"):  # by a server that was killed
            if left.lstat().st_uid == os.geteuid():
                shutil.rmtree(left, ignore_errors=True)

    async def start(
        self,
        spec: WorkerSpec,
        on_start: Callable[[LocalWorker], None],
        on_frame: Callable[[ToGateway], None],
        on_exit: Callable[[str], None],
    ) -> tuple[LocalWorker, Ready | Refused]:
        scratch = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._scratch))
        for path in map(Path, spec.writes):
            with contextlib.suppress(OSError):  # it will say so itself
                path.touch(mode=0o600)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                *command(spec, scratch),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment(scratch),
                cwd=scratch,
                start_new_session=True,  # Ctrl-C in a terminal must not reach it: we drain first
            )
        except BaseException:
            ours.close()
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        finally:
            theirs.close()
        worker = LocalWorker(process, scratch, on_frame, on_exit)
        on_start(worker)
        try:
            first = await worker.connect(ours, spec.load_seconds)
        except BaseException:
            worker.kill()
            raise
        return worker, first


def command(spec: WorkerSpec, scratch: Path) -> list[str]:
    """What starts a worker. It reads its artifact alone and writes in ``scratch`` alone."""
    artifact = Path(spec.artifacts) / spec.digest.removeprefix("sha256:")
    found = [sys.executable, "-m", SANDBOX, "--devices"]
    for path in (scratch, artifact):
        found += ["--read", str(path)]
    for path in (scratch, *map(Path, spec.writes)):
        found += ["--write", str(path)]
    if spec.runtime in WITH_SOCKETS:
        found.append("--unix")
    limits = msgspec.json.encode({"open_files": OPEN_FILES}).decode()
    told = msgspec.json.encode(spec).decode()
    return [*found, "--limits", limits, "--module", MODULE, "--", told]


def environment(scratch: Path) -> dict[str, str]:
    """Nothing of ours but where programs lie: no key, no token, no proxy."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    paths = [os.path.abspath(one) for one in passed.get("PYTHONPATH", "").split(":") if one]
    here = str(Path(openmaas.__file__).parent.parent)
    return (
        passed
        | told_children()
        | {
            "PYTHONPATH": ":".join([here, *paths]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
        }
    )


class LocalWorker(asyncio.Protocol):
    """The gateway's end of a worker: a process, its log's tail and its socket."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        scratch: Path,
        on_frame: Callable[[ToGateway], None],
        on_exit: Callable[[str], None],
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._scratch = scratch
        self._on_frame = on_frame
        self._on_exit = on_exit
        self._log = bytearray()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._outbox: ToWorker = []
        self._first: asyncio.Future[Ready | Refused] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._watch_process())

    async def connect(self, end: socket.socket, seconds: float) -> Ready | Refused:
        """Waits for the worker's first word on our end of the pair.

        Raises:
            WorkerFailed: it died first, or ``seconds`` went by.
        """
        loop = asyncio.get_running_loop()

        async def first_word() -> Ready | Refused:
            await loop.connect_accepted_socket(lambda: self, end)
            return await self._first

        talk = asyncio.create_task(first_word())
        done, _ = await asyncio.wait(
            {talk, self._watch}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if talk in done:
            return talk.result()
        talk.cancel()
        if done:
            raise WorkerFailed(f"the worker died while loading: {self._end()}")
        self.kill()
        raise WorkerFailed(f"the worker did not load its model within {seconds:g} s")

    # --- asyncio.Protocol --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has its own base

    def data_received(self, data: bytes) -> None:
        self._received += data
        start = 0
        while len(self._received) - start >= frames.HEADER_BYTES:
            body = start + frames.HEADER_BYTES
            end = body + frames.body_length(bytes(self._received[start:body]))
            if len(self._received) < end:
                break
            frame = frames.decode_to_gateway(memoryview(self._received)[body:end])
            start = end
            self._dispatch(frame)
        if start:
            del self._received[:start]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def _dispatch(self, frame: ToGateway) -> None:
        if not self._first.done():
            word = frame.pop(0)
            if isinstance(word, Ready | Refused):
                self._first.set_result(word)
            else:
                self._first.set_exception(WorkerFailed("the worker did not say that it is ready"))
        if frame:
            self._on_frame(frame)

    # --- Worker ------------------------------------------------------------------------

    def send(self, frame: ToWorker) -> None:
        # Everything that one turn of the event loop asks for leaves as one frame.
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox += frame

    def _flush(self) -> None:
        frame, self._outbox = self._outbox, []
        if self._transport is not None:
            self._transport.write(frames.encode(frame))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, seconds: float) -> None:
        if self._transport is not None:
            self._transport.close()  # a worker whose socket ends, ends
        try:
            await asyncio.wait_for(asyncio.shield(self._watch), seconds)
        except TimeoutError:
            self.kill()
            await self._watch

    def last_words(self) -> str:
        return self._log[-LOG_BYTES:].decode(errors="replace").strip()

    def memory(self) -> int:
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        except OSError:
            return 0
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    async def _watch_process(self) -> None:
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(4096):
            self._log += chunk
            del self._log[:-LOG_BYTES]
        await self._process.wait()
        self.kill()  # whatever it started
        await asyncio.to_thread(shutil.rmtree, self._scratch, True)
        if self._transport is not None:
            self._transport.abort()
        self._on_exit(self._end())

    def _end(self) -> str:
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        words = self.last_words().splitlines()
        return f"{how}; its last words: {words[-1]}" if words else how
