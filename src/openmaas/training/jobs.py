"""Training jobs as rows: what was asked, how far it is, and every event on the way."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database, page
from openmaas.errors import Conflict, InvalidRequest, NotFound, QuotaExhausted
from openmaas.schema import datasets, job_events, uploads
from openmaas.schema import jobs as table
from openmaas.training.differential_privacy import budgets
from openmaas.training.spec import JobSpec

State = Literal[
    "queued", "running", "pausing", "paused", "cancelling", "publishing",
    "succeeded", "failed", "cancelled",
]  # fmt: skip
UNFINISHED: tuple[State, ...] = (
    "queued", "running", "pausing", "paused", "cancelling", "publishing",
)  # fmt: skip
IN_HAND: tuple[State, ...] = ("running", "pausing", "cancelling", "publishing")
Action = Literal["pause", "resume", "cancel"]
# action → state before → state after; "running" has a process that must be told
_ACTIONS: dict[Action, dict[State, State]] = {
    "pause": {"queued": "paused", "running": "pausing"},
    "resume": {"paused": "queued", "pausing": "running"},
    "cancel": {
        "queued": "cancelled",
        "paused": "cancelled",
        "running": "cancelling",
        "pausing": "cancelling",
    },
}
MOST_UNFINISHED = 1000  # of one tenant


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a job is. Metrics are of the last epoch that ended, or of the running one so far."""

    epoch: int = 0  # that are done
    epochs: int = 0
    step: int = 0
    steps: int = 0
    metrics: dict[str, float | None] = {}
    text: str = ""  # what is being done, where it is no step


class Told(msgspec.Struct, frozen=True):
    """Why a job failed."""

    code: str
    message: str


