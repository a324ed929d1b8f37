"""What is at work for a tenant, or learns from a data set of its, is brought to stand still."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from openmaas.audit import By
from openmaas.batches.files import UNFINISHED as BATCHES
from openmaas.batches.records import Batches
from openmaas.database import Database
from openmaas.errors import Conflict, NotFound
from openmaas.privacy.erasures import Erasure
from openmaas.schema import aliases, datasets, deployments, sessions
from openmaas.training.jobs import UNFINISHED as JOBS
from openmaas.training.jobs import Job, Jobs
from openmaas.training.session_records import SessionRecords

SESSIONS = ("open", "idle")


class Server(Protocol):
    """What a server that runs has in hand."""

    async def refuse(self) -> None:
        """Looks at who may do what: nobody is let in any more who was a moment ago."""

    async def close_session(self, id: str, tenant: str, by: By) -> None: ...

    def leave_dataset(self, id: str) -> None:
        """Whoever reads it is ended."""

    def wake(self) -> None:
        """Jobs and batches are looked at now."""

    def let_go(self, tenant: str) -> int:
        """Ends a tenant's requests and forgets its answers; how many have not ended yet."""

    def serves(self, tenant: str) -> int:
        """Deployments of a tenant that are still there."""


class Halting:
    """All methods but ``beside`` block."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs = Jobs(database)
        self._sessions = SessionRecords(database)
        self._batches = Batches(database)

    def alone(self, erasure: Erasure) -> None:
        """Where no server runs, nothing is at work: rows alone say so, and are set right."""
        for job in self._learning(erasure):
            self._jobs.move(job.id, JOBS, "cancelled")
        for id in self._open(erasure):
            self._sessions.change(id, state="closed")
        if not erasure.object:
            for one in self._asked(erasure):
                self._batches.move(one, BATCHES, "cancelled")
        self._stop_reading(erasure, reading=True)
        self._undeploy(erasure)

    async def beside(
        self, erasure: Erasure, server: Server, thread: Callable[..., Any]
    ) -> Sequence[str]:
        """Tells a server's parts to stop what they do for a tenant, once more each time.

        Args:
            thread: runs what blocks.

        Returns:
            What is still at work: nothing when it is empty.
        """
        by = By(erasure.actor)
        left: list[str] = []
        await server.refuse()
        for job in await thread(self._learning, erasure):
            with contextlib.suppress(Conflict, NotFound):  # it is about to end
                await thread(self._jobs.act, job.id, "cancel", erasure.tenant, by)
            left.append(job.id)
        for id in await thread(self._open, erasure):
            await server.close_session(id, erasure.tenant, by)
        if not erasure.object:
            for one in await thread(self._asked, erasure):
                with contextlib.suppress(Conflict, NotFound):
                    await thread(self._batches.cancel, one, erasure.tenant, by)
                left.append(one)
        for one in await thread(self._stop_reading, erasure):
            server.leave_dataset(one)
            left.append(one)
        await thread(self._undeploy, erasure)
        server.wake()
        if not erasure.object:
            if count := server.let_go(erasure.tenant):
                left.append(f"{count} requests")
            if count := server.serves(erasure.tenant):
                left.append(f"{count} deployments")
        return left

    def _learning(self, erasure: Erasure) -> list[Job]:
        return [
            job for job in self._jobs.in_state(*JOBS)
            if job.tenant == erasure.tenant and erasure.object in ("", job.spec.dataset)
        ]  # fmt: skip

    def _open(self, erasure: Erasure) -> list[str]:
        query = sa.select(sessions.c.id, sessions.c.spec).where(
            sessions.c.tenant == erasure.tenant, sessions.c.state.in_(SESSIONS)
        )
        with self._database.read() as connection:
            return [
                row.id for row in connection.execute(query)
                if erasure.object in ("", row.spec.get("dataset"))
            ]  # fmt: skip

    def _asked(self, erasure: Erasure) -> list[str]:
        return [one.id for one in self._batches.look({}) if one.tenant == erasure.tenant]

    def _stop_reading(self, erasure: Erasure, *, reading: bool = False) -> list[str]:
        """Those that wait are not read any more; ids of those that are being read.

        Args:
            reading: nobody reads them: whoever did is dead.
        """
        which = datasets.c.tenant == erasure.tenant
        if erasure.object:
            which &= datasets.c.id == erasure.object
        states = ("waiting", "reading") if reading else ("waiting",)
        trouble = {"code": "erased", "message": "it is being erased"}
        with self._database.write() as connection:
            waiting = datasets.update().where(which, datasets.c.state.in_(states))
            connection.execute(waiting.values(state="failed", error=trouble))
            query = sa.select(datasets.c.id).where(which, datasets.c.state == "reading")
            return [row.id for row in connection.execute(query)]

    def _undeploy(self, erasure: Erasure) -> None:
        if erasure.object:
            return
        with self._database.write() as connection:
            for table in (aliases, deployments):
                connection.execute(table.delete().where(table.c.tenant == erasure.tenant))
