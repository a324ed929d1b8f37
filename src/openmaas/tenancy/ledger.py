"""The ledger: one durable row for each finished request, before the last byte of its answer.

Rows go to a process of their own (``ledger_writer.py``), which commits them in groups: a request
waits for one or two flushes to disk, however many others there are. What it has not confirmed is
kept here, and given to the next one should it die.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from openmaas.errors import BY_CODE, OpenMaaSError, StorageUnavailable
from openmaas.tenancy.ledger_rows import Row
from openmaas.tenancy.ledger_writer import LENGTH, Told, Where, frame

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0  # that a finished request waits for a database that is away
SWEEP_SECONDS = 0.25
RESPAWN_SECONDS = 0.2
AT_ONCE = 32  # rows that are worth a commit
PASSED_ON = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


class Pending(NamedTuple):
    """A request's rows that the writer has not confirmed."""

    rows: Sequence[Row]
    # An error: not yet, and its request need not wait for it any longer.
    durable: asyncio.Future[None]


class Ledger:
    """Everything is on the event loop.

    ``failing`` is why rows cannot be written now: nothing should begin that could not be billed.

    Args:
        folder, url: the database, as of ``open_database``.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.failing: OpenMaaSError | None = None
        self._where = Where(str(folder), url)
        self._next_id = 0
        self._loop: asyncio.AbstractEventLoop
        self._pending: dict[int, Pending] = {}  # not confirmed, the oldest first
        self._outbox: list[tuple[int, bool, Sequence[Row]]] = []  # ledger_writer.Entry
        self._tasks: list[asyncio.Task[None]] = []
        self._line: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._emptied = asyncio.Event()
        self._lost = asyncio.Event()

    async def start(self) -> None:
        """Begins to write. A database that is away is waited for."""
        self._loop = asyncio.get_running_loop()
        await self._spawn()
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._sweep())]

    async def stop(self) -> None:
        """Returns when everything is written, or cannot be within ``PATIENCE_SECONDS``."""
        if self._pending:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._emptied.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._pending:
            log.error("%d requests are not in the ledger: the database is away", len(self._pending))
        if self._line is not None:
            self._line.close()  # the writer ends with it
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, PATIENCE_SECONDS)
            self._process.kill()
            self._process.wait()

    def add(self, rows: Sequence[Row], *, tried: bool = False) -> asyncio.Future[None]:
        """Takes a request's rows. What is returned is done once they are committed, or has the
        error (StorageFull, StorageUnavailable) for which they could not be for
        ``PATIENCE_SECONDS``; they are tried on, unless others come in their place.

        Args:
            tried: other rows of that request were added before, and give way to these.
        """
        self._next_id += 1
        durable = self._loop.create_future()
        self._pending[self._next_id] = Pending(rows, durable)
        if not self._outbox:  # what one turn of the event loop adds leaves together …
            self._loop.call_soon(self._flush)
        self._outbox.append((self._next_id, tried, rows))
        if len(self._outbox) >= AT_ONCE:  # … but the writer need not be idle in a long turn
            self._flush()
        return durable

    # --- the writer ----------------------------------------------------------------------

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220  forks and returns
                [sys.executable, "-m", "openmaas.tenancy.ledger_writer", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal must not reach it
            )
        finally:
            theirs.close()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: _Line(self), sock=ours)

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            log.error("the ledger's writer died; starting another")
            await asyncio.sleep(RESPAWN_SECONDS)
            try:
                await self._spawn()
            except OSError:
                log.exception("cannot start the ledger's writer")
                self._lost.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            late = (time.time() - PATIENCE_SECONDS) * 1000
            for entry in self._pending.values():
                if entry.rows[0].time > late:
                    break
                if not entry.durable.done():
                    self.failing = self.failing or StorageUnavailable(
                        "the database is too slow", retry_after=1
                    )
                    entry.durable.set_exception(self.failing)
                    entry.durable.exception()  # its request may be gone: that is no fault

    def connected(self, line: asyncio.Transport) -> None:
        """A writer listens: it gets what the one before has not confirmed."""
        self._line = line
        line.set_write_buffer_limits(0)  # written at once, not at the end of the turn
        line.write(frame(self._where))
        self._outbox = [(id, True, one.rows) for id, one in self._pending.items()]
        self._flush()

    def disconnected(self) -> None:
        self._line = None
        self._lost.set()

    def _flush(self) -> None:
        if self._line is not None and self._outbox:
            self._line.write(frame(self._outbox))
        self._outbox = []

    def told(self, news: Told) -> None:
        """What the writer says."""
        if news.code is not None:
            if self.failing is None:
                log.error("the ledger cannot be written: %s", news.message)
            self.failing = BY_CODE[news.code](news.message, retry_after=1)
            return
        self.failing = None
        for id in news.written:
            entry = self._pending.pop(id, None)
            if entry is not None and not entry.durable.done():
                entry.durable.set_result(None)
        if not self._pending:
            self._emptied.set()


class _Line(asyncio.Protocol):
    """The gateway's end of the socket."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._received = bytearray()
        self._decode = msgspec.msgpack.Decoder(Told).decode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._ledger.connected(transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            news = self._decode(self._received[LENGTH.size : end])
            del self._received[:end]
            self._ledger.told(news)

    def connection_lost(self, error: Exception | None) -> None:
        self._ledger.disconnected()
