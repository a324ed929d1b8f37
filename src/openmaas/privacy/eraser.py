"""Brings erasures to their end: a server does it beside the requests, a command where none runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from openmaas import background
from openmaas.errors import OpenMaaSError
from openmaas.privacy.erasing import Erasing
from openmaas.privacy.erasures import Erasure, Erasures
from openmaas.privacy.halting import Halting, Server

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
LATE_SECONDS = 3600.0  # between two looks for what came after an erasure
TRIES = 60  # of a command, a second each


class Eraser:
    """A server's. Everything but what threads do is on the event loop."""

    def __init__(
        self, erasures: Erasures, erasing: Erasing, halting: Halting, server: Server
    ) -> None:
        self._erasures = erasures
        self._erasing = erasing
        self._halting = halting
        self._server = server
        self._turn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """An erasure was requested."""
        self._turn.set()

    async def start(self) -> None:
        """Goes on with what an earlier server or a command left half done."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        await background.end(self._task)

    async def _follow(self) -> None:
        looked: float | None = None
        while True:
            self._turn.clear()
            try:
                if looked is None or time.monotonic() - looked >= LATE_SECONDS:
                    looked = time.monotonic()
                    await asyncio.to_thread(late, self._erasures, self._erasing)
                for one in await asyncio.to_thread(self._erasures.unfinished):
                    await self._advance(one)
            except OpenMaaSError as error:  # the database is away: it is tried again
                log.warning("an erasure waits: %s", error.message)
            except Exception:
                log.exception("an erasure cannot go on; it is tried again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._turn.wait()

    async def _advance(self, one: Erasure) -> None:
        """As far as it gets now."""
        if one.state == "requested":
            left = await self._halting.beside(one, self._server, asyncio.to_thread)
            if left:
                return
        while one.state != "done":
            await asyncio.to_thread(step, one, self._erasing)
            one = await asyncio.to_thread(self._erasures.get, one.id)
        log.info("%s is done", one.id)


def step(one: Erasure, erasing: Erasing) -> None:
    """Does what is next; whether it was done is in the row.

    Raises:
        StorageUnavailable, StorageFull: it is tried again later.
    """
    match one.state:
        case "requested":
            erasing.halted(one)
        case "halted":
            erasing.make_unreadable(one)
        case "unreadable":
            erasing.remove(one)
        case "removed":
            erasing.finish(one)
        case "done":
            pass


def erase_alone(id: str, erasures: Erasures, erasing: Erasing, halting: Halting) -> Erasure:
    """Brings an erasure to its end where no server runs.

    Raises:
        StorageUnavailable, StorageFull: it cannot end now; it goes on when it is asked again.
    """
    tries = 0
    while True:
        one = erasures.get(id)
        if one.state == "done":
            return one
        if one.state == "requested":
            halting.alone(one)
        try:
            step(one, erasing)
        except OpenMaaSError:
            tries += 1
            if tries == TRIES:
                raise
            time.sleep(1)


def late(erasures: Erasures, erasing: Erasing) -> None:
    """Removes once more what was written for a tenant by something that was cut off as the tenant
    was erased, and came to its end behind that."""
    for one in erasures.list(None, "done"):
        if not one.object and erasing.closed(one.tenant) and erasing.left(one):
            erasing.clean(one)
