"""Load generator for streamed chat: so many connections at once, one request on each.

Usage: ``streams.py URL BODIES COUNT [KEY]``; BODIES has one JSON request a line, of which the
first COUNT are sent at the same moment. Prints one JSON line: tokens a second over all streams,
each stream's seconds to its first text, and the share of a core that this process used.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 300.0
END = b"data: [DONE]"
TEXT = b'"content":"'
RECEIVE = 65536


class Stream:
    """One request and what came back; the chunks are searched for bytes, not parsed."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self.received = bytearray()
        self.began = self.first = self.ended = 0.0

    def send(self) -> None:
        self.began = time.perf_counter()
        self.socket.sendall(self._request)
        self.socket.setblocking(False)

    def receive(self) -> bool:
        """Takes what is there; True at the end of the answer."""
        piece = self.socket.recv(RECEIVE)
        before = max(0, len(self.received) - 64)
        self.received += piece
        if not self.first and self._has_text():
            self.first = time.perf_counter()
        if not piece or END in self.received[before:]:
            self.ended = time.perf_counter()
            return True
        return False

    def _has_text(self) -> bool:
        at = self.received.find(TEXT)
        while at >= 0:
            after = self.received[at + len(TEXT) : at + len(TEXT) + 1]
            if after and after != b'"':
                return True
            at = self.received.find(TEXT, at + 1)
        return False

    def tokens(self) -> int:
        """Completion tokens by the server's own count, which is in the last chunk."""
        head, _, body = bytes(self.received).partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0] or END not in body:
            raise RuntimeError(f"a stream broke: {bytes(self.received[-500:])!r}")
        for line in reversed(body.split(b"\n")):
            if line.startswith(b'data: {"') and b'"usage":{' in line:
                return int(json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"])
        raise RuntimeError("the stream carries no usage")


def http_request(url: str, body: bytes, key: str | None) -> tuple[tuple[str, int], bytes]:
    """Where to connect and the request's bytes."""
    parts = urlsplit(url)
    lines = [
        f"POST {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    return address, "\r\n".join([*lines, "", ""]).encode() + body


def run(url: str, bodies: list[bytes], key: str | None) -> dict[str, object]:
    """Sends all at once and reads until every stream has ended."""
    streams = [Stream(*http_request(url, body, key)) for body in bodies]
    busy = time.process_time()
    for stream in streams:
        stream.send()
    open_ = len(streams)
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while open_:
            ready = selector.select(TIMEOUT_SECONDS)
            if not ready:
                raise RuntimeError(f"nothing came for {TIMEOUT_SECONDS} s")
            for key_, _ in ready:
                if key_.data.receive():
                    selector.unregister(key_.data.socket)
                    open_ -= 1
    busy = time.process_time() - busy
    elapsed = max(s.ended for s in streams) - min(s.began for s in streams)
    tokens = sum(stream.tokens() for stream in streams)
    return {
        "tokens": tokens,
        "per_second": tokens / elapsed,
        "first_seconds": [stream.first - stream.began for stream in streams],
        "load_generator_cores": busy / elapsed,
    }


if __name__ == "__main__":
    lines = Path(sys.argv[2]).read_bytes().splitlines()[: int(sys.argv[3])]
    print(json.dumps(run(sys.argv[1], lines, sys.argv[4] if len(sys.argv) > 4 else None)))
