"""The ledger: rows of usage, committed in groups before the last byte of their answers is sent.

One thread writes. While it commits one group the next one gathers, so that a request waits for
one or two flushes to disk however many others there are. A group that failed, or of which nobody
knows whether it was committed, is tried again until it is there: a row's key is its request, and
what an earlier try may have left is replaced in the same transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import sqlalchemy as sa

from openmaas.database import Database
from openmaas.errors import OpenMaaSError
from openmaas.schema import usage, usage_days

log = logging.getLogger(__name__)

GROUP = 500  # rows of one transaction: SQLite takes 32,766 values in a statement
RETRY_SECONDS = 0.25
PATIENCE_SECONDS = 5.0  # that a finished request waits for a database that is away
DAY_MS = 86_400_000


class Row(NamedTuple):
    """A row of ``usage``, in the order of its columns."""

    request: str
    part: int
    time: int  # milliseconds
    tenant: str
    project: str
    key: str
    model: str
    version: str
    task: str
    priority: str
    outcome: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    rows: int
    seconds: int
    queue_us: int
    run_us: int
    price: int
    cost: int
    idempotency: str | None


class Entry:
    """The rows of one request on their way into the ledger."""

    __slots__ = ("durable", "rows", "tried")

    def __init__(self, rows: Sequence[Row], durable: asyncio.Future[None]) -> None:
        self.rows = rows
        self.durable = durable  # an error: not yet, and its request need not wait for it
        self.tried = False  # a transaction with it may have been committed


class Ledger:
    """Takes rows on the event loop, writes them in a thread.

    ``failing`` is why rows cannot be written now: nothing should begin that could not be billed.
    """

    def __init__(self, database: Database) -> None:
        self.failing: OpenMaaSError | None = None
        self._database = database
        self._statements = _Statements(database.dialect)
        self._pending: list[Entry] = []
        self._lock = threading.Lock()  # around _pending
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begins to write. A database that is away is waited for."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Returns when everything is written, or cannot be within ``PATIENCE_SECONDS``."""
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, PATIENCE_SECONDS)
            if self._thread.is_alive():
                log.error("the last requests are not in the ledger: the database is away")

    def add(self, rows: Sequence[Row]) -> Entry:
        """Takes a request's rows. Its ``durable`` is done once they are committed, or has the
        error (StorageFull, StorageUnavailable) for which they could not be for
        ``PATIENCE_SECONDS``; they are tried on, with what ``revise`` says by then."""
        entry = Entry(rows, self._loop.create_future())
        self._put(entry)
        return entry

    def revise(self, entry: Entry, rows: Sequence[Row]) -> None:
        """Other rows for the same request, whether the first were committed or not."""
        done = entry.durable.done() and entry.durable.exception() is None
        entry.rows = rows
        if done:
            entry.tried = True
            self._put(entry)

    def _put(self, entry: Entry) -> None:
        with self._lock:
            self._pending.append(entry)
        if not self._wake.is_set():
            self._wake.set()

    # --- in the thread -------------------------------------------------------------------

    def _run(self) -> None:
        held: list[Entry] = []  # of a group that could not be written
        since = 0.0
        while True:
            if not held:
                self._wake.wait()
            self._wake.clear()
            with self._lock:
                arrived, self._pending = self._pending, []
            group = held + arrived
            if not group and self._ending:
                return
            held = []
            for at in range(0, len(group), GROUP):
                part = group[at : at + GROUP]
                written = [entry.rows for entry in part]
                try:
                    self._write(part)
                except OpenMaaSError as error:
                    held += part
                    since = since or time.monotonic()
                    self._tell(self._failed, error, part if _over(since) else [])
                else:
                    since = 0.0
                    self._tell(self._written, part, written)
            if held:
                if self._ending and _over(since):
                    return
                self._wake.wait(RETRY_SECONDS)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what, *arguments)

    def _write(self, group: list[Entry]) -> None:
        """One transaction.

        Raises:
            StorageFull, StorageUnavailable
        """
        try:
            again = [entry.rows[0].request for entry in group if entry.tried]
            for entry in group:
                entry.tried = True
            with self._database.write() as connection:
                self._statements.replace(connection, again, [r for e in group for r in e.rows])
        except sa.exc.DBAPIError:
            if len(group) > 1:  # one that cannot be written must not keep the others out
                for entry in group:
                    self._write([entry])
                return
            (entry,) = group
            log.exception("request %s cannot be written as it is", entry.rows[0].request)
            if entry.rows[0].idempotency is not None:
                entry.rows = [row._replace(idempotency=None) for row in entry.rows]
                self._write([entry])

    # --- on the loop ---------------------------------------------------------------------

    def _written(self, group: list[Entry], rows: list[Sequence[Row]]) -> None:
        self.failing = None
        for entry, was in zip(group, rows, strict=True):
            if entry.rows is not was and entry.rows != was:  # revised meanwhile
                self._put(entry)
            elif not entry.durable.done():
                entry.durable.set_result(None)

    def _failed(self, error: OpenMaaSError, late: list[Entry]) -> None:
        if self.failing is None:
            log.error("the ledger cannot be written: %s", error.message)
        self.failing = error
        for entry in late:
            if not entry.durable.done():
                entry.durable.set_exception(error)
                entry.durable.exception()  # its request may be gone: that is no fault


