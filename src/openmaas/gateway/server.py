"""The ASGI application: request id → route → key → handler → error in the caller's format."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, MutableMapping, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qsl

from starlette.routing import Match, Route

from openmaas.config import Limits
from openmaas.errors import (
    Abandoned,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    OpenMaaSError,
    PermissionDenied,
    Unauthenticated,
)
from openmaas.gateway.endpoint import Endpoint, Wire
from openmaas.gateway.exchange import Exchange, Receive, Send
from openmaas.gateway.idempotency import HEADER, Recordings
from openmaas.gateway.privacy.present import Present
from openmaas.gateway.privacy.tap import Tap, kept
from openmaas.privacy.retention import Retention
from openmaas.serving.admission import Admission
from openmaas.serving.fairness import PRIORITIES, Priority
from openmaas.serving.pipeline import Pipeline
from openmaas.tenancy.access import LOCAL, Access, Caller

log = logging.getLogger(__name__)


class Service(Protocol):
    """What works beside the requests while the server runs."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Server:
    """Serves a table of endpoints.

    Args:
        services: started in this order after what serves requests, and stopped before it.
        retention: takes what tenants have kept of their requests.
    """

    def __init__(
        self,
        endpoints: list[Endpoint],
        *,
        access: Access,
        admission: Admission,
        pipeline: Pipeline,
        limits: Limits,
        services: Sequence[Service] = (),
        retention: Retention | None = None,
    ) -> None:
        self.endpoints = endpoints
        self._retention = retention
        self._present = Present()
        self._access = access
        self._admission = admission
        self._pipeline = pipeline
        self._limits = limits
        self._services = services
        self._recordings = Recordings(admission.billed)
        # Most calls go to few literal paths: those need no pattern matching.
        self._literal = {(e.method, e.path): e for e in endpoints if "{" not in e.path}
        self._patterns = [
            (Route(e.path, _nothing, methods=[e.method]), e) for e in endpoints if "{" in e.path
        ]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        exchange = Exchange(scope, receive, send, request_id())
        exchange.pipeline = self._pipeline
        exchange.limits = self._limits
        try:
            await answer(exchange, self._handle(exchange, scope))
        finally:
            self._present.leave()

    def let_go(self, tenant: str) -> int:
        """Ends a tenant's requests and forgets its answers; how many have not ended yet."""
        return self._present.end(tenant) + self._recordings.forget(tenant)

    async def _handle(self, exchange: Exchange, scope: MutableMapping[str, Any]) -> None:
        endpoint = self._route(exchange, scope)
        exchange.wire = endpoint.wire
        if scope["query_string"]:
            exchange.parameters = _parameters(scope["query_string"], endpoint)
        if endpoint.scope is not None:
            secret = _secret(exchange)
            caller = self._access.known(secret) if self._admission.metered else LOCAL
            exchange.caller = allowed(caller or await self._caller(secret), endpoint)
            if not endpoint.outlives:
                self._present.enter(exchange.caller)
        if endpoint.task is not None:
            admission, caller = self._admission, exchange.caller
            ticket = admission.known(caller, exchange.request_id, endpoint.task)
            if ticket is None:
                ticket = await admission.open(caller, exchange.request_id, endpoint.task)
            exchange.ticket = ticket
            if self._retention is not None and kept(exchange.caller):
                tap = Tap(caller, exchange.request_id, scope["path"], self._retention.add)
                exchange.listen(tap)
            priority = exchange.header(b"x-openmaas-priority")
            if priority is not None:
                ticket.priority = _priority(priority)
            ticket.sticky = exchange.header(b"x-openmaas-sticky-key")
            ticket.conversation = exchange.header(b"x-openmaas-conversation")
            key = exchange.header(HEADER)
            if key is not None:
                await self._recordings.answer(exchange, key, endpoint.handler, answer)
                return
        await endpoint.handler(exchange)

    async def _live(self, receive: Receive, send: Send) -> None:
        fleet, ledger = self._pipeline.fleet, self._admission.ledger
        await receive()
        await self._access.look()
        self._access.start()
        await ledger.start()
        await fleet.start()
        for service in self._services:
            await service.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for service in reversed(self._services):
            await service.stop()
        await fleet.stop()
        await ledger.stop()  # what the fleet finished last is written
        await self._access.stop()
        await send({"type": "lifespan.shutdown.complete"})

    def _route(self, exchange: Exchange, scope: MutableMapping[str, Any]) -> Endpoint:
        method, path = scope["method"], scope["path"]
        method = "GET" if method == "HEAD" else method
        endpoint = self._literal.get((method, path))
        if endpoint is not None:
            return endpoint
        exchange.wire = wire_of(path)
        allowed = {m for m, p in self._literal if p == path}
        for route, candidate in self._patterns:
            match, child = route.matches(scope)
            if match is Match.FULL:
                exchange.path = child["path_params"]
                return candidate
            if match is Match.PARTIAL:
                allowed.add(candidate.method)
        if allowed:
            raise MethodNotAllowed(
                f"{method} is not possible on {path}; {', '.join(sorted(allowed))} is"
            )
        raise NotFound(f"no such path: {path[:200]}; see /openapi.json for those that exist")

    async def _caller(self, secret: str) -> Caller:
        caller = await self._access.caller(secret) if secret else None
        if caller is None:
            raise Unauthenticated(
                "no valid API key; send one as `Authorization: Bearer <key>` "
                "(make one with `openmaas keys create`)"
            )
        return caller


