"""Sessions: gradient steps as calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from openmaas.audit import By
from openmaas.errors import InvalidRequest, OpenMaaSError
from openmaas.gateway import errors as wire_errors
from openmaas.gateway import session_forms as forms
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.session_forms import CallBody, CallsBody, Count, Done, Number
from openmaas.gateway.training import count
from openmaas.inference import TensorSpec
from openmaas.training.metering import Owner
from openmaas.training.session_frames import Opened
from openmaas.training.session_live import Live, Order
from openmaas.training.session_records import SessionRow
from openmaas.training.sessions import Sessions
from openmaas.training.spec import Name, SessionSpec

MOST = 1000  # of one page


class Port(Struct):
    name: str
    datatype: str
    shape: list[int]  # −1: any


class Session(Struct, omit_defaults=True):
    """A session. What its network has is told while it is open."""

    id: str
    model: str
    state: str
    step: int  # of the optimizer; of one that is idle, at its last checkpoint
    checkpoint: str | None
    seconds: float  # of compute that were counted
    idle_seconds: float
    created: int
    error: dict[str, str] | None = None
    sequence: int | None = None  # of the call that comes next
    inputs: list[Port] = []
    outputs: list[Port] = []
    weights: list[Port] = []
    parameters: int | None = None  # trainable numbers
    resumed_from_step: int | None = None  # of an answer to resume


class SessionList(Struct):
    data: list[Session]
    has_more: bool
    last_id: str | None  # for ``before``
    object: Literal["list"] = "list"


class Results(Struct):
    """Of each call in its place: its answer, or ``{"error": …, "status": …}``."""

    results: list[Any]


class PublishBody(Struct, forbid_unknown_fields=True, kw_only=True):
    model: Name | None = None  # None: the session's
    deploy: bool = False  # serve it at once
    description: Annotated[str, Meta(max_length=4000)] = ""
    sequence: Number | None = None
    acknowledged: Count | None = None
    expected_step: Count | None = None


class PublishedSession(Done, kw_only=True):
    model: str
    version: int
    task: str
    format: str
    digest: str
    size: int  # bytes
    deployed: bool


class Routes:
    """The handlers, over the sessions."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def open(self, exchange: Exchange) -> None:
        spec = exchange.decode(await exchange.body(), SessionSpec)
        row, opened = await exchange.complete(self._sessions.open(spec, _owner(exchange)))
        await exchange.respond_json(_session(row, opened=opened))

    async def list(self, exchange: Exchange) -> None:
        limit = count(exchange, "limit", 100, MOST)
        found = await asyncio.to_thread(
            self._sessions.records.list,
            exchange.caller.tenant, exchange.query("before") or "", limit + 1,
        )  # fmt: skip
        last = found[:limit][-1].id if found else None
        data = [_session(one) for one in found[:limit]]
        await exchange.respond_json(SessionList(data, len(found) > limit, last))

    async def get(self, exchange: Exchange) -> None:
        row, live = await self._sessions.get(exchange.path["session"], exchange.caller.tenant)
        await exchange.respond_json(_session(row, live))

    async def resume(self, exchange: Exchange) -> None:
        async with self._held(exchange) as live:
            found = _session(live.row, live)
            found.state = "open"
            found.resumed_from_step, live.resumed_from = live.resumed_from, None
        await exchange.respond_json(found)

    async def close(self, exchange: Exchange) -> None:
        caller = exchange.caller
        row = await self._sessions.close(exchange.path["session"], caller.tenant, By(caller.key))
        await exchange.respond_json(_session(row))

    def call(self, kind: type[CallBody]) -> Callable[[Exchange], Awaitable[None]]:
        """The handler of one kind of call."""

        async def handle(exchange: Exchange) -> None:
            raw = await exchange.body()
            body = exchange.decode(raw or b"{}", kind)
            async with self._held(exchange) as live:
                work = self._run(exchange, live, body, body.order, len(raw))
                await exchange.respond_json(await exchange.complete(work))

        return handle

    async def calls(self, exchange: Exchange) -> None:
        raw = await exchange.body()
        body = exchange.decode(raw, CallsBody)
        for one in body.calls:
            if one.sequence is not None or one.acknowledged is not None:
                raise InvalidRequest(
                    "of several calls, sequence and acknowledged stand beside them", param="calls"
                )
        size = len(raw) // len(body.calls)

        async def all_of(live: Live) -> list[Any]:
            works = []
            for index, one in enumerate(body.calls):
                number = None if body.sequence is None else body.sequence + index
                order = Order(number, body.acknowledged, one.expected_step)
                works.append(self._told(exchange, live, one, order, size))
            return await asyncio.gather(*works)

        async with self._held(exchange) as live:
            await exchange.respond_json(Results(await exchange.complete(all_of(live))))

    async def publish(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body() or b"{}", PublishBody)
        order = Order(body.sequence, body.acknowledged, body.expected_step)
        owner = _owner(exchange)
        async with self._held(exchange) as live:
            resumed, live.resumed_from = live.resumed_from, None
            version = await self._sessions.publish(
                live, owner, order, model=body.model, description=body.description
            )
            if body.deploy:
                await self._sessions.promote(version, owner)
            step = live.step
        await exchange.respond_json(
            PublishedSession(
                step=step,
                resumed_from_step=resumed,
                model=version.model,
                version=version.version,
                task=version.task,
                format=version.format,
                digest=version.digest,
                size=version.size,
                deployed=body.deploy,
            )
        )

    def _held(self, exchange: Exchange) -> Any:
        return self._sessions.held(exchange.path["session"], exchange.caller.tenant)

    async def _run(
        self, exchange: Exchange, live: Live, body: CallBody, order: Order, size: int
    ) -> Done:
        found = await self._sessions.call(
            live, forms.call(body), order, seconds=exchange.limits.request_seconds, size=size
        )
        resumed, live.resumed_from = live.resumed_from, None
        return forms.answer(body, found, resumed)

    async def _told(
        self, exchange: Exchange, live: Live, body: CallBody, order: Order, size: int
    ) -> Any:
        try:
            return await self._run(exchange, live, body, order, size)
        except OpenMaaSError as error:
            told = msgspec.json.decode(wire_errors.body(error, "openai"))
            return told | {"status": wire_errors.row(error)[0]}


