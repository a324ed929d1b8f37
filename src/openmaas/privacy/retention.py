"""Has requests and answers kept that tenants want to keep: in groups, beside the answers.

No answer waits for it and none is refused for it. What was answered in the last moments before
the server is killed is not there; what there is no room for is dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter

from openmaas.errors import OpenMaaSError
from openmaas.privacy.retained import Exchange, RetainedExchanges, day_of

log = logging.getLogger(__name__)

GROUP_SECONDS = 0.2  # between two groups: what is lost at the most when the server is killed
AGAIN_SECONDS = 1.0  # where the database is away, or the disk full
PENDING_BYTES = 64 << 20  # in memory; more are dropped
SWEEP_SECONDS = 3600.0
PATIENCE_SECONDS = 5.0  # that a server which ends waits for the last group


class Retention:
    """Everything but what threads do is on the event loop."""

    def __init__(self, kept: RetainedExchanges) -> None:
        self._kept = kept
        self._pending: list[Exchange] = []
        self._bytes = 0
        self._lost: Counter[tuple[str, int]] = Counter()  # by tenant and day
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, one: Exchange) -> None:
        """Takes an exchange; it is on disk in a moment."""
        if self._bytes + one.size > PENDING_BYTES:
            self._lost[one.tenant, day_of(one.time)] += 1
        else:
            self._pending.append(one)
            self._bytes += one.size
        self._news.set()

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._sweep())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError, OpenMaaSError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._write()
        if self._pending:
            log.error("%d exchanges are not retained: the server ended", len(self._pending))

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            wait = GROUP_SECONDS
            try:
                await self._write()
            except OpenMaaSError as error:
                log.warning("exchanges cannot be retained now: %s", error.message)
                self._news.set()
                wait = AGAIN_SECONDS
            except Exception:
                log.exception("exchanges cannot be retained now")
                self._news.set()
                wait = AGAIN_SECONDS
            await asyncio.sleep(wait)

    async def _write(self) -> None:
        while self._lost:
            (tenant, day), count = self._lost.popitem()
            log.error("%d exchanges of tenant %s are not retained: too many at once", count, tenant)
            await asyncio.to_thread(self._kept.drop_some, tenant, day, count)
        groups: dict[tuple[str, int], list[Exchange]] = {}
        for one in self._pending:
            groups.setdefault((one.tenant, day_of(one.time)), []).append(one)
        for (tenant, day), group in groups.items():
            dropped = await asyncio.to_thread(self._kept.keep, tenant, day, group)
            done = {id(one) for one in group}
            self._pending = [one for one in self._pending if id(one) not in done]
            self._bytes -= sum(one.size for one in group)
            if dropped:
                log.error(
                    "%d exchanges of tenant %s are not retained: it may store no more", dropped,
                    tenant,
                )  # fmt: skip

    async def _sweep(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await asyncio.to_thread(self._kept.sweep)
            except OpenMaaSError as error:
                log.warning("what is retained cannot be looked at: %s", error.message)
            except Exception:
                log.exception("what is retained cannot be looked at")
            await asyncio.sleep(SWEEP_SECONDS - (time.monotonic() - began))
