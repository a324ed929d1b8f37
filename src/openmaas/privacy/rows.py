"""Rows of a tenant as lines of JSON, a page at a time: nobody holds a view of the database while a
slow client reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import sqlalchemy as sa

from openmaas.database import Database
from openmaas.privacy.holdings import Holding, rows_of

PAGE = 2000  # rows
CHUNK_BYTES = 4 << 20  # of a file of rows; more go into the next

Opened = Callable[[sa.Table, dict[str, Any]], dict[str, Any]]


def pages(database: Database, holding: Holding, tenant: str) -> Iterator[list[dict[str, Any]]]:
    """All of a tenant's rows of a kind, in the order of their primary key."""
    table = holding.table
    shown = [column for column in table.columns if column.name not in holding.hidden]
    keys = list(table.primary_key.columns)
    names = [key.name for key in keys]
    last: tuple[Any, ...] | None = None
    while True:
        query = sa.select(*shown).where(rows_of(holding, tenant)).order_by(*keys).limit(PAGE)
        if last is not None:
            query = query.where(sa.tuple_(*keys) > last)
        with database.read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        if rows:
            last = tuple(rows[-1][name] for name in names)
            yield rows
        if len(rows) < PAGE:
            return


def chunks(database: Database, holding: Holding, tenant: str, opened: Opened) -> Iterator[bytes]:
    """The same as lines of JSON, in pieces of a bounded size; none where there is no row.

    Args:
        opened: a row with what is sealed of it unsealed.
    """
    held = bytearray()
    for page in pages(database, holding, tenant):
        for row in page:
            held += msgspec.json.encode(opened(holding.table, row)) + b"\n"
            if len(held) >= CHUNK_BYTES:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)