def _over(since: float) -> bool:
    return time.monotonic() - since > PATIENCE_SECONDS


class _Statements:
    """The few statements, one for many rows: each call of a driver lets other threads run, and
    to get back to work behind a busy event loop takes longer than the call."""

    def __init__(self, dialect: str) -> None:
        self._mark = "?" if dialect == "sqlite" else "%s"
        self._columns = ", ".join(f'"{name}"' for name in Row._fields)
        dimensions = [column.name for column in usage_days.primary_key.columns]
        self._sums = [c.name for c in usage_days.columns if c.name not in dimensions]
        self._day_columns = ", ".join(f'"{name}"' for name in (*dimensions, *self._sums))
        added = ", ".join(f'"{n}" = usage_days."{n}" + excluded."{n}"' for n in self._sums)
        self._conflict = f"ON CONFLICT ({', '.join(dimensions)}) DO UPDATE SET {added}"

    def replace(self, connection: sa.Connection, again: list[str], rows: list[Row]) -> None:
        """Inserts rows, in place of what there may be of some requests, and adds to the sums."""
        sums: dict[tuple[object, ...], list[int]] = {}
        if again:
            which = usage.c.request.in_(again)
            found = connection.execute(sa.select(usage).where(which)).all()
            _add(sums, [Row(*row) for row in found], -1)
            connection.execute(usage.delete().where(which))
        _add(sums, rows, 1)
        self._insert(connection, "usage", self._columns, rows, "")
        days = [(*at, *values) for at, values in sums.items() if any(values)]
        self._insert(connection, "usage_days", self._day_columns, days, self._conflict)

    def _insert(
        self,
        connection: sa.Connection,
        table: str,
        columns: str,
        rows: Sequence[tuple[object, ...]],
        conflict: str,
    ) -> None:
        if not rows:
            return
        one = f"({', '.join([self._mark] * len(rows[0]))})"
        values = ", ".join([one] * len(rows))
        connection.exec_driver_sql(
            f"INSERT INTO {table} ({columns}) VALUES {values} {conflict}",  # noqa: S608  our names
            tuple(chain.from_iterable(rows)),
        )


def _add(sums: dict[tuple[object, ...], list[int]], rows: Sequence[Row], sign: int) -> None:
    for row in rows:
        at = (
            day(row.time), row.tenant, row.project, row.key, row.model, row.version, row.task,
            row.outcome, row.price,
        )  # fmt: skip
        one = (
            1 if row.part == 0 else 0, row.input_tokens, row.cached_tokens, row.output_tokens,
            row.rows, row.seconds, row.queue_us, row.run_us, row.cost,
        )  # fmt: skip
        known = sums.get(at)
        if known is None:
            sums[at] = [sign * value for value in one]
        else:
            for index, value in enumerate(one):
                known[index] += sign * value


@functools.lru_cache(maxsize=8)
def _day(number: int) -> int:
    at = datetime.date.fromordinal(_EPOCH + number)
    return at.year * 10000 + at.month * 100 + at.day


def day(time_ms: int) -> int:
    """The day of a time in UTC, as the number 20261231."""
    return _day(time_ms // DAY_MS)


_EPOCH = datetime.date(1970, 1, 1).toordinal()
