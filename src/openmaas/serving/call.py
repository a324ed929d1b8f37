"""One request in flight, as the gateway sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from openmaas.errors import BY_CODE, Abandoned, OpenMaaSError
from openmaas.inference import Answer, Event, Failure, Request, Usage


class Call:
    """Events of one request, in order, and the way to give it up.

    Iterate it for a stream (each turn yields all events that have arrived), or await
    ``result()`` for the whole. A ``Failure`` is raised as its error, never yielded.
    Whoever holds a call must exhaust it or ``cancel()`` it.
    """

    __slots__ = (
        "_done", "_events", "_finish", "_waiter", "answered", "deadline", "first_event", "id",
        "model", "request", "started", "usage", "version",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        request: Request,
        *,
        model: str,
        version: str,
        deadline: float,
        finish: Callable[[Call, OpenMaaSError | None], None],
    ) -> None:
        self.id = id
        self.request = request
        self.model = model
        self.version = version
        self.deadline = deadline  # on time.monotonic()'s clock
        self.started = time.monotonic()
        self.first_event: float | None = None
        self.answered = False  # the last event came from the worker
        self.usage = Usage()
        self._events: list[Event] = []
        self._waiter: asyncio.Future[None] | None = None
        self._done = False
        self._finish = finish

    def deliver(self, event: Event, *, answered: bool = True) -> None:
        """Takes an event. ``answered``: it is the worker's, so it holds no place there."""
        if self._done:
            return
        self.answered = answered
        if self.first_event is None:
            self.first_event = time.monotonic()
        self._events.append(event)
        if isinstance(event, Answer):
            self.usage = event.usage
            self._end(None)
        elif isinstance(event, Failure):
            self._end(to_error(event))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: OpenMaaSError) -> None:
        """Ends the call from the gateway's side."""
        self.deliver(
            Failure(
                code=error.code,
                message=error.message,
                param=error.param,
                retry_after=error.retry_after,
            ),
            answered=False,
        )

    def cancel(self) -> None:
        """Nobody waits any more: frees its place in the queue or the engine. Idempotent."""
        if not self._done:
            self.fail(Abandoned("the client closed its connection"))

    @property
    def done(self) -> bool:
        return self._done

    async def result(self) -> list[Event]:
        """Every event, once the last has come.

        Raises:
            OpenMaaSError: the request failed.
        """
        while not self._done:
            await self._arrival()
        events, self._events = self._events, []
        _raise_failure(events)
        return events

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> list[Event]:
        while not self._events:
            if self._done:
                raise StopAsyncIteration
            await self._arrival()
        events, self._events = self._events, []
        if isinstance(events[-1], Failure):
            if len(events) == 1:
                _raise_failure(events)
            self._events = [events.pop()]  # what came before the failure is delivered first
        return events

    async def _arrival(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _end(self, error: OpenMaaSError | None) -> None:
        self._done = True
        self._finish(self, error)


def to_error(failure: Failure) -> OpenMaaSError:
    """The error that a Failure stands for."""
    cls = BY_CODE.get(failure.code, OpenMaaSError)
    return cls(failure.message, param=failure.param, retry_after=failure.retry_after)


def _raise_failure(events: list[Event]) -> None:
    if isinstance(events[-1], Failure):
        raise to_error(events[-1])
