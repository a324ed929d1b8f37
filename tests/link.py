"""A TCP proxy on loopback, for tests that break connections."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator


class Link:
    """Listens on ``port``; ``relay`` says what becomes of a connection, which ends when it returns.

    Args:
        target: the port that it stands before.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def relay(self, client: socket.socket, server: socket.socket) -> None:
        raise NotImplementedError

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=[client], daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        address = ("127.0.0.1", self._target)
        with contextlib.suppress(OSError), client, socket.create_connection(address) as server:
            self.relay(client, server)


def arrivals(client: socket.socket, server: socket.socket) -> Iterator[tuple[socket.socket, bytes]]:
    """Who sent what, until either side ends."""
    with selectors.DefaultSelector() as ready:
        ready.register(client, selectors.EVENT_READ, client)
        ready.register(server, selectors.EVENT_READ, server)
        while True:
            for key, _ in ready.select():
                data = key.data.recv(1 << 16)
                if not data:
                    return
                yield key.data, data
