"""Who is being answered, so that all of a tenant's requests can be ended."""

from __future__ import annotations

import asyncio
from typing import Any

from openmaas.tenancy.access import ENVIRONMENT, Caller


class Present:
    """The tasks that answer requests now."""

    def __init__(self) -> None:
        self._tenants: dict[asyncio.Task[Any] | None, str] = {}

    def enter(self, caller: Caller) -> None:
        """The current task answers a request of a caller's."""
        if caller.key != ENVIRONMENT:  # who administers is to see how an erasure goes on
            self._tenants[asyncio.current_task()] = caller.tenant

    def leave(self) -> None:
        """The current task does so no more."""
        self._tenants.pop(asyncio.current_task(), None)

    def end(self, tenant: str) -> int:
        """Ends a tenant's requests; how many have not ended yet."""
        there = [task for task, of in self._tenants.items() if of == tenant and task is not None]
        for task in there:
            task.cancel()
        return len(there)
