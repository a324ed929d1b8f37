"""The process that writes the ledger: reads rows from its gateway, commits them in groups.

Run as ``python -m openmaas.tenancy.ledger_writer DESCRIPTOR`` by ``tenancy/ledger.py``. It is a
process and not a thread because a thread would ask for the interpreter several times a commit,
behind a busy event loop. While one group is committed the next one gathers in the socket. A group
that failed, or of which nobody knows whether it was committed, is tried again until it is there:
a row's key is its request, and what an earlier try may have left is replaced in one transaction.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import sqlalchemy as sa

from openmaas.database import Database, connect, translated
from openmaas.errors import OpenMaaSError
from openmaas.tenancy.ledger_rows import Row, Statements

log = logging.getLogger("openmaas.ledger")

GROUP = 500  # rows of one transaction: SQLite takes 32,766 values in a statement
FEW = 8
GATHER_SECONDS = 0.0007
RETRY_SECONDS = 0.25
LAST_SECONDS = 5.0  # that rows are tried on for after the gateway is gone
LENGTH = struct.Struct("<I")
PR_SET_DUMPABLE = 4


class Where(msgspec.Struct, array_like=True, frozen=True):
    """Gateway → writer, first: the database."""

    folder: str
    url: str | None


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """Gateway → writer: the rows of one request."""

    id: int
    tried: bool  # a transaction with rows of this request may have been committed
    rows: list[Row]


class Told(msgspec.Struct, array_like=True, frozen=True):
    """Writer → gateway: entries that are committed, or why none can be for now."""

    written: list[int]
    code: str | None = None  # an error's
    message: str = ""


def frame(value: object) -> bytes:
    body = msgspec.msgpack.encode(value)
    return LENGTH.pack(len(body)) + body


class Writer:
    """The rows on their way into one database."""

    def __init__(self, database: Database, line: socket.socket) -> None:
        self._database = database
        self._statements = Statements(database.dialect)
        self._line = line
        self._decode = msgspec.msgpack.Decoder(list[Entry]).decode
        self._received = bytearray()
        self._gone = False  # the gateway is
        self._connection: sa.Connection | None = None

    def run(self) -> None:
        """Returns when the gateway is gone and everything is written."""
        entries: list[Entry] = []
        tried: set[str] = set()
        until = float("inf")
        while not (self._gone and (not entries or time.monotonic() > until)):
            entries += self._arrivals(RETRY_SECONDS if entries else None)
            if self._gone:
                until = min(until, time.monotonic() + LAST_SECONDS)
            while entries:
                group = entries[:GROUP]
                requests = {entry.rows[0].request for entry in group}
                try:
                    self._write(group, tried)
                except OpenMaaSError as error:
                    tried |= requests
                    self._tell(Told([], error.code, error.message))
                    break
                tried -= requests
                del entries[:GROUP]
                self._tell(Told([entry.id for entry in group]))
                # Behind a full group more is to come: together they cost one flush.
                entries += self._arrivals(GATHER_SECONDS if len(group) > FEW else 0)

    def _arrivals(self, wait: float | None) -> list[Entry]:
        """What has come; waits for the first, so long at the most."""
        found: list[Entry] = []
        while not self._gone and select.select([self._line], [], [], 0 if found else wait)[0]:
            data = self._line.recv(1 << 20)
            if not data:
                self._gone = True
            self._received += data
            found += self._entries()
            wait = None  # half a frame has come: its rest will
        return found

    def _entries(self) -> list[Entry]:
        found: list[Entry] = []
        while len(self._received) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                break
            found += self._decode(self._received[LENGTH.size : end])
            del self._received[:end]
        return found

    def _write(self, group: list[Entry], tried: set[str]) -> None:
        """One transaction.

        Raises:
            StorageFull, StorageUnavailable
        """
        again = [e.rows[0].request for e in group if e.tried or e.rows[0].request in tried]
        # Of two entries of a request the later one revises the earlier.
        last = {entry.rows[0].request: entry.rows for entry in group}
        try:
            with self._writing() as connection:
                rows = [row for rows in last.values() for row in rows]
                self._statements.replace(connection, again, rows)
        except sa.exc.DBAPIError:
            if len(group) > 1:  # one that cannot be written must not keep the others out
                for entry in group:
                    self._write([entry], tried)
                return
            (entry,) = group
            request, key = entry.rows[0].request, entry.rows[0].idempotency
            log.exception("request %s cannot be written as it is", request)
            if key is not None:
                rows = [row._replace(idempotency=None) for row in entry.rows]
                self._write([msgspec.structs.replace(entry, rows=rows)], tried)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction on the one connection that is kept open."""
        try:
            with translated():
                if self._connection is None:
                    self._connection = self._database.engine.connect()
                with self._connection.begin():
                    yield self._connection
        except OpenMaaSError:
            if self._connection is not None:
                self._connection.invalidate()
                self._connection.close()
                self._connection = None
            raise

    def _tell(self, told: Told) -> None:
        with contextlib.suppress(OSError):  # the gateway is gone: the rows are written all the same
            self._line.sendall(frame(told))


def main(descriptor: int) -> None:
    """Writes until the gateway is gone."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)  # no core file, no ptrace by its own user
    # Woken by the gateway, it must not push the gateway off its core.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with its gateway, after it
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    line = socket.socket(fileno=descriptor)
    (length,) = LENGTH.unpack(line.recv(LENGTH.size, socket.MSG_WAITALL))
    where = msgspec.msgpack.decode(line.recv(length, socket.MSG_WAITALL), type=Where)
    Writer(connect(Path(where.folder), where.url), line).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
