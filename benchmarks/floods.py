"""Load generator of tenants that all want more than there is: each keeps so many streams open.

Usage: ``floods.py URL FLOODS WARM SECONDS``; FLOODS is JSON: for each tenant its ``key``,
``connections`` and ``bodies`` (requests, sent in turn). Prints one JSON line: for each tenant the
tokens that came out and the prompts' tokens that went in during SECONDS, after WARM seconds.
"""

from __future__ import annotations

import bisect
import json
import selectors
import sys
import time
from pathlib import Path
from typing import Any

from streams import END, TEXT, Stream, http_request


class Timed(Stream):
    """A stream that knows when each of its bytes came."""

    def __init__(self, flood: Flood) -> None:
        super().__init__(*http_request(flood.url, flood.next_body(), flood.key))
        self.flood = flood
        self._ends: list[int] = []
        self._times: list[float] = []

    def receive(self) -> bool:
        over = super().receive()
        self._ends.append(len(self.received))
        self._times.append(time.perf_counter())
        return over

    def texts(self) -> list[float]:
        """When each piece of text came."""
        found, at = [], self.received.find(TEXT)
        while at >= 0:
            end = at + len(TEXT) + 1
            if len(self.received) >= end and self.received[end - 1 : end] != b'"':
                index = bisect.bisect_left(self._ends, end)
                found.append(self._times[index])
            at = self.received.find(TEXT, end)
        return found

    def prompt_tokens(self) -> int:
        line = self.received[self.received.rindex(b'"usage":{') :].split(b"\n")[0]
        return int(line.split(b'"prompt_tokens":')[1].split(b",")[0])


class Flood:
    """One tenant's load and what came of it."""

    def __init__(self, url: str, key: str, connections: int, bodies: list[Any]) -> None:
        self.url = url
        self.key = key
        self.connections = connections
        self._bodies = [json.dumps(body).encode() for body in bodies]
        self._next = 0
        self.texts: list[float] = []  # of all streams, when each came
        self.firsts: list[float] = []
        self.finished = 0
        self._said = self._said_in = self._read = 0  # by those that finished

    def next_body(self) -> bytes:
        self._next += 1
        return self._bodies[self._next % len(self._bodies)]

    def take(self, stream: Timed) -> None:
        """Notes what a stream brought, which may have been left in the middle."""
        texts = stream.texts()
        self.texts += texts
        self.firsts += texts[:1]
        if END in stream.received:
            self.finished += 1
            self._said += stream.tokens()
            self._said_in += len(texts)
            self._read += stream.prompt_tokens()

    def result(self, first: float, last: float) -> dict[str, float]:
        """Tokens by the server's own count; a piece of text is nearly always one."""
        came = sum(first <= at < last for at in self.texts)
        begun = sum(first <= at < last for at in self.firsts)
        return {
            "output": came * self._said / self._said_in,
            "input": begun * self._read / self.finished,
        }


def run(url: str, floods: list[Flood], warm: float, seconds: float) -> dict[str, Any]:
    """Keeps all connections busy to the end, then leaves them."""
    first = time.perf_counter() + warm
    last = first + seconds
    open_: set[Timed] = set()
    with selectors.DefaultSelector() as selector:

        def begin(flood: Flood) -> None:
            stream = Timed(flood)
            stream.send()
            selector.register(stream.socket, selectors.EVENT_READ, stream)
            open_.add(stream)

        for number in range(max(flood.connections for flood in floods)):
            for flood in floods:
                if number < flood.connections:
                    begin(flood)
        busy = time.process_time()
        while time.perf_counter() < last:
            for ready, _ in selector.select(0.1):
                stream = ready.data
                if stream.receive():
                    selector.unregister(stream.socket)
                    stream.socket.close()
                    open_.remove(stream)
                    stream.flood.take(stream)
                    begin(stream.flood)
        busy = (time.process_time() - busy) / (warm + seconds)
    for stream in open_:
        stream.socket.close()
        stream.flood.take(stream)
    results = [flood.result(first, last) for flood in floods]
    return {"tenants": results, "seconds": seconds, "load_generator_cores": busy}


if __name__ == "__main__":
    floods_ = [Flood(sys.argv[1], **one) for one in json.loads(Path(sys.argv[2]).read_text())]
    print(json.dumps(run(sys.argv[1], floods_, float(sys.argv[3]), float(sys.argv[4]))))
