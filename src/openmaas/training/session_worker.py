"""The process of one session: ``python -m openmaas.training.session_worker FOLDER THREADS``.

It runs in a sandbox, speaks ``session_frames`` over the socket that is its standard input, and
ends with that.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from collections import deque
from pathlib import Path
from typing import Any

from openmaas.errors import Conflict, InvalidRequest, OpenMaaSError, TrainingFailed
from openmaas.training import frameworks
from openmaas.training import session_frames as frames
from openmaas.training.session_frames import (
    Answer,
    Ask,
    Cancel,
    Failure,
    FromProcess,
    Opened,
    Refused,
    ToProcess,
)

AT_ONCE = 64  # answers that leave together, at the most


class Line:
    """The socket: a thread reads it, so that a call that is cancelled while others run is known."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._asked: deque[Ask] = deque()
        self._cancelled: set[int] = set()
        self._news = threading.Condition()

    def start(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> tuple[Ask, bool]:
        """The next call, and whether nobody waits for it any more."""
        with self._news:
            while not self._asked:
                self._news.wait()
            ask = self._asked.popleft()
            gone = ask.id in self._cancelled
            self._cancelled.discard(ask.id)
            return ask, gone

    @property
    def waiting(self) -> bool:
        return bool(self._asked)

    def send(self, frame: FromProcess) -> None:
        self._socket.sendall(frames.encode(frame))

    def _read(self) -> None:
        stream = self._socket.makefile("rb", buffering=1 << 20)
        while True:
            header = stream.read(frames.HEADER_BYTES)
            if len(header) < frames.HEADER_BYTES:
                os._exit(0)  # the gateway has closed it, or is gone
            self._take(frames.decode_to_process(stream.read(frames.body_length(header))))

    def _take(self, frame: ToProcess) -> None:
        with self._news:
            for one in frame:
                if isinstance(one, Cancel):
                    if any(ask.id == one.id for ask in self._asked):
                        self._cancelled.add(one.id)
                else:
                    self._asked.append(one)
            self._news.notify()


def serve(line: Line, session: Any) -> None:
    """Runs calls in order, for ever. ``session`` has ``step`` and ``run(call)``."""
    broken = 0  # the last call that failed
    ready: FromProcess = []
    while True:
        ask, gone = line.next()
        try:
            if gone:
                raise Conflict("nobody waited for this call any more, so it was not made")
            if ask.known < broken:
                raise Conflict(
                    "an earlier call of this session failed after this one was sent; it was not "
                    f"made, nor were those sent with it (the session is at step {session.step})"
                )
            if ask.step is not None and ask.step != session.step:
                raise Conflict(
                    f"the session is at step {session.step}, not {ask.step}; nothing was done",
                    param="expected_step",
                )
            values, tensors = session.run(ask.call)
            ready.append(Answer(id=ask.id, step=session.step, values=values, tensors=tensors))
        except Exception as error:
            broken = ask.id
            ready.append(_failure(ask.id, session.step, error))
        if not line.waiting or len(ready) >= AT_ONCE:
            line.send(ready)
            ready = []


def _failure(id: int, step: int, error: Exception) -> Failure:
    told = _told(error)
    return Failure(id=id, step=step, code=told.code, message=told.message, param=told.param)


def _told(error: Exception) -> OpenMaaSError:
    if isinstance(error, OpenMaaSError):
        return error
    text = next((one for one in str(error).splitlines() if one.strip()), "no reason given")[:300]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return TrainingFailed("this takes more memory than a session has", cause="out_of_memory")
    traceback.print_exc()
    return InvalidRequest(f"{type(error).__name__}: {text}")


def main() -> None:
    folder = Path(sys.argv[1])
    line = Line(socket.socket(fileno=os.dup(0)))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        frameworks.load("jax", int(sys.argv[2]))
        from openmaas.training.session import Session  # imports the framework, as it is now

        session = Session.open(folder)
        opened: Opened = session.opened()
    except Exception as error:
        told = _told(error)
        line.send([Refused(code=told.code, message=told.message, param=told.param)])
        return
    line.start()
    line.send([opened])
    serve(line, session)


if __name__ == "__main__":
    main()
