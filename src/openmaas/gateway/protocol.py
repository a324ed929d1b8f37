"""HTTP/1.1 on a socket: uvicorn's own, but what a client has begun to send must go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

WAIT_SECONDS = 30.0  # for the next sign of a request's head or body


class Protocol(HttpToolsProtocol):
    """Uvicorn closes a connection that is idle between requests, but not one on which a request
    has begun and does not come (slow loris): so many of those hold all of a server's sockets."""

    _waits_since: float | None = None  # for more of a request, on the loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits_since = self.loop.time()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._waits_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._waits_since = self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._waits_since = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._waits_since = None
        super().on_message_complete()

    def close_if_late(self, now: float) -> None:
        """Ends the connection if nothing of a request came for too long; not while it is ours to
        read on."""
        since = self._waits_since
        if since is None or now - since < WAIT_SECONDS or self.flow.read_paused:
            return
        if not self.transport.is_closing():
            self.transport.close()


def close_late(connections: Iterable[object]) -> None:
    """Looks at all of a server's connections; to be called every second or so."""
    now = asyncio.get_running_loop().time()
    for one in list(connections):
        if isinstance(one, Protocol):
            one.close_if_late(now)
