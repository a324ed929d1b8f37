"""Which models are in memory: a budget, who gets room next, and who leaves for it.

What workers take is measured, not guessed: their resident bytes, four times a second. Only before
a model was loaded for the first time its size on disk has to do. A model that was called and has
no room gets it from those that are idle, the one first that was not called for the longest time by
what it costs to load it again (GreedyDual's idea: Young, "On-line caching as cache size varies",
1991). Where all are busy, the one that would be first answers what it has and then leaves. Who
asks first is served first, so that a large model is not overtaken by small ones for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from openmaas import background
from openmaas.errors import InsufficientMemory

if TYPE_CHECKING:
    from openmaas.serving.deployment import Deployment

log = logging.getLogger(__name__)

SHARE = 0.7  # of the machine's memory, where the operator does not say
LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 1.0  # that a model waits for others to be idle; then one of them must
LEAST_LOAD_SECONDS = 0.5  # what loading costs at the least, for the choice of who leaves
BASE_BYTES = 160 << 20  # of a worker: interpreter and engine
FACTOR = 1.3  # of a model's bytes on disk, in memory
TOLERANCE = 1.05  # of the budget: beyond it a worker that loads is stopped


class Residency:
    """
    Args:
        budget: bytes that all workers together may take.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.evictions = 0
        self._all: list[Deployment] = []
        self._asking: dict[Deployment, float] = {}  # in order, and since when
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        await background.end(self._task)

    # --- what deployments say ------------------------------------------------------------------

    def join(self, deployment: Deployment) -> None:
        self._all.append(deployment)

    def leave(self, deployment: Deployment) -> None:
        self._asking.pop(deployment, None)
        with contextlib.suppress(ValueError):
            self._all.remove(deployment)
        self.freed()

    def ask(self, deployment: Deployment) -> None:
        """A worker of it is wanted; ``grant`` or ``refuse`` answers, in time."""
        self._asking.setdefault(deployment, time.monotonic())
        self.freed()

    def fits(self, deployment: Deployment) -> bool:
        """Whether one more worker has room as things are; nobody leaves for it."""
        return not self._asking and self.taken() + deployment.footprint <= self.budget

    def idle(self) -> None:
        """A deployment has no call any more: others may have its room."""
        if self._asking:
            self._news.set()

    def freed(self) -> None:
        """Something changed: who waits may be lucky now."""
        self._news.set()

    def guess(self, size: int) -> int:
        """Bytes in memory of a model that was never loaded, by its bytes on disk."""
        return BASE_BYTES + int(size * FACTOR)

    def taken(self) -> int:
        """Bytes of all workers: what is measured, and of those that load what they will take."""
        return sum(self._of(one) for one in self._all)

    # --- the choice ------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._news.wait()
            self._news.clear()
            try:
                self._look()
            except Exception:
                log.exception("cannot look after memory; trying again")

    def _look(self) -> None:
        staying = sum(one.resident() - one.ending() for one in self._all)
        if staying > self.budget:
            self._shrink(staying)
        for deployment, since in list(self._asking.items()):
            need = deployment.footprint
            others = sum(
                self._of(one) for one in self._all if one.pinned and not one.replaced_by(deployment)
            )
            if not deployment.measured:  # a guess refuses nobody
                need = max(deployment.size, min(need, self.budget - others))
            if need + others > self.budget:
                del self._asking[deployment]
                if others:
                    log.error("pinned models take %s of the budget", _mib(others))
                deployment.refuse(self._never(deployment, need))
                continue
            taken = self.taken()
            if taken + need <= self.budget:
                del self._asking[deployment]
                deployment.grant()
                continue
            if not deployment.called:
                del self._asking[deployment]
                deployment.defer("no room in memory; it is loaded when it is called")
                continue
            patient = time.monotonic() - since < PATIENCE_SECONDS
            self._make_room(taken + need - self.budget, idle=patient)
            return  # nobody overtakes

    def _make_room(self, bytes_: int, *, idle: bool) -> None:
        """Has others leave until so many bytes are on their way.

        Args:
            idle: only those that have nothing to do.
        """
        on_their_way = sum(one.ending() for one in self._all)
        on_their_way += sum(self._of(one) for one in self._all if one.draining)
        now = time.monotonic()
        for one in self._by_worth():
            if on_their_way >= bytes_:
                return
            # What a load cost is to be worth it: a busy model keeps its turn for as long.
            turn = max(PATIENCE_SECONDS, one.load_seconds)
            if one.draining or not (one.idle or (not idle and now - one.ready_since > turn)):
                continue
            on_their_way += self._of(one)
            self.evictions += 1
            log.info("%s leaves memory for another", one.label)
            one.make_room()

    def _by_worth(self) -> list[Deployment]:
        """Those that may leave, the one that is missed least first; idle ones before all others."""
        now = time.monotonic()

        def worth(one: Deployment) -> tuple[bool, float]:
            idle = now - one.last_used
            return not one.idle, -idle / max(one.load_seconds, LEAST_LOAD_SECONDS)

        loaded = (one for one in self._all if one.replicas and not one.pinned and not one.wanted)
        return sorted((one for one in loaded if one.state == "ready"), key=worth)

    def _shrink(self, taken: int) -> None:
        """The workers have grown beyond the budget."""
        for one in self._by_worth():
            if one.idle and taken > self.budget:
                taken -= one.resident()
                self.evictions += 1
                log.info("%s leaves memory: the budget is exceeded", one.label)
                one.sleep("the memory budget was exceeded")
        if taken <= self.budget * TOLERANCE:
            return
        for one in self._all:
            if one.state in ("loading", "restarting") and not one.pinned:
                # It is larger than it seemed. What it took is known now; it asks again, and
                # others leave for it or it is refused.
                log.warning("%s takes more memory than was free; it is stopped", one.label)
                one.outgrown()
                return

    def _of(self, one: Deployment) -> int:
        resident = one.resident()
        if all(replica.state not in ("loading", "restarting") for replica in one.replicas):
            return resident
        each = min(one.footprint, self.budget)
        known = sum(max(replica.memory(), each) for replica in one.replicas)
        return max(resident, known + sum(replica.memory() for replica in one.leaving))

    def _never(self, one: Deployment, need: int) -> InsufficientMemory:
        takes = "takes" if one.measured else "is expected to take"
        return InsufficientMemory(
            f"model {one.model!r} {takes} {_mib(need)}; the memory budget is "
            f"{_mib(self.budget)}, without what pinned models need. Its operator may raise "
            "memory_budget, or deploy a smaller model"
        )


def _mib(bytes_: int) -> str:
    return f"{bytes_ / (1 << 20):,.0f} MiB"


def group_limit() -> int | None:
    """Bytes that this process's control group may take; None: as many as there are."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def machine_memory() -> int:
    """Bytes that this machine has, or that its control group may take."""
    total, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), group_limit()
    return total if limit is None else min(total, limit)
