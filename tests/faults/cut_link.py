"""A TCP proxy before PostgreSQL that loses the answer to a COMMIT."""

from __future__ import annotations

import socket

from tests.link import Link, arrivals


class CutLink(Link):
    """Listens on ``port``. While ``armed`` is above 0, the next connection on which a COMMIT was
    sent is closed after the server has got it and before the client has its answer."""

    armed = 0
    cuts = 0

    def relay(self, client: socket.socket, server: socket.socket) -> None:
        for source, data in arrivals(client, server):
            if source is server:
                client.sendall(data)
                continue
            server.sendall(data)
            if self.armed and b"COMMIT" in data:
                self.armed -= 1
                self.cuts += 1
                server.recv(1 << 16)  # it is committed: nobody hears of it
                return
