"""What this server has in hand for its tenants: what an erasure brings to stand still."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from openmaas.audit import By
from openmaas.batches.service import BatchService
from openmaas.errors import OpenMaaSError
from openmaas.serving.fleet import Fleet
from openmaas.tenancy.access import Access
from openmaas.training.reading import Reader
from openmaas.training.sessions import Sessions
from openmaas.training.supervisor import Supervisor


class AtWork:
    """It is a ``privacy.halting.Server``. Everything is on the event loop.

    Args:
        let_go: ends a tenant's requests; how many there still are.
    """

    def __init__(
        self,
        access: Access,
        fleet: Fleet,
        batches: BatchService,
        reader: Reader,
        supervisor: Supervisor,
        sessions: Sessions,
        let_go: Callable[[str], int],
    ) -> None:
        self._access = access
        self._fleet = fleet
        self._batches = batches
        self._reader = reader
        self._supervisor = supervisor
        self._sessions = sessions
        self.let_go = let_go

    async def refuse(self) -> None:
        await self._access.look()

    async def close_session(self, id: str, tenant: str, by: By) -> None:
        with contextlib.suppress(OpenMaaSError):  # it is looked at again
            await self._sessions.close(id, tenant, by)

    def leave_dataset(self, id: str) -> None:
        self._reader.leave(id)

    def wake(self) -> None:
        self._supervisor.wake()
        self._batches.wake()

    def serves(self, tenant: str) -> int:
        return sum(one.tenant == tenant for one in self._fleet.everything())
