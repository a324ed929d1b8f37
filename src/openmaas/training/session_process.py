"""A session's process as the gateway holds it: started in the sandbox, asked, believed little."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import msgspec

from openmaas.errors import BY_CODE, InvalidRequest, OpenMaaSError, TrainingFailed, WorkerFailed
from openmaas.training import session_frames as frames
from openmaas.training.running import ADDRESS_SPACE, NICE, SANDBOX, Bounds, environment, printable
from openmaas.training.session_frames import (
    Answer,
    Ask,
    Call,
    Cancel,
    Failure,
    FromProcess,
    Opened,
    Refused,
    ToProcess,
)

MODULE = "openmaas.training.session_worker"
LOG_BYTES = 4096
FILE_BYTES = 16 << 30
LOOK_SECONDS = 1.0  # between two looks at its memory and its running call


class Asked(NamedTuple):
    """A call that has no answer yet."""

    answer: asyncio.Future[Answer]
    size: int  # bytes


class SessionProcess(asyncio.Protocol):
    """One process, from start to end. Everything is on the event loop.

    Attributes:
        answered: id of the last call that was answered.
        busy: seconds in which there was a call to run, since ``take_busy`` was last called.
    """

    def __init__(self, bounds: Bounds, call_seconds: float, ended: Callable[[str], None]) -> None:
        self.answered = 0
        self.pid = 0
        self.opened: Opened
        self._bounds = bounds
        self._call_seconds = call_seconds
        self._ended = ended
        self._next_id = 0
        self._calls: dict[int, Asked] = {}  # in the order of their ids
        self._busy = 0.0
        self._since = 0.0  # when the running call began, or its busy time was last taken
        self._began = 0.0  # when it began
        self._why = ""  # we killed it
        self._outbox: ToProcess = []
        self._received = bytearray()
        self._log = bytearray()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process
        self._watching: asyncio.Task[None]
        self._first: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(
        cls,
        folder: Path,
        readable: Sequence[Path],
        bounds: Bounds,
        call_seconds: float,
        ended: Callable[[str], None],
    ) -> SessionProcess:
        """Starts a process on a session's folder, and waits until its network is built.

        Args:
            bounds: of threads and resident memory.
            call_seconds: a call that runs longer, or a start that takes longer, ends it.
            ended: called once, with how, when it has ended, whyever that is.

        Raises:
            OpenMaaSError: what the process says is wrong with what it is given.
            WorkerFailed: it died.
        """
        made = cls(bounds, call_seconds, ended)
        ours, theirs = socket.socketpair()
        try:
            await made._spawn(folder, readable, theirs)
        except OSError as error:
            ours.close()
            raise WorkerFailed(f"no process could be started: {error.strerror}") from None
        finally:
            theirs.close()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: made, sock=ours)
        made._watching = asyncio.create_task(made._watch())
        try:
            async with asyncio.timeout(call_seconds):
                made.opened = await asyncio.shield(made._first)
        except TimeoutError:
            made.kill("it took too long to start")
            raise TrainingFailed("the network took too long to build") from None
        except BaseException:
            made.kill("it could not start")
            raise
        return made

    async def _spawn(self, folder: Path, readable: Sequence[Path], end: socket.socket) -> None:
        limits = {"address_space": ADDRESS_SPACE, "file_bytes": FILE_BYTES}
        command = [sys.executable, "-m", SANDBOX, "--write", str(folder)]
        for path in (folder, *readable):
            command += ["--read", str(path)]
        command += ["--limits", msgspec.json.encode(limits).decode(), "--module", MODULE]
        (folder / "tmp").mkdir(exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *command, "--", str(folder), str(self._bounds.threads),
            stdin=end.fileno(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=environment(folder, self._bounds.threads),
            cwd=folder, start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, NICE)

    # --- calls -----------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        return len(self._calls)

    @property
    def outstanding_bytes(self) -> int:
        return sum(one.size for one in self._calls.values())

    def ask(
        self, call: Call, *, known: int | None = None, step: int | None = None, size: int = 0
    ) -> tuple[int, asyncio.Future[Answer]]:
        """Sends a call behind those that were sent before.

        Args:
            known: id up to which the asker knows the answers; ``None``: all that there are.
            step: at which the session must be.

        Returns:
            Its id and its answer, which may be an ``OpenMaaSError``.
        """
        self._next_id += 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self._calls:
            self._since = self._began = time.monotonic()
        self._calls[self._next_id] = Asked(answer, size)
        known = self.answered if known is None else known
        self._send(Ask(id=self._next_id, call=call, known=known, step=step))
        return self._next_id, answer

    def cancel(self, id: int) -> None:
        """Nobody waits for a call any more. Those that were sent after it may fail with it."""
        if id in self._calls:
            self._send(Cancel(id=id))

    def take_busy(self) -> float:
        """Seconds that it was busy, since this was last asked."""
        self._count()
        busy, self._busy = self._busy, 0.0
        return busy

    def _count(self) -> None:
        now = time.monotonic()
        if self._calls:
            self._busy += now - self._since
        self._since = now

    def _send(self, one: Ask | Cancel) -> None:
        if not self._outbox:  # what one turn of the event loop asks for leaves as one frame
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(one)

    def _flush(self) -> None:
        frame, self._outbox = self._outbox, []
        if self._transport is not None:
            self._transport.write(frames.encode(frame))

    # --- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        start = 0
        try:
            while len(self._received) - start >= frames.HEADER_BYTES:
                body = start + frames.HEADER_BYTES
                end = body + frames.body_length(self._received[start:body])
                if len(self._received) < end:
                    break
                frame = frames.decode_from_process(memoryview(self._received)[body:end].tobytes())
                start = end
                self._dispatch(frame)
        except (ValueError, msgspec.DecodeError, KeyError):
            self.kill("it said what no session says")
            return
        del self._received[:start]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def _dispatch(self, frame: FromProcess) -> None:
        for one in frame:
            if isinstance(one, Opened):
                if not self._first.done():
                    self._first.set_result(one)
            elif isinstance(one, Refused):
                if not self._first.done():
                    self._first.set_exception(_error(one.code, one.message, one.param))
            else:
                self._count()
                asked = self._calls.pop(one.id)
                self.answered = one.id
                self._began = time.monotonic()
                if asked.answer.done():
                    continue
                if isinstance(one, Failure):
                    asked.answer.set_exception(_error(one.code, one.message, one.param))
                    asked.answer.exception()  # its asker may be gone: that is no fault
                else:
                    asked.answer.set_result(one)

    # --- the end -----------------------------------------------------------------------------

    def kill(self, why: str) -> None:
        self._why = self._why or why
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, seconds: float = 5.0) -> None:
        """Ends it, at once if it does nothing."""
        self._why = self._why or "it was put away"
        if self._transport is not None:
            self._transport.close()  # a process whose socket ends, ends
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._watching)
        except TimeoutError:
            self.kill("it did not end")
            await self._watching

    async def _watch(self) -> None:
        reading = asyncio.create_task(self._read())
        while not (await asyncio.wait({reading}, timeout=LOOK_SECONDS))[0]:
            if self._memory() > self._bounds.memory:
                self.kill(f"it took more than {self._bounds.memory >> 20} MiB of memory")
            elif self._calls and time.monotonic() - self._began > self._call_seconds:
                self.kill(f"a call took longer than {self._call_seconds:g} s")
        await self._process.wait()
        self.kill("")  # whatever it started
        if self._transport is not None:
            self._transport.abort()
        self._count()
        end = self._end()
        lost = WorkerFailed(f"the session's process ended: {end}", retry_after=1)
        calls, self._calls = self._calls, {}
        for asked in calls.values():
            if not asked.answer.done():
                asked.answer.set_exception(lost)
                asked.answer.exception()
        if not self._first.done():
            self._first.set_exception(lost)
            self._first.exception()
        self._ended(end)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(4096):
            self._log += chunk
            del self._log[:-LOG_BYTES]

    def _memory(self) -> int:
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        except OSError:
            return 0
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def _end(self) -> str:
        if self._why:
            return self._why
        code = self._process.returncode or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    @property
    def last_words(self) -> str:
        lines = self._log.decode(errors="replace").strip().splitlines()
        return printable(lines[-1]) if lines else ""


def _error(code: str, message: str, param: str | None) -> OpenMaaSError:
    """An error that crossed the process's border. Only those that a session has are believed."""
    message = printable(message, 2000)
    kind = BY_CODE.get(code)
    if kind is None:
        return TrainingFailed(message, cause=printable(code, 64))
    if kind is TrainingFailed or not issubclass(kind, OpenMaaSError):
        return TrainingFailed(message)
    if kind.__name__ in ("InvalidRequest", "Conflict", "NotFound", "StorageFull"):
        return kind(message, param=None if param is None else printable(param, 100))
    return InvalidRequest(message)
