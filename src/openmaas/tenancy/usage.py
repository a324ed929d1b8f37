"""What was used, as whoever pays asks for it: sums, rows, exports and monthly statements."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from openmaas.database import Database
from openmaas.errors import InvalidRequest
from openmaas.schema import prices, usage, usage_days
from openmaas.tenancy.quota import money

Dimension = Literal["day", "month", "tenant", "project", "key", "model", "version", "task",
                    "outcome"]  # fmt: skip
DIMENSIONS: tuple[Dimension, ...] = (
    "day", "month", "tenant", "project", "key", "model", "version", "task", "outcome",
)  # fmt: skip
COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "rows", "seconds")
BATCH = 10_000  # rows read at a time
LONGEST_MS = 2 * 86_400_000  # a request's id tells when it, or its batch, began; it ended within


class Period(msgspec.Struct, frozen=True):
    """Days, in UTC: from the first to the last, both within."""

    first: datetime.date
    last: datetime.date

    @property
    def days(self) -> tuple[int, int]:
        return _number(self.first), _number(self.last)

    @property
    def milliseconds(self) -> tuple[int, int]:
        """From, and to but not with."""
        return _ms(self.first), _ms(self.last + datetime.timedelta(days=1))


def period(since: str | None, until: str | None) -> Period:
    """From text: 2026-12-31 or 2026-12, which is all of the month. Default: this month until
    today; of ``until`` alone, its own month or day.

    Raises:
        InvalidRequest: it is no such date, or ends before it begins.
    """
    today = datetime.datetime.now(datetime.UTC).date()
    first = _dates(since or until or f"{today:%Y-%m}", "since")[0]
    last = _dates(until, "until")[1] if until else max(today, first)
    if last < first:
        raise InvalidRequest("until is before since", param="until")
    return Period(first, last)


class Sum(msgspec.Struct, omit_defaults=True):
    """Of all rows that agree in the dimensions that were asked for."""

    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    rows: int
    seconds: int
    cost: str  # currency units, exact
    day: str | None = None
    month: str | None = None
    tenant: str | None = None
    project: str | None = None
    key: str | None = None
    model: str | None = None
    version: str | None = None
    task: str | None = None
    outcome: str | None = None


def sums(
    database: Database,
    when: Period,
    by: Sequence[Dimension] = (),
    only: dict[str, str] | None = None,
) -> list[Sum]:
    """Sums by any dimensions.

    Args:
        only: dimension → the value that it must have.
    """
    of = usage_days.c
    chosen = [(of.day // 100 if one == "month" else of[one]).label(one) for one in by]
    query = sa.select(
        *chosen, *(sa.func.sum(of[name]).label(name) for name in COUNTS),
        sa.func.sum(of.cost).label("cost"),
    ).where(of.day.between(*when.days))  # fmt: skip
    for name, value in (only or {}).items():
        query = query.where(of[name] == value)
    if chosen:
        query = query.group_by(*chosen).order_by(*chosen)
    with database.read() as connection:
        found = connection.execute(query).mappings().all()
    return [_sum(dict(row)) for row in found if row["requests"] is not None]


def rows(
    database: Database,
    when: Period,
    tenant: str | None = None,
    *,
    after: str = "",
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Rows of the ledger in the order of their requests' beginnings.

    Args:
        after: the last row's request of the page before.
    """
    query = _rows(when, tenant).limit(limit)
    if after:
        query = query.where(usage.c.request > after)
    with database.read() as connection:
        return [_row(dict(row)) for row in connection.execute(query).mappings()]


def csv_pieces(database: Database, when: Period, tenant: str | None = None) -> Iterator[bytes]:
    """All rows as CSV (RFC 4180), some at a time."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(NAMES)
    for batch in _batches(database, when, tenant):
        writer.writerows([row[name] for name in NAMES] for row in batch)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def write_parquet(database: Database, when: Period, file: Path, tenant: str | None = None) -> int:
    """All rows as a Parquet file; returns how many there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = {"time": pa.timestamp("ms", "UTC"), "cost": pa.decimal128(28, 9)}
    whole = {"part", *COUNTS[1:], "queue_us", "run_us", "price"}
    schema = pa.schema(
        [(n, fields.get(n, pa.int64() if n in whole else pa.string())) for n in NAMES]
    )
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(database, when, tenant, exact=True):
            count += len(batch)
            writer.write_table(pa.Table.from_pylist(batch, schema))
    return count