async def answer(exchange: Exchange, work: Awaitable[None]) -> None:
    """Does the work; whatever comes of it, the client gets an answer and the ledger a row."""
    try:
        await work
    except Abandoned:
        await exchange.leave()  # nobody is there to read an answer
    except OpenMaaSError as error:
        await exchange.fail(error)
    except asyncio.CancelledError:
        await exchange.leave()
        raise
    except Exception:
        scope = exchange.scope
        log.exception("%s: %s %s failed", exchange.request_id, scope["method"], scope["path"])
        message = f"something broke here; it is in the server's log as {exchange.request_id}"
        await exchange.fail(OpenMaaSError(message))


def _secret(exchange: Exchange) -> str:
    secret = exchange.headers.get(b"authorization", b"")
    if secret[:7].lower() == b"bearer ":
        secret = secret[7:].strip()
    else:
        secret = exchange.headers.get(b"x-api-key", b"")
    return secret.decode("latin-1")


def _priority(said: str) -> Priority:
    for one in PRIORITIES:
        if said == one:
            return one
    raise InvalidRequest(f"x-openmaas-priority is one of: {', '.join(PRIORITIES)}")


def _parameters(raw: bytes, endpoint: Endpoint) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=100
        )
    except ValueError:
        raise InvalidRequest("the URL's query is malformed") from None
    for name, value in pairs:
        if name not in endpoint.query or len(value) > 256:
            known = ", ".join(endpoint.query) or "none"
            raise InvalidRequest(
                f"no parameter {name[:64]!r} of the URL is known here, or it is too long; "
                f"there are: {known}",
                param=name[:64],
            )
    return dict(pairs)


def allowed(caller: Caller, endpoint: Endpoint) -> Caller:
    """
    Raises:
        PermissionDenied: its key's scopes are too small.
    """
    if not caller.may(endpoint.scope or "inference"):
        has = ", ".join(sorted(caller.scopes))
        raise PermissionDenied(f"this key's scopes are {has}; it takes {endpoint.scope}")
    return caller


def request_id() -> str:
    """Unique, and growing with time: the ledger's rows are then appended, not strewn about."""
    return f"req_{time.time_ns() // 1_000_000:012x}{_OF_PROCESS}{next(_counter):06x}"


_OF_PROCESS = secrets.token_hex(6)
_counter = itertools.count()


def wire_of(path: str) -> Wire:
    """The error format of a path that no endpoint has."""
    if path == "/v2" or path.startswith("/v2/"):
        return "v2"
    if path.startswith("/models/"):
        return "huggingface"
    return "kserve" if path.endswith((":predict", ":explain")) else "openai"


async def _nothing(_: object) -> None:
    """Starlette's routes want an endpoint; only their matching is used."""
