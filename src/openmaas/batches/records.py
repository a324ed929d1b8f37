"""Batches as rows: what is asked, how far it is, and what came of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.batches.files import UNFINISHED, File, State, add
from openmaas.batches.files import get as get_file
from openmaas.database import Database, page
from openmaas.errors import Conflict, InvalidRequest, NotFound, QuotaExhausted
from openmaas.schema import batches as table
from openmaas.schema import usage
from openmaas.tenancy.ledger_rows import Statements
from openmaas.tenancy.meters import BILLED

Path = Literal[
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/classify", "/v1/sentiment",
    "/v1/entities", "/v1/summarize", "/v1/translate", "/v1/rerank",
]  # fmt: skip
WINDOW_SECONDS = 86_400
KEPT_SECONDS = 90 * 86_400  # of a finished batch's row
MOST = 100  # batches of one tenant that are not finished


class Trouble(msgspec.Struct, frozen=True):
    """Why a batch could not begin."""

    code: str
    message: str
    line: int | None = None  # of the input, from 1
    param: str | None = None


class Tokens(msgspec.Struct, frozen=True):
    """What all answers say that they used."""

    input: int = 0
    cached: int = 0
    output: int = 0


class Batch(msgspec.Struct, frozen=True):
    id: str
    tenant: str
    project: str
    key: str
    endpoint: Path
    input: str
    metadata: dict[str, str] | None
    keep: int  # seconds, of its output
    state: State
    model: str | None
    total: int
    completed: int
    failed: int
    errors: list[Trouble] | None
    usage: Tokens | None
    output: str | None
    error: str | None
    created: int  # Unix seconds
    expires: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None

    def request(self, line: int) -> str:
        """The id of a line's request, whenever it is asked."""
        return f"req_{self.id[6:]}{line:06x}"


class Standing(msgspec.Struct, frozen=True):
    """Of a batch that is not finished, what those that run them look at."""

    id: str
    tenant: str
    state: State
    expires: int


_COLUMNS = [table.c[name] for name in Batch.__struct_fields__]
_STANDING = [table.c[name] for name in Standing.__struct_fields__]


