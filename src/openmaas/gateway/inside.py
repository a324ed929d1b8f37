"""Requests that the server makes to itself, through the very handlers that answer clients."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from openmaas.batches.records import Batch
from openmaas.batches.running import Answer
from openmaas.config import Limits
from openmaas.errors import Unauthenticated
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.server import allowed, answer
from openmaas.serving.admission import Admission, Ticket
from openmaas.serving.pipeline import Pipeline
from openmaas.tenancy.access import LOCAL, Access


class Inside:
    """Asks endpoints for keys whose secrets nobody shows.

    Args:
        endpoints: those that answer what may be batched, among others.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        access: Access,
        admission: Admission,
        pipeline: Pipeline,
        limits: Limits,
    ) -> None:
        self.endpoints = {one.path: one for one in endpoints if one.method == "POST"}
        self.access = access
        self.admission = admission
        self.pipeline = pipeline
        self.limits = limits

    def ask(self, batch: Batch, request: str, body: bytes) -> Asked:
        """A line of a batch, for its key."""
        return Asked(self, batch, request, body)


class Asked:
    """One such request. It is a ``batches.running.Trial``."""

    def __init__(self, inside: Inside, batch: Batch, request: str, body: bytes) -> None:
        self._inside = inside
        self._batch = batch
        self._exchange = exchange = Exchange.inside(batch.endpoint, body, self._send, request)
        exchange.pipeline = inside.pipeline
        exchange.limits = inside.limits
        self._ticket: Ticket | None = None
        self._parts: list[bytes] = []
        self._retry_after: float | None = None

    @property
    def settled(self) -> bool:
        return self._ticket is not None and self._ticket.settled

    async def run(self) -> Answer:
        await answer(self._exchange, self._handle())
        return Answer(self._exchange.status, b"".join(self._parts), self._retry_after)

    async def _handle(self) -> None:
        inside, exchange = self._inside, self._exchange
        endpoint, key = inside.endpoints[self._batch.endpoint], self._batch.key
        exchange.wire = endpoint.wire
        known = await inside.access.of_key(key) if inside.admission.metered else LOCAL
        if known is None:
            raise Unauthenticated("the key that made this batch is revoked or has expired")
        exchange.caller = caller = allowed(known, endpoint)
        assert endpoint.task is not None, "what may be batched is metered"
        ticket = inside.admission.known(caller, exchange.request_id, endpoint.task)
        if ticket is None:
            ticket = await inside.admission.open(caller, exchange.request_id, endpoint.task)
        ticket.priority = "batch"
        ticket.tried = True
        exchange.ticket = self._ticket = ticket
        await endpoint.handler(exchange)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            for name, value in message["headers"]:
                if name == b"retry-after-ms":
                    self._retry_after = int(value) / 1000
        else:
            self._parts.append(message.get("body", b""))
