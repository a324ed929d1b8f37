"""Workers as child processes of the gateway, each on its own 0600 Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from openmaas import frames
from openmaas.errors import WorkerFailed
from openmaas.frames import Ready, Refused, ToGateway, ToWorker
from openmaas.placement.base import WorkerSpec

LOG_BYTES = 8192
PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR"),
    *("PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH"),
)


class LocalPlacement:
    """Starts ``python -m openmaas.serving.worker`` with an environment that holds no secret.

    Args:
        folder: where sockets live; made 0700.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder = folder
        for stale in folder.glob("*.sock"):
            stale.unlink(missing_ok=True)

    async def start(
        self,
        spec: WorkerSpec,
        on_start: Callable[[LocalWorker], None],
        on_frame: Callable[[ToGateway], None],
        on_exit: Callable[[str], None],
    ) -> tuple[LocalWorker, Ready | Refused]:
        path = self._folder / f"{secrets.token_hex(8)}.sock"
        listener = _listen(path)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "openmaas.serving.worker",
                str(path),
                msgspec.json.encode(spec).decode(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
                start_new_session=True,  # Ctrl-C in a terminal must not reach it: we drain first
            )
            worker = LocalWorker(process, on_frame, on_exit)
            on_start(worker)
            try:
                first = await worker.connect(listener, spec.load_seconds)
            except BaseException:
                worker.kill()
                raise
        finally:
            listener.close()
            path.unlink(missing_ok=True)
        return worker, first


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    old = os.umask(0o177)  # born 0600: no moment at which others could connect
    try:
        listener.bind(str(path))
    finally:
        os.umask(old)
    listener.listen(1)
    return listener


class LocalWorker(asyncio.Protocol):
    """The gateway's end of a worker: a process, its log's tail and its socket."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        on_frame: Callable[[ToGateway], None],
        on_exit: Callable[[str], None],
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._on_frame = on_frame
        self._on_exit = on_exit
        self._log = bytearray()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._outbox: ToWorker = []
        self._first: asyncio.Future[Ready | Refused] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._watch_process())

    async def connect(self, listener: socket.socket, seconds: float) -> Ready | Refused:
        """Waits for the worker to connect and to say its first word.

        Raises:
            WorkerFailed: it died first, or ``seconds`` went by.
        """
        loop = asyncio.get_running_loop()

        async def first_word() -> Ready | Refused:
            connection, _ = await loop.sock_accept(listener)
            await loop.connect_accepted_socket(lambda: self, connection)
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
        if self._transport is not None:
            self._transport.abort()
        self._on_exit(self._end())

    def _end(self) -> str:
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        words = self.last_words().splitlines()
        return f"{how}; its last words: {words[-1]}" if words else how