def _owner(exchange: Exchange) -> Owner:
    caller = exchange.caller
    return Owner(caller.tenant, caller.project, caller.key)


def _session(row: SessionRow, live: Live | None = None, opened: Opened | None = None) -> Session:
    opened = live.process.opened if live is not None else opened
    found = Session(
        row.id, row.model, row.state, row.step, row.checkpoint, row.seconds,
        row.spec.idle_seconds, row.created, row.error,
    )  # fmt: skip
    if opened is not None:
        found.step = live.step if live is not None else opened.step
        found.sequence = live.sequence if live is not None else opened.sequence
        found.parameters = opened.parameters
        found.inputs = list(map(_port, opened.inputs))
        found.outputs = list(map(_port, opened.outputs))
        found.weights = list(map(_port, opened.weights))
    if live is not None:
        found.seconds = live.clock.seconds
    return found


def _port(one: TensorSpec) -> Port:
    return Port(one.name, one.datatype, one.shape)


def endpoints(sessions: Sessions) -> list[Endpoint]:
    """Everything below ``/v1/training/sessions``."""
    at = Routes(sessions)
    every, one = "/v1/training/sessions", "/v1/training/sessions/{session}"
    found = [
        Endpoint("POST", every, at.open, "openai", "Open a session on a network",
                 scope="train", body=SessionSpec, response=Session),
        Endpoint("GET", every, at.list, "openai", "List sessions",
                 scope="train", response=SessionList, query=("before", "limit")),
        Endpoint("GET", one, at.get, "openai", "One session", scope="train", response=Session),
        Endpoint("POST", f"{one}/resume", at.resume, "openai",
                 "Have a session that was put away in memory again",
                 scope="train", response=Session),
        Endpoint("DELETE", one, at.close, "openai", "Close a session",
                 scope="train", response=Session),
        Endpoint("POST", f"{one}/calls", at.calls, "openai",
                 "Several calls of a session, one after the other",
                 scope="train", body=CallsBody, response=Results),
        Endpoint("POST", f"{one}/publish", at.publish, "openai",
                 "Register a session's network as a version",
                 scope="train", body=PublishBody, response=PublishedSession),
    ]  # fmt: skip
    calls: list[tuple[str, Any, Any, str]] = [
        ("forward", forms.ForwardBody, forms.Forwarded, "Outputs and losses of rows"),
        ("forward_backward", forms.ForwardBackwardBody, forms.Learned, "Add gradients of rows"),
        ("optim_step", forms.OptimStepBody, forms.Stepped, "Apply the gradients"),
        ("predict", forms.RowsBody, forms.Predicted, "Outputs of rows"),
        ("weights", forms.WeightsBody, forms.Arrays, "The network's weights"),
        ("gradients", forms.GradientsBody, forms.Arrays, "Gradients that wait for the next step"),
        ("save_checkpoint", forms.SaveBody, forms.Saved, "Write a checkpoint"),
        ("load_checkpoint", forms.LoadBody, forms.Loaded, "Go back to a checkpoint"),
    ]
    for name, body, response, summary in calls:
        found.append(
            Endpoint("POST", f"{one}/{name}", at.call(body), "openai", summary,
                     scope="train", body=body, response=response)
        )  # fmt: skip
    return found
