"""Runs all batches beside the requests: the oldest of each tenant, lines in turn.

The database is what is true. A server that dies leaves batches half done; the next one goes on
with the lines whose answers are not written, each under the same request's id, so that its row in
the ledger takes the place of whatever was billed for an answer that was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from pathlib import Path

from openmaas import background
from openmaas.batches.files import UNFINISHED, Files
from openmaas.batches.records import Batches, Standing
from openmaas.batches.results import Results
from openmaas.batches.running import MOST, Ask, Shop, Work
from openmaas.batches.turns import Turns
from openmaas.errors import NotFound, OpenMaaSError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
SWEEP_SECONDS = 3600.0
OPEN = 8  # batches of one tenant that are asked at one time; others wait


class BatchService:
    """Everything but what threads do is on the event loop.

    Args:
        folder: for answers of batches that are not finished, a file for each.
        at_once: lines of all batches that are asked at one time.
    """

    def __init__(
        self, batches: Batches, files: Files, folder: Path, ask: Ask, at_once: int
    ) -> None:
        self._batches = batches
        self._files = files
        self._folder = folder
        most = min(MOST, at_once)
        self._shop = Shop(batches, files, ask, Turns(at_once), most, asyncio.Semaphore(1))
        self._works: dict[str, Work] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, tuple[int, int]] = {}  # counts, as the database has them
        self._turn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Looks at the batches now: one was made or is to be cancelled."""
        self._turn.set()

    async def start(self) -> None:
        """Takes back what was billed for answers that are lost, before anybody's use is added up;
        then goes on with what an earlier server left."""
        await asyncio.to_thread(self._take_back)
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Gives up what is being asked; the next server goes on."""
        await background.end(self._task)
        for work in self._works.values():
            work.end("stopped")
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=10)
            for task in late:  # it waits for a database or a disk
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _follow(self) -> None:
        swept: float | None = None
        while True:
            self._turn.clear()
            try:
                if swept is None or time.monotonic() - swept >= SWEEP_SECONDS:
                    await asyncio.to_thread(self._sweep)
                    swept = time.monotonic()
                await self._look()
            except OpenMaaSError as error:  # the database is away: it is tried again
                log.warning("cannot look at the batches: %s", error.message)
            except Exception:
                log.exception("cannot look at the batches")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._turn.wait()

    async def _look(self) -> None:
        counts = {
            id: now
            for id, work in self._works.items()
            if (now := work.results.counts) is not None and now != self._told.get(id)
        }
        found = await asyncio.to_thread(self._batches.look, counts)
        self._told |= counts
        opened = Counter(one.tenant for one in found if one.id in self._works)
        moment = time.time()
        for one in found:
            why = "cancelled" if one.state == "cancelling" else None
            if why is None and moment >= one.expires:
                why = "expired"
            work = self._works.get(one.id)
            if work is None and (why is not None or opened[one.tenant] < OPEN):
                opened[one.tenant] += 1
                work = await self._open(one)
            if work is not None and why is not None:
                work.end("cancelled" if why == "cancelled" else "expired")

    async def _open(self, one: Standing) -> Work | None:
        try:
            batch = await asyncio.to_thread(self._batches.get, one.id)
        except NotFound:
            return None
        if batch.state not in UNFINISHED:  # it was finished since the look
            return None
        results = Results(self._path(one.id), self._files.keyring, batch.tenant)
        work = self._works[one.id] = Work(self._shop, batch, results)
        task = self._tasks[one.id] = asyncio.create_task(work.run())
        task.add_done_callback(lambda _: self._ended(one.id))
        return work

    def _ended(self, id: str) -> None:
        del self._works[id], self._tasks[id]
        self._told.pop(id, None)
        self.wake()

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.jsonl"

    def _take_back(self) -> None:
        for one in self._batches.look({}):
            batch = self._batches.get(one.id)
            billed = self._batches.billed(batch)
            if billed:
                results = Results(self._path(one.id), self._files.keyring, batch.tenant)
                results.open()
                lost = [id for number, id in billed.items() if not results.done[number]]
                self._batches.take_back(lost)

    def _sweep(self) -> None:
        self._files.sweep()
        unfinished = self._batches.sweep()
        for path in self._folder.glob("*.jsonl") if self._folder.is_dir() else ():
            if path.stem not in unfinished:
                path.unlink(missing_ok=True)
