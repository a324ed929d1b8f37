"""Runs training jobs: claims them in turn, so many at one time.

The database is what is true. A server that dies leaves rows that say "running"; the next one
queues those anew, and their trainers go on from their last checkpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter

from openmaas import background
from openmaas.audit import By
from openmaas.errors import InvalidRequest, OpenMaaSError
from openmaas.training.differential_privacy import forms
from openmaas.training.differential_privacy.settling import Settling
from openmaas.training.jobs import IN_HAND, Job, Jobs, State
from openmaas.training.metering import Metering, Owner
from openmaas.training.publishing import Publisher
from openmaas.training.running import Bounds
from openmaas.training.spec import JobSpec
from openmaas.training.work import Shop, Work
from openmaas.training.workshop import Workshop

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# what a job is that was in hand when its server died; others are queued
LEFT: dict[State, State] = {"pausing": "paused", "cancelling": "cancelled"}


class Supervisor:
    """Everything but what threads do is on the event loop.

    Args:
        at_once: jobs that train at one time.
    """

    def __init__(
        self,
        jobs: Jobs,
        workshop: Workshop,
        metering: Metering,
        publisher: Publisher,
        bounds: Bounds,
        at_once: int,
        settling: Settling,
    ) -> None:
        self._jobs = jobs
        self._settling = settling
        self._metering = metering
        self._workshop = workshop
        self._shop = Shop(jobs, workshop, metering, publisher, bounds, asyncio.Event(), settling)
        self._at_once = at_once
        self._running: dict[str, asyncio.Task[None]] = {}
        self._owners: dict[str, str] = {}  # job → tenant, of those that run
        self._turn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, spec: JobSpec, owner: Owner) -> Job:
        """Checks a job and queues it.

        Raises:
            InvalidRequest: it says too little or too much, or names what is not there.
            QuotaExhausted: its owner's compute is used up.
        """
        check(spec)
        self._workshop.check_installed(spec.fit.backend)
        clock = await self._metering.open(owner, spec.model, "new")
        try:
            clock.check()
        finally:
            await clock.close()
        job = await asyncio.to_thread(self._jobs.create, spec, owner, By(owner.key))
        self.wake()
        return job

    def wake(self) -> None:
        """Looks at the jobs now: one was added or is to be told something."""
        self._turn.set()

    async def start(self) -> None:
        """Takes up what an earlier server left, and follows the queue from now on."""
        for job in await asyncio.to_thread(self._jobs.in_state, *IN_HAND):
            after = LEFT.get(job.state, "queued")
            await asyncio.to_thread(self._jobs.move, job.id, [job.state], after)
        await self._settle()
        await asyncio.to_thread(self._workshop.sweep, self._jobs)
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Lets every trainer write a checkpoint; its job is queued for the next server."""
        self._shop.stopping.set()
        await background.end(self._task)
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            self._turn.clear()
            try:
                await self._fill()
                await self._settle()
            except OpenMaaSError as error:  # the database is away: it is tried again
                log.warning("cannot look at the jobs: %s", error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._turn.wait()

    async def _settle(self) -> None:
        """What is held of budgets by jobs that were cancelled while nothing worked on them."""
        await asyncio.to_thread(self._settling.ended, self._workshop.at_hand)

    async def _fill(self) -> None:
        while len(self._running) < self._at_once:
            queued = await asyncio.to_thread(self._jobs.in_state, "queued")
            job = choose([one for one in queued if one.id not in self._running], self._owners)
            if job is None:
                return
            started = job.started or int(time.time())
            if not await asyncio.to_thread(
                self._jobs.move, job.id, ["queued"], "running", started=started
            ):
                continue  # it was paused or cancelled at this very moment
            self._owners[job.id] = job.tenant
            task = asyncio.create_task(Work(self._shop, job).run())
            self._running[job.id] = task
            task.add_done_callback(lambda _, id=job.id: self._ended(id))  # type: ignore[misc]

    def _ended(self, id: str) -> None:
        del self._running[id], self._owners[id]
        self.wake()


def check(spec: JobSpec) -> None:
    """
    Raises:
        InvalidRequest: what is to be trained is not said, or twice, or not so that it is private.
    """
    if (spec.recipe is None) == (spec.network is None):
        raise InvalidRequest("say either a recipe or a network", param="recipe")
    if spec.privacy is not None:
        forms.check(spec.fit)
    network = spec.network
    if network is not None and (network.config is None) == (network.upload is None):
        raise InvalidRequest("network has either a config or an upload", param="network")
    if network is not None and spec.parameters:
        raise InvalidRequest("parameters are a recipe's; a network has none", param="parameters")
    promote = spec.promote
    if not isinstance(promote, bool) and promote.at_least is None and promote.at_most is None:
        raise InvalidRequest("promote says at_least or at_most", param="promote")


def choose(queued: list[Job], running: dict[str, str]) -> Job | None:
    """The next job: of the tenant that has the fewest running, the one that waits longest."""
    counts = Counter(running.values())
    return min(queued, key=lambda job: (counts[job.tenant], job.created, job.id), default=None)