NAMES = [column.name for column in usage.columns if column.name != "idempotency"]


class Line(msgspec.Struct):
    """What one project used of one model at one price."""

    project: str
    model: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    rows: int
    seconds: int
    price: dict[str, str]  # currency units for a million of each
    cost: str


class Statement(msgspec.Struct):
    """What a tenant owes for a month."""

    tenant: str
    month: str
    currency: str
    lines: list[Line]
    total: str


def statement(database: Database, tenant: str, month: str, currency: str) -> Statement:
    """
    Args:
        month: 2026-12.

    Raises:
        InvalidRequest: it is no month.
    """
    first, last = _dates(month, "month")
    if len(month) != 7:
        raise InvalidRequest("month is written 2026-12", param="month")
    of = usage_days.c
    counts = [sa.func.sum(of[name]).label(name) for name in (*COUNTS, "cost")]
    query = (
        sa.select(of.project, of.model, of.price, *counts)
        .where(of.tenant == tenant, of.day.between(_number(first), _number(last)))
        .where(of.outcome.in_(("ok", "cut")))
        .group_by(of.project, of.model, of.price)
        .order_by(of.project, of.model, of.price)
    )
    with database.read() as connection:
        found = connection.execute(query).mappings().all()
        known = {row.id: row._mapping for row in connection.execute(sa.select(prices))}
    lines = [
        Line(
            row["project"],
            row["model"],
            **{name: int(row[name]) for name in COUNTS},
            price={unit: money(known[row["price"]][unit]) for unit in UNITS}
            if row["price"] in known
            else {},
            cost=money(int(row["cost"])),
        )
        for row in found
    ]
    total = money(sum(int(row["cost"]) for row in found))
    return Statement(tenant, month, currency, lines, total)


UNITS = ("input", "cached", "output", "row", "request", "second")


def _rows(when: Period, tenant: str | None) -> sa.Select[Any]:
    first, end = when.milliseconds
    begin = max(0, first - LONGEST_MS)
    query = (
        sa.select(*(usage.c[name] for name in NAMES))
        .where(usage.c.request.between(f"req_{begin:012x}", f"req_{end:012x}~"))
        .where(usage.c.time >= first, usage.c.time < end)
        .order_by(usage.c.request, usage.c.part)
    )
    return query if tenant is None else query.where(usage.c.tenant == tenant)


def _batches(
    database: Database, when: Period, tenant: str | None, *, exact: bool = False
) -> Iterator[list[dict[str, Any]]]:
    with database.read() as connection:
        query = _rows(when, tenant).execution_options(yield_per=BATCH)
        for part in connection.execute(query).mappings().partitions():
            yield [_exact(dict(row)) if exact else _row(dict(row)) for row in part]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    at = datetime.datetime.fromtimestamp(row["time"] / 1000, datetime.UTC)
    row["time"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    row["cost"] = money(row["cost"])
    return row


def _exact(row: dict[str, Any]) -> dict[str, Any]:
    row["cost"] = Decimal(row["cost"]).scaleb(-9)
    return row


def _sum(row: dict[str, Any]) -> Sum:
    if "day" in row:
        row["day"] = _day_text(int(row["day"]))
    if "month" in row:
        row["month"] = f"{int(row['month']) // 100:04d}-{int(row['month']) % 100:02d}"
    row |= {name: int(row[name]) for name in COUNTS}
    row["cost"] = money(int(row["cost"]))
    return Sum(**row)


def _day_text(number: int) -> str:
    return f"{number // 10000:04d}-{number // 100 % 100:02d}-{number % 100:02d}"


def _number(day: datetime.date) -> int:
    return day.year * 10000 + day.month * 100 + day.day


def _ms(day: datetime.date) -> int:
    midnight = datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC)
    return int(midnight.timestamp()) * 1000


def _dates(text: str, param: str) -> tuple[datetime.date, datetime.date]:
    """The first and the last day of a day or month."""
    try:
        if re.fullmatch(r"\d{4}-\d\d", text):
            first = datetime.date.fromisoformat(f"{text}-01")
            following = (first + datetime.timedelta(days=32)).replace(day=1)
            return first, following - datetime.timedelta(days=1)
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = datetime.date.fromisoformat(text)
            return day, day
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest(f"{param} is a day 2026-12-31 or a month 2026-12", param=param)
