"""Rows of the ledger and the statements that write them, in groups, with the sums of their days."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import sqlalchemy as sa

from openmaas.schema import usage, usage_days

DAY_MS = 86_400_000
_DIMENSIONS = list(usage_days.primary_key.columns)


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


class Statements:
    """The few statements of a group: one for many rows costs a tenth of one for each."""

    def __init__(self, dialect: str) -> None:
        self._mark = "?" if dialect == "sqlite" else "%s"
        self._columns = ", ".join(f'"{name}"' for name in Row._fields)
        dimensions = [column.name for column in _DIMENSIONS]
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
        if again:
            self._forget(connection, [at for at, values in sums.items() if min(values) < 0])

    def _forget(self, connection: sa.Connection, days: list[tuple[object, ...]]) -> None:
        """Removes sums of which nothing is left."""
        nothing = [usage_days.c[name] == 0 for name in self._sums]
        for at in days:
            same = [column == value for column, value in zip(_DIMENSIONS, at, strict=True)]
            connection.execute(usage_days.delete().where(*same, *nothing))

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
