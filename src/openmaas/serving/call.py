"""One request in flight, as the gateway sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from openmaas.errors import BY_CODE, Abandoned, OpenMaaSError
from openmaas.inference import Answer, Delta, Event, Failure, Request, Usage
from openmaas.serving.fairness import Share

if TYPE_CHECKING:
    from openmaas.serving.redacting.answers import Answers
    from openmaas.serving.rollout import Route

COPIED_EVENTS = 100_000  # of one answer


class Call:
    """Events of one request, in order, and the way to give it up.

    Iterate it for a stream (each turn yields all events that have arrived), or await
    ``result()`` for the whole. A ``Failure`` is raised as its error, never yielded.
    Whoever holds a call must exhaust it or ``cancel()`` it.
    """

    __slots__ = (
        "_copied", "_done", "_events", "_finish", "_waiter", "answered", "answers", "charged",
        "copy", "deadline", "delivered", "dispatched", "expected", "first_event", "id",
        "left_queue", "model", "progress", "request", "route", "seconds", "share", "started",
        "tokens_in", "tokens_out", "usage", "version",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        request: Request,
        *,
        model: str,
        version: str,
        deadline: float,
        share: Share,
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
        self.usage = Usage()  # of a call that succeeded
        self.delivered = Usage()  # what was handed to the reader so far covers
        self.share = share
        self.dispatched: float | None = None  # when it was sent to the worker
        # told once: it has a place in the worker or needs none any more
        self.left_queue: Callable[[], None] | None = None
        self.progress: Callable[[], str] | None = None  # while it waits: for what, in words
        self.route: Route | None = None  # the alias that chose its version
        self.copy: asyncio.Future[list[Event]] | None = None  # gets all events, when it is over
        self.seconds = 0.0  # that it took, once it is over
        self.answers: Answers | None = None  # what its reader sees of the events
        # what the fair queue counts: service so far, an estimate of the input until it is known,
        # and what the output will likely be until it is over
        self.tokens_in = 0
        self.tokens_out = 0
        self.expected = 0.0
        self.charged = 0.0
        self._events: list[Event] = []
        self._copied: list[Event] = []
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
        if self.copy is not None and len(self._copied) <= COPIED_EVENTS:
            self._copied.append(event)
        if isinstance(event, Answer):
            self.usage = event.usage
            self.tokens_in = event.usage.input_tokens + event.usage.rows
            self.tokens_out = event.usage.output_tokens
            self._end(None)
        elif isinstance(event, Failure):
            self._end(to_error(event))
        else:
            self.tokens_out += event.tokens
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

    def waits_for(self) -> str | None:
        """What it waits for, in words; None: a worker has it."""
        return self.progress() if self.dispatched is None and self.progress is not None else None

    async def result(self) -> list[Event]:
        """Every event, once the last has come.

        Raises:
            OpenMaaSError: the request failed.
        """
        while not self._done:
            await self._arrival()
        events, self._events = self._events, []
        _raise_failure(events)
        if self.answers is not None:
            events = await self.answers.told(events)
        self.delivered = self.usage
        return events

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> list[Event]:
        while True:
            while not self._events:
                if self._done:
                    raise StopAsyncIteration
                await self._arrival()
            events, self._events = self._events, []
            if isinstance(events[-1], Failure):
                if len(events) == 1:
                    _raise_failure(events)
                self._events = [events.pop()]  # what came before the failure is delivered first
            if self.answers is not None:
                events = await self.answers.told(events)
            if events:  # else nothing of it can be told yet
                self._deliver(events)
                return events

    async def _arrival(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _deliver(self, events: list[Event]) -> None:
        if isinstance(events[-1], Answer):
            self.delivered = self.usage
            return
        input_tokens, output_tokens = self.delivered.input_tokens, self.delivered.output_tokens
        for event in events:
            if isinstance(event, Delta):
                input_tokens += event.input_tokens
                output_tokens += event.tokens
        self.delivered = Usage(input_tokens=input_tokens, output_tokens=output_tokens)

    def dispatch(self) -> None:
        """It is sent to the worker now."""
        self.dispatched = time.monotonic()
        self._leave_queue()

    def _leave_queue(self) -> None:
        if self.left_queue is not None:
            told, self.left_queue = self.left_queue, None
            told()

    def _end(self, error: OpenMaaSError | None) -> None:
        self._done = True
        self.seconds = time.monotonic() - self.started
        self._leave_queue()
        self._finish(self, error)
        if self.copy is not None and not self.copy.done():
            self.copy.set_result(self._copied)


def to_error(failure: Failure) -> OpenMaaSError:
    """The error that a Failure stands for."""
    cls = BY_CODE.get(failure.code, OpenMaaSError)
    return cls(failure.message, param=failure.param, retry_after=failure.retry_after)


def _raise_failure(events: list[Event]) -> None:
    if isinstance(events[-1], Failure):
        raise to_error(events[-1])
