"""What a worker has been asked and not yet begun. Filled by a reader thread."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque

from openmaas import frames
from openmaas.frames import Beat, Cancel, Cancelled, Submit, ToGateway
from openmaas.inference import Request


class Line:
    """The worker's end of the socket; frames may be sent from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lock = threading.Lock()

    def send(self, frame: ToGateway) -> None:
        with self._lock:
            self._socket.sendall(frames.encode(frame))

    def receive(self) -> bytes:
        """The next frame's body.

        Raises:
            EOFError: the gateway is gone.
        """
        return self._exactly(frames.body_length(self._exactly(frames.HEADER_BYTES)))

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


BEAT_SECONDS = 1.0


class Inbox:
    """Requests in order of arrival; a cancelled one that has not begun leaves at once. What is
    done between two calls of ``take`` is a step, of whose length the gateway is told."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._step: float | None = None  # when the present one began
        self._waiting: dict[int, tuple[Request, float]] = {}
        self._cancelled: deque[int] = deque()
        self._news = threading.Condition()
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._beat, name="heart", daemon=True).start()

    def take(self, *, block: bool, limit: int = 1 << 30) -> list[tuple[int, Request]]:
        """Up to ``limit`` waiting requests; waits for the first (or a cancellation) if asked.
        Requests whose deadline has passed are dropped here: the gateway has answered them."""
        self._step = None
        with self._news:
            while block and not self._waiting and not self._cancelled:
                self._news.wait()
            now = self._step = time.monotonic()
            taken: list[tuple[int, Request]] = []
            while self._waiting and len(taken) < limit:
                id = next(iter(self._waiting))
                request, deadline = self._waiting.pop(id)
                if deadline > now:
                    taken.append((id, request))
            return taken

    def put_back(self, items: list[tuple[int, Request]]) -> None:
        """Returns requests that did not fit, to the front."""
        with self._news:
            forever = float("inf")
            self._waiting = {id: (request, forever) for id, request in items} | self._waiting

    def cancelled(self) -> list[int]:
        """Requests that have begun and are to be dropped. Each must be acknowledged."""
        with self._news:
            ids = list(self._cancelled)
            self._cancelled.clear()
            return ids

    def wait(self, seconds: float) -> None:
        """Sleeps until something new arrives, at the most so long."""
        with self._news:
            self._news.wait(seconds)

    def __len__(self) -> int:
        return len(self._waiting)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            step = self._step
            busy = 0.0 if step is None else time.monotonic() - step
            try:
                self._line.send([Beat(busy=busy)])
            except OSError:
                return  # the reader sees it too, and ends the process

    def _read(self) -> None:
        try:
            while True:
                self._accept(self._line.receive())
        except (EOFError, OSError):
            os._exit(0)  # the gateway is gone: whatever the engine does, nobody reads it

    def _accept(self, body: bytes) -> None:
        gone: ToGateway = []
        with self._news:
            for item in frames.decode_to_worker(body):
                if isinstance(item, Submit):
                    self._waiting[item.id] = (item.request, time.monotonic() + item.seconds)
                elif isinstance(item, Cancel):
                    if self._waiting.pop(item.id, None) is not None:
                        gone.append(Cancelled(id=item.id))
                    else:
                        self._cancelled.append(item.id)
            self._news.notify()
        if gone:
            self._line.send(gone)