class Batches:
    """All methods are short transactions; call them from a thread in the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statements = Statements(database.dialect)

    def create(
        self,
        endpoint: Path,
        input: str,
        metadata: dict[str, str] | None,
        keep: int,
        owner: tuple[str, str, str],
        by: By,
    ) -> Batch:
        """A batch that waits to be looked at.

        Args:
            keep: seconds until its output expires.
            owner: tenant, project and key.

        Raises:
            NotFound: there is no such file.
            InvalidRequest: it is no input.
            QuotaExhausted: too many batches are not finished.
        """
        tenant, project, key = owner
        now = time.time_ns() // 1_000_000
        made = Batch(
            id=f"batch_{now:012x}{secrets.token_hex(6)}", tenant=tenant, project=project, key=key,
            endpoint=endpoint, input=input, metadata=metadata, keep=keep, state="validating",
            model=None, total=0, completed=0, failed=0, errors=None, usage=None, output=None,
            error=None, created=now // 1000, expires=now // 1000 + WINDOW_SECONDS,
        )  # fmt: skip
        with self._database.write() as connection:
            file = get_file(connection, input, tenant, lock=True)
            if file.purpose != "batch":
                raise InvalidRequest(
                    f"file {input} has the purpose {file.purpose}, not batch", param="input_file_id"
                )
            count = sa.select(sa.func.count()).where(
                table.c.tenant == tenant, table.c.state.in_(UNFINISHED)
            )
            if connection.execute(count).scalar_one() >= MOST:
                raise QuotaExhausted(f"tenant {tenant} has {MOST} batches that are not finished")
            connection.execute(table.insert().values(**msgspec.to_builtins(made)))
            by.note(connection, "batch.create", made.id, tenant=tenant, endpoint=endpoint)
        return made

    def get(self, id: str, tenant: str | None = None) -> Batch:
        """
        Args:
            tenant: None: whosever it is.

        Raises:
            NotFound
        """
        with self._database.read() as connection:
            return _get(connection, id, tenant)

    def list(self, tenant: str, *, after: str = "", limit: int = 20) -> list[Batch]:
        """A tenant's, the newest first.

        Args:
            after: the last one's id of the page before.
        """
        query = sa.select(*_COLUMNS).where(table.c.tenant == tenant)
        with self._database.read() as connection:
            last = _get(connection, after, tenant) if after else None
            return [_batch(row) for row in connection.execute(page(query, table, limit, last))]

    def cancel(self, id: str, tenant: str, by: By) -> Batch:
        """What is done of it is kept; one that is being cancelled is returned as it is.

        Raises:
            NotFound
            Conflict: it is finished.
        """
        with self._database.write() as connection:
            batch = _get(connection, id, tenant, lock=True)
            if batch.state == "cancelling":
                return batch
            if batch.state not in ("validating", "in_progress"):
                raise Conflict(f"batch {id} is {batch.state}; it cannot be cancelled")
            _move(connection, id, ("validating", "in_progress"), "cancelling")
            by.note(connection, "batch.cancel", id, tenant=tenant)
            return _get(connection, id, tenant)

    # --- for who runs them -------------------------------------------------------------------

    def look(self, counts: Mapping[str, tuple[int, int]]) -> Sequence[Standing]:
        """Those that are not finished, the oldest first.

        Args:
            counts: by id, the lines that are completed and failed since the last look.
        """
        query = sa.select(*_STANDING).where(table.c.state.in_(UNFINISHED))
        if counts:
            with self._database.write() as connection:
                for id, (completed, failed) in counts.items():
                    connection.execute(
                        table.update()
                        .where(table.c.id == id, table.c.state.in_(UNFINISHED))
                        .values(completed=completed, failed=failed)
                    )
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(table.c.created, table.c.id))
            return [Standing(*row) for row in rows]

    def move(self, id: str, before: Collection[State], after: State, **values: Any) -> bool:
        """Whether it was in such a state, and now is in the other."""
        with self._database.write() as connection:
            return _move(connection, id, before, after, **values)

    def finish(self, id: str, state: State, files: Iterable[File], **values: Any) -> None:
        """Ends a batch, with its files there at the same moment."""
        with self._database.write() as connection:
            if _move(connection, id, UNFINISHED, state, **values):
                for file in files:
                    add(connection, file)

    def billed(self, batch: Batch) -> dict[int, str]:
        """Lines that the ledger has as billed, with their requests."""
        first, last = batch.request(0), batch.request(0xFFFFFF)
        query = sa.select(usage.c.request).where(
            usage.c.request.between(first, last), usage.c.outcome.in_(BILLED), usage.c.part == 0
        )
        with self._database.read() as connection:
            found = [str(row.request) for row in connection.execute(query)]
        return {int(request[-6:], 16): request for request in found}

    def take_back(self, requests: Sequence[str]) -> None:
        """Removes what was billed for answers that were lost; their lines are asked again."""
        for at in range(0, len(requests), 500):
            with self._database.write() as connection:
                self._statements.replace(connection, [*requests[at : at + 500]], [])

    def sweep(self, now: float | None = None) -> set[str]:
        """Forgets those that were finished long ago; ids of those that are not finished."""
        old = int(time.time() if now is None else now) - KEPT_SECONDS
        with self._database.write() as connection:
            gone = table.c.state.not_in(UNFINISHED) & (table.c.created < old)
            connection.execute(table.delete().where(gone))
            unfinished = sa.select(table.c.id).where(table.c.state.in_(UNFINISHED))
            return {row.id for row in connection.execute(unfinished)}


def _move(
    connection: sa.Connection, id: str, before: Collection[State], after: State, **values: Any
) -> bool:
    values |= {"state": after, f"{after}_at": int(time.time())}
    which = (table.c.id == id) & table.c.state.in_(before)
    return connection.execute(table.update().where(which).values(**values)).rowcount == 1


def _get(connection: sa.Connection, id: str, tenant: str | None, *, lock: bool = False) -> Batch:
    query = sa.select(*_COLUMNS).where(table.c.id == id)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFound(f"no batch {id[:64]!r}")
    return _batch(row)


def _batch(row: sa.Row[Any]) -> Batch:
    return msgspec.convert(dict(zip(Batch.__struct_fields__, row, strict=True)), Batch)