class Job(msgspec.Struct, frozen=True):
    """A training run."""

    id: str
    tenant: str
    project: str
    key: str
    model: str
    spec: JobSpec
    state: State
    progress: Progress
    error: Told | None
    version: int | None  # of the model, once it is published
    seconds: float  # of compute so far
    attempts: int  # processes that were started for it
    created: int  # Unix seconds
    started: int | None
    finished: int | None


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a job; numbered from 1."""

    number: int
    time: int  # milliseconds
    kind: str  # state, epoch, checkpoint or message
    data: dict[str, Any]


_COLUMNS = [table.c[name] for name in Job.__struct_fields__]


class Jobs:
    """All methods are short transactions; call them from a thread in the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, spec: JobSpec, owner: tuple[str, str, str], by: By) -> Job:
        """A new job, queued.

        Args:
            owner: tenant, project and key.

        Raises:
            InvalidRequest: its data set or upload is not there, or not ready.
            QuotaExhausted: too many jobs wait already.
            Conflict: its data set's budget of privacy has not so much left as it may spend.
        """
        tenant, project, key = owner
        job = Job(
            id=f"job_{secrets.token_hex(12)}",
            tenant=tenant,
            project=project,
            key=key,
            model=spec.model,
            spec=spec,
            state="queued",
            progress=Progress(),
            error=None,
            version=None,
            seconds=0.0,
            attempts=0,
            created=int(time.time()),
            started=None,
            finished=None,
        )
        with self._database.write() as connection:
            _check_parts(connection, spec, tenant)
            waiting = sa.select(sa.func.count()).where(
                table.c.tenant == tenant, table.c.state.in_(UNFINISHED)
            )
            if connection.execute(waiting).scalar_one() >= MOST_UNFINISHED:
                raise QuotaExhausted(f"{MOST_UNFINISHED} jobs are not finished; cancel some")
            if spec.privacy is None:
                budgets.check_unprotected(connection, spec.dataset)
            else:
                budgets.reserve(connection, job.id, spec.dataset, tenant, spec.privacy)
            row = msgspec.to_builtins(job) | {"billed": 0}
            connection.execute(table.insert().values(**row))
            _add_event(connection, job.id, "state", {"state": "queued"})
            by.note(connection, "job.create", job.id, tenant=tenant, model=spec.model)
        return job

    def get(self, id: str, tenant: str | None = None) -> Job:
        """
        Args:
            tenant: whose it must be; None: anybody's.

        Raises:
            NotFound
        """
        with self._database.read() as connection:
            return _get(connection, id, tenant)

    def list(self, tenant: str, *, before: str = "", limit: int = 100) -> list[Job]:
        """A tenant's, the newest first.

        Args:
            before: the last one's id of the page before.
        """
        query = sa.select(*_COLUMNS).where(table.c.tenant == tenant)
        with self._database.read() as connection:
            last = _get(connection, before, tenant) if before else None
            return [_job(row) for row in connection.execute(page(query, table, limit, last))]

    def act(self, id: str, action: Action, tenant: str, by: By) -> Job:
        """Pauses, resumes or cancels a job; one whose process runs is told within a second.

        Raises:
            NotFound
            Conflict: its state does not allow that.
        """
        with self._database.write() as connection:
            _lock(connection, id)
            job = _get(connection, id, tenant)
            then = _ACTIONS[action].get(job.state)
            if then is None:
                raise Conflict(f"job {id} is {job.state}; it cannot {action} now")
            _set(connection, id, then, finished=then == "cancelled")
            by.note(connection, f"job.{action}", id, tenant=tenant)
            return _get(connection, id, tenant)

    def events(self, id: str, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        query = (
            sa.select(job_events.c.number, job_events.c.time, job_events.c.kind, job_events.c.data)
            .where(job_events.c.job == id, job_events.c.number > after)
            .order_by(job_events.c.number)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [Event(*row) for row in connection.execute(query)]

    # --- for the supervisor ----------------------------------------------------------------

    def queued(self) -> Sequence[Job]:
        """The oldest first."""
        return self.in_state("queued")

    def billed(self, id: str) -> int:
        """Whole seconds of it that are in the ledger."""
        with self._database.read() as connection:
            query = sa.select(table.c.billed).where(table.c.id == id)
            return int(connection.execute(query).scalar_one())

    def in_state(self, *states: State) -> Sequence[Job]:
        query = (
            sa.select(*_COLUMNS)
            .where(table.c.state.in_(states))
            .order_by(table.c.created, table.c.id)
        )
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def move(self, id: str, before: Sequence[State], after: State, **values: Any) -> bool:
        """Changes a job's state if it is one of ``before``; whether it was.

        Args:
            values: of further columns.
        """
        with self._database.write() as connection:
            if _lock(connection, id) not in before:
                return False
            _set(connection, id, after, finished=after not in UNFINISHED, **values)
            return True

    def note(self, id: str, *events: tuple[str, dict[str, Any]], **values: Any) -> None:
        """Adds events (kind and data), and sets further columns with them."""
        with self._database.write() as connection:
            _lock(connection, id)
            for kind, data in events:
                _add_event(connection, id, kind, data)
            if values:
                connection.execute(table.update().where(table.c.id == id).values(**values))


def _check_parts(connection: sa.Connection, spec: JobSpec, tenant: str) -> None:
    """What a job is made of, locked: who removes it meanwhile waits, and sees the job then."""
    query = sa.select(datasets.c.state).where(
        datasets.c.id == spec.dataset, datasets.c.tenant == tenant
    )
    # One that is private takes of what is left: no two at a time.
    shared = spec.privacy is None
    state = connection.execute(query.with_for_update(read=shared)).scalar()
    if state is None:
        raise InvalidRequest(f"no data set {spec.dataset!r}", param="dataset")
    if state == "failed":
        raise InvalidRequest(f"data set {spec.dataset!r} could not be read", param="dataset")
    upload = spec.network.upload if spec.network is not None else None
    if upload is None:
        return
    row = connection.execute(
        sa.select(uploads.c.size, uploads.c.received)
        .where(uploads.c.id == upload, uploads.c.tenant == tenant)
        .with_for_update(read=True)
    ).first()
    if row is None:
        raise InvalidRequest(f"no upload {upload!r}", param="network.upload")
    if row.received < row.size:
        raise InvalidRequest(f"upload {upload!r} is not whole yet", param="network.upload")


def _lock(connection: sa.Connection, id: str) -> State | None:
    """Holds a job until the transaction's end: its state, which is returned, stays, and events are
    numbered one after the other. Whoever adds an event first, and is held by the job then, holds
    who holds the job."""
    query = sa.select(table.c.state).where(table.c.id == id)
    return connection.execute(query.with_for_update(key_share=True)).scalar()


def _get(connection: sa.Connection, id: str, tenant: str | None) -> Job:
    query = sa.select(*_COLUMNS).where(table.c.id == id)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    row = connection.execute(query).first()
    if row is None:
        raise NotFound(f"no job {id[:64]!r}")
    return _job(row)


def _job(row: sa.Row[Any]) -> Job:
    return msgspec.convert(dict(zip(Job.__struct_fields__, row, strict=True)), Job)


def _set(connection: sa.Connection, id: str, state: State, *, finished: bool, **more: Any) -> None:
    values: dict[str, Any] = {"state": state} | more
    if finished:
        values["finished"] = int(time.time())
    connection.execute(table.update().where(table.c.id == id).values(**values))
    data: dict[str, Any] = {"state": state}
    if more.get("error"):
        data["error"] = more["error"]
    if more.get("version"):
        data["version"] = more["version"]
    _add_event(connection, id, "state", data)


def _add_event(connection: sa.Connection, job: str, kind: str, data: dict[str, Any]) -> None:
    newest = sa.select(sa.func.coalesce(sa.func.max(job_events.c.number), 0)).where(
        job_events.c.job == job
    )
    number = connection.execute(newest).scalar_one() + 1
    now = time.time_ns() // 1_000_000
    connection.execute(
        job_events.insert().values(job=job, number=number, time=now, kind=kind, data=data)
    )
