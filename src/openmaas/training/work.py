"""One job, from its turn to its end: data → trainer → version."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from openmaas.audit import By
from openmaas.errors import (
    OpenMaaSError,
    QuotaExhausted,
    RateLimited,
    StorageUnavailable,
    TrainingFailed,
)
from openmaas.training.differential_privacy.settling import Settling
from openmaas.training.jobs import IN_HAND, Job, Jobs, Progress, State
from openmaas.training.metering import Clock, Metering, Owner
from openmaas.training.publishing import Publisher
from openmaas.training.running import Bounds, Running, Said
from openmaas.training.spec import JobSpec
from openmaas.training.task import DONE
from openmaas.training.workshop import Workshop

log = logging.getLogger(__name__)

Wish = Literal["pause", "wait", "stop", "cancel"]  # wait: its quota is used up
# what a job is after its process was asked to end; after a pause that depends
AFTER: dict[Wish | None, State] = {"wait": "paused", "stop": "queued", "cancel": "cancelled"}
TRAINER = "openmaas.training.trainer"
LOOK_SECONDS = 0.5  # between two looks at data that are being read
BEAT_SECONDS = 0.5  # between two looks at a trainer: its memory, its quota, what is asked of it
PAUSE_SECONDS = 30.0  # that a trainer has for its checkpoint
TOLD = 20  # epochs of one look
CRASHES = 3  # in a row without a checkpoint between
AHEAD_SECONDS = 2.0  # of compute that are held of a quota while a job runs


class Shop(NamedTuple):
    """What all jobs share."""

    jobs: Jobs
    workshop: Workshop
    metering: Metering
    publisher: Publisher
    bounds: Bounds
    stopping: asyncio.Event  # the server is
    settling: Settling


class Work:
    """A job that has its turn. ``run`` ends when it is paused, put off or finished, and whatever
    happens is in the job's row."""

    def __init__(self, shop: Shop, job: Job) -> None:
        self._shop = shop
        self._jobs = shop.jobs
        self._job = job

    async def run(self) -> None:
        job = self._job
        try:
            if await self._train():
                await self._publish()
        except _CancelledJob:
            await self._move("cancelled")
        except StorageUnavailable as error:
            log.error("job %s: %s", job.id, error.message)
            await self._later()
        except OpenMaaSError as error:
            await self._fail(error)
        except Exception:
            log.exception("job %s failed", job.id)
            await self._fail(TrainingFailed(f"something broke here; it is in the log as {job.id}"))

    async def _train(self) -> bool:
        """Whether there is a result now."""
        job, workshop = self._job, self._shop.workshop
        if await asyncio.to_thread(workshop.trained, job):
            return True
        dataset = await self._data()
        whole = await asyncio.to_thread(workshop.whole, job.id)
        if job.spec.privacy is not None and job.attempts and not whole:
            # Begun anew, with other noise, it would spend a second time.
            raise TrainingFailed("what this private job had done is lost, and so what it spent")
        readable = await asyncio.to_thread(workshop.prepare, job, dataset)
        billed = await asyncio.to_thread(self._jobs.billed, job.id)
        clock = await self._shop.metering.open(
            Owner(job.tenant, job.project, job.key),
            job.model,
            job.id,
            seconds=job.seconds,
            billed=billed,
        )
        try:
            return await self._run(clock, dataset, readable)
        finally:
            await clock.close()
            await self._count(clock)

    async def _data(self) -> Path:
        """The data set's folder, once it is read."""
        job = self._job
        while True:
            found = await asyncio.to_thread(self._shop.workshop.dataset, job)
            if found is not None:
                return found
            await asyncio.sleep(LOOK_SECONDS)
            if (await asyncio.to_thread(self._jobs.get, job.id)).state == "cancelling":
                raise _CancelledJob("it was cancelled")

    async def _run(self, clock: Clock, dataset: Path, readable: Sequence[Path]) -> bool:
        """Trains until there is a result; False: it was paused, cancelled or put off."""
        job, crashes, attempts = self._job, 0, self._job.attempts
        folder = self._shop.workshop.folder(job.id)
        while True:
            attempts += 1
            await asyncio.to_thread(self._jobs.note, job.id, attempts=attempts)
            trainer = await Running.start(TRAINER, folder, readable, self._shop.bounds)
            asked = await self._watch(trainer, clock)
            await asyncio.to_thread(self._shop.workshop.keep, job)
            if trainer.status == DONE:
                return True
            if asked in AFTER:
                await self._move(AFTER[asked])
                return False
            if asked == "pause":
                await asyncio.to_thread(self._shop.workshop.put_away, job)
                if await asyncio.to_thread(self._jobs.move, job.id, ["pausing"], "paused"):
                    return False
                readable = await asyncio.to_thread(self._shop.workshop.prepare, job, dataset)
                continue  # it was resumed meanwhile, or cancelled: the next look tells
            error = trainer.error()
            if error is not None:
                raise error
            crashes = 1 if trainer.checkpoints else crashes + 1
            words = f"its process died ({trainer.end}); {trainer.last_words}".rstrip("; ")
            await self._say(words)
            if crashes >= CRASHES:
                raise TrainingFailed(f"{words}. It was started {crashes} times in vain")

    async def _watch(self, trainer: Running, clock: Clock) -> Wish | None:
        """Follows a process to its end; returns what was asked of it, if anything."""
        asked: Wish | None = None
        deadline, last = float("inf"), time.monotonic()
        try:
            while not await trainer.ended(BEAT_SECONDS):
                now = time.monotonic()
                clock.add(now - last)
                last = now
                await self._tell(trainer)
                if now > deadline:
                    trainer.kill()
                wish = await self._wish(clock)
                if wish is not None and wish != asked:
                    trainer.ask(wish)
                    asked, deadline = wish, now + PAUSE_SECONDS
                if clock.due:
                    await clock.write()
                    await self._count(clock)
            clock.add(time.monotonic() - last)
            await self._tell(trainer)
        finally:
            trainer.kill()  # without the database nobody could count what it computes
        return asked

    async def _wish(self, clock: Clock) -> Wish | None:
        """What a trainer should do instead of training."""
        if self._shop.stopping.is_set():
            return "stop"
        state = (await asyncio.to_thread(self._jobs.get, self._job.id)).state
        if state in ("pausing", "cancelling"):
            return "pause" if state == "pausing" else "cancel"
        try:
            clock.check(AHEAD_SECONDS)
        except (QuotaExhausted, RateLimited) as error:
            await self._say(f"paused: {error.message}")
            return "wait"
        return None

    async def _tell(self, trainer: Running) -> None:
        """Passes on what a trainer said. Where many epochs end between two looks the last few of
        them are told of; the version's card has all."""
        news = trainer.news()
        done = [said for said in news if said.kind in ("epoch", "step")]
        if any(said.kind == "checkpoint" for said in news):
            await asyncio.to_thread(self._shop.workshop.keep, self._job)
        elif self._job.spec.privacy is not None:
            await asyncio.to_thread(self._shop.workshop.keep, self._job, spent=True)
        if not news:
            return
        few = {id(said) for kind in ("epoch", "checkpoint") for said in _last(news, kind)}
        events = [
            (said.kind, {name: value for name, value in said.told().items() if name != "kind"})
            for said in news
            if said.kind == "message" or id(said) in few
        ]
        values: dict[str, Any] = {}
        if done:
            last = done[-1]
            progress = Progress(last.epoch, last.epochs, last.step, last.steps, last.metrics)
            values["progress"] = msgspec.to_builtins(progress)
        await asyncio.to_thread(self._jobs.note, self._job.id, *events, **values)

    async def _say(self, text: str) -> None:
        await asyncio.to_thread(self._jobs.note, self._job.id, ("message", {"text": text}))

    async def _publish(self) -> None:
        job, by = self._job, By(self._job.key)
        before: list[State] = ["running", "pausing"]  # to pause what is done is too late
        if not await asyncio.to_thread(self._jobs.move, job.id, before, "publishing"):
            await self._move("cancelled")
            return
        made = await asyncio.to_thread(self._shop.workshop.result, job)
        version = await asyncio.to_thread(
            self._shop.publisher.publish,
            made.kind,
            made.export,
            (job.tenant, job.model),
            made.card,
            by,
            curve=made.curve,
        )
        number = version.version
        await self._settle()
        refusal = withheld(job.spec, made.card.metrics)
        if refusal is None:
            await self._promote(number, by)
        elif refusal:
            await self._say(f"it is not served: {refusal}")
        await asyncio.to_thread(
            self._jobs.move, job.id, ["publishing"], "succeeded", version=number
        )
        await asyncio.to_thread(self._shop.workshop.remove, job.id)

    async def _promote(self, number: int, by: By) -> None:
        """A version that cannot be served is there all the same."""
        job = self._job
        try:
            await asyncio.to_thread(self._shop.publisher.promote, job.tenant, job.model, number, by)
        except StorageUnavailable:
            raise
        except OpenMaaSError as error:
            await self._say(f"it is not served: {error.message}")

    # --- how it ends -------------------------------------------------------------------------

    async def _fail(self, error: OpenMaaSError) -> None:
        told = {"code": error.code, "message": error.message}
        try:
            await self._settle()
            await asyncio.to_thread(self._jobs.move, self._job.id, IN_HAND, "failed", error=told)
        except OpenMaaSError:
            await self._later()
        else:
            await asyncio.to_thread(self._shop.workshop.remove, self._job.id)

    async def _move(self, after: State) -> None:
        if after == "cancelled":  # nothing is left of it once its owner is told so
            await self._settle()
            await asyncio.to_thread(self._shop.workshop.remove, self._job.id)
        else:
            await asyncio.to_thread(self._shop.workshop.put_away, self._job)
        await asyncio.to_thread(self._jobs.move, self._job.id, IN_HAND, after)

    async def _settle(self) -> None:
        """What it spent of its data set's budget is settled before its folder is removed."""
        if self._job.spec.privacy is not None:
            folder = await asyncio.to_thread(self._shop.workshop.at_hand, self._job.id)
            begun = (await asyncio.to_thread(self._jobs.get, self._job.id)).attempts
            await asyncio.to_thread(self._shop.settling.job, self._job.id, folder, begun)

    async def _later(self) -> None:
        """The database is away: the job is queued once it is back."""
        while not self._shop.stopping.is_set():
            with contextlib.suppress(OpenMaaSError):
                await self._move("queued")
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _count(self, clock: Clock) -> None:
        with contextlib.suppress(OpenMaaSError):
            await asyncio.to_thread(
                self._jobs.note, self._job.id, seconds=clock.seconds, billed=clock.billed
            )


class _CancelledJob(Exception):
    """A job was cancelled before it trained."""


def _last(news: Sequence[Said], kind: str) -> list[Said]:
    return [said for said in news if said.kind == kind][-TOLD:]


def withheld(spec: JobSpec, metrics: dict[str, float | None]) -> str | None:
    """Why a version may not be served at once; empty: nobody asked for it; None: it may."""
    promote = spec.promote
    if isinstance(promote, bool):
        return None if promote else ""
    value = metrics.get(promote.metric)
    if value is None:
        return f"there is no {promote.metric} of the held-out rows, only {', '.join(metrics)}"
    for holds, words in (
        (promote.at_least is None or value >= promote.at_least, f"at least {promote.at_least}"),
        (promote.at_most is None or value <= promote.at_most, f"at most {promote.at_most}"),
    ):
        if not holds:
            return f"{promote.metric} is {value:.4g}, which is to be {words}"
    return None
