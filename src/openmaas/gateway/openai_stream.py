"""The course of an OpenAI event stream, whatever its chunks look like."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

from openmaas.gateway.exchange import DONE, Exchange
from openmaas.inference import Event, Finished
from openmaas.serving.call import Call


class Chunks(Protocol):
    """Turns events into server-sent events."""

    def write(self, events: Sequence[Event]) -> bytes:
        """Whole server-sent events, each ending in a blank line; may be empty."""


async def stream(exchange: Exchange, call: Call, chunks: Chunks) -> None:
    """Sends a call as server-sent events: all that arrived together in one write.

    Nothing is sent before the first event, so that an early failure has a real status.

    Raises:
        OpenMaaSError: the call failed.
    """
    async with aclosing(exchange.follow(call)) as arrivals:
        async for events in arrivals:
            data = chunks.write(events)
            if isinstance(events[-1], Finished):
                await exchange.end_events(data + DONE)
            elif data:
                await exchange.start_events()
                await exchange.send_events(data)
