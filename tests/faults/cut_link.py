"""A TCP proxy before PostgreSQL that loses the answer to a COMMIT."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading


class CutLink:
    """Listens on ``port``. While ``armed`` is above 0, the next connection on which a COMMIT was
    sent is closed after the server has got it and before the client has its answer."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.armed = 0
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=[client], daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        address = ("127.0.0.1", self._target)
        with contextlib.suppress(OSError), client, socket.create_connection(address) as server:
            self._pump(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ)
            ready.register(server, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is server:
                        client.sendall(data)
                        continue
                    server.sendall(data)
                    if self.armed and b"COMMIT" in data:
                        self.armed -= 1
                        self.cuts += 1
                        server.recv(1 << 16)  # it is committed: nobody hears of it
                        return
