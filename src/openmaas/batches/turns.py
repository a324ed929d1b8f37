"""Who asks next where all batches together ask only so many lines at one time."""

from __future__ import annotations

import asyncio
from collections import Counter, deque


class Turns:
    """Places that tenants get in turn: the one that has the fewest is next, then the one that
    waits longest. Everything is on the event loop.

    Args:
        most: places.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, tenant: str) -> None:
        """Returns when the tenant has one place more."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        self._fill()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give_back(tenant)  # it came too late
            raise

    def give_back(self, tenant: str) -> None:
        self._free += 1
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]
        self._fill()

    def _fill(self) -> None:
        while self._free and self._waiting:
            tenant = min(self._waiting, key=self._taken.__getitem__)
            waiting = self._waiting.pop(tenant)
            place = waiting.popleft()
            if waiting:
                self._waiting[tenant] = waiting  # behind the others
            if not place.done():
                self._free -= 1
                self._taken[tenant] += 1
                place.set_result(None)
