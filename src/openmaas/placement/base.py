"""Where a worker runs: the one interface that the local machine and a cluster share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from openmaas.frames import Ready, Refused, ToGateway, ToWorker


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker is told: no secret, no database, no other tenant's data."""

    deployment: str
    runtime: str
    artifacts: str  # root of the artifact store
    tenant: str = ""  # whose sealed artifact it is, before it is unsealed; a worker is told none
    digest: str  # of the artifact, whose bytes the worker checks before it parses them
    options: dict[str, Any] = {}
    writes: list[str] = []  # files that it may write beside its own scratch folder
    load_seconds: float = 120.0
    nice: int = 0  # how much it gives way to other processes, as the system counts it: 0 to 19


class Worker(Protocol):
    """A worker that runs. It reports through the callbacks given to ``start``."""

    pid: int

    def send(self, frame: ToWorker) -> None:
        """Queues a frame; never blocks."""

    def kill(self) -> None:
        """Ends it at once (SIGKILL)."""

    async def stop(self, seconds: float) -> None:
        """Asks it to end, then kills it after ``seconds``; returns when it is gone."""

    def last_words(self) -> str:
        """The end of its log."""

    def memory(self) -> int:
        """Resident bytes, 0 if it is gone."""


class Placement(Protocol):
    async def start(
        self,
        spec: WorkerSpec,
        on_start: Callable[[Worker], None],
        on_frame: Callable[[ToGateway], None],
        on_exit: Callable[[str], None],
    ) -> tuple[Worker, Ready | Refused]:
        """Starts a worker and waits for its first word.

        Args:
            on_start: told of the worker as soon as it can be measured; it may still be loading.

        Raises:
            WorkerFailed: it died or took longer than ``spec.load_seconds``.
        """
