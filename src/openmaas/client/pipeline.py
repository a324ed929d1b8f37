"""Calls of a session that are on their way: numbered, in order, several in one request."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from openmaas.client.connection import Connection
from openmaas.client.errors import ApiError, ClientError

T = TypeVar("T")
LANES = 2  # connections: while one waits for its answers, the other sends
AT_ONCE = 64  # calls of one request
BYTES = 4 << 20  # … and their size
WAITING = 128  # calls that are not sent yet; more make ``send`` wait


class Pending(Generic[T]):
    """A call that has been asked for."""

    def __init__(self, future: Future[T], seen: Callable[[BaseException], None]) -> None:
        self._future = future
        self._seen = seen

    def done(self) -> bool:
        """Whether ``result`` would return at once."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> T:
        """Waits for the answer.

        Raises:
            ApiError, ConnectionFailed: what the call came to.
            TimeoutError: it takes longer; it may be asked again.
        """
        error = self._future.exception(timeout)
        if error is not None:
            self._seen(error)
        return self._future.result()


class _Sent:
    __slots__ = ("body", "future", "read")

    def __init__(self, body: str, read: Callable[[Mapping[str, Any]], Any]) -> None:
        self.body = body
        self.read = read
        self.future: Future[Any] = Future()


class Pipeline:
    """Sends calls in the background.

    Args:
        lane: makes a connection of its own.
        path: takes several calls at once.
        sequence: number of the next call.
    """

    def __init__(self, lane: Callable[[], Connection], path: str, sequence: int) -> None:
        self.step = -1  # as of the last answer, in the order of calls
        self._lane = lane
        self._path = path
        self._next = sequence
        self._waiting: deque[_Sent] = deque()
        self._answered: set[int] = set()
        self._acknowledged = sequence - 1  # up to here all are answered
        self._failed: BaseException | None = None  # that nobody has seen yet
        self._running = 0  # requests
        self._told = 0  # number of the call that ``step`` is of
        self._lost: BaseException | None = None  # why it is not known which calls were made
        self._closed = False
        self._news = threading.Condition()
        self._threads: list[threading.Thread] = []

    def send(self, body: str, read: Callable[[Mapping[str, Any]], T]) -> Pending[T]:
        """Asks for a call.

        Args:
            body: JSON.
            read: makes the result of its answer.
        """
        one = _Sent(body, read)
        with self._news:
            if self._closed:
                raise ClientError("the session is closed")
            while len(self._waiting) >= WAITING and self._failed is None:
                self._news.wait()
            if self._lost is not None:
                raise ClientError(
                    f"it is not known which calls were made ({self._lost}); resume() tells"
                )
            if self._failed is not None:
                one.future.set_exception(_after(self._failed))
            else:
                self._waiting.append(one)
                if len(self._threads) < LANES:
                    thread = threading.Thread(target=self._work, daemon=True)
                    self._threads.append(thread)
                    thread.start()
                self._news.notify_all()
        return Pending(one.future, self._saw)

    def drain(self) -> None:
        """Returns when all that was asked for is answered."""
        with self._news:
            while self._waiting or self._running:
                self._news.wait()

    def restart(self, sequence: int, step: int) -> None:
        """Begins anew at a number. What was not answered fails."""
        with self._news:
            self._drop(ClientError("the session was resumed at another place"))
            while self._running:
                self._news.wait()
            self._next, self._acknowledged = sequence, sequence - 1
            self._answered.clear()
            self._failed = self._lost = None
            self._told, self.step = sequence - 1, step

    def close(self) -> None:
        with self._news:
            self._closed = True
            self._drop(ClientError("the session is closed"))
            self._news.notify_all()
        for thread in self._threads:
            thread.join()

    # --- in threads ----------------------------------------------------------------------------

    def _work(self) -> None:
        connection = self._lane()
        try:
            while (taken := self._take()) is not None:
                first, acknowledged, calls = taken
                head = f'{{"sequence":{first},"acknowledged":{acknowledged},"calls":['
                body = head + ",".join(one.body for one in calls) + "]}"
                try:
                    results = connection.post_json(self._path, body)["results"]
                except BaseException as error:
                    self._fail(first, calls, error)
                else:
                    self._answer(first, calls, results)
        finally:
            connection.close()

    def _take(self) -> tuple[int, int, list[_Sent]] | None:
        with self._news:
            while not self._waiting:
                if self._closed:
                    return None
                self._news.wait()
            calls: list[_Sent] = []
            size = 0
            while self._waiting and len(calls) < AT_ONCE and size < BYTES:
                calls.append(self._waiting.popleft())
                size += len(calls[-1].body)
            first = self._next
            self._next += len(calls)
            self._running += 1
            self._news.notify_all()
            return first, self._acknowledged, calls

    def _answer(self, first: int, calls: list[_Sent], results: list[Any]) -> None:
        with self._news:
            for index, (one, told) in enumerate(zip(calls, results, strict=True)):
                self._answered.add(first + index)
                if "error" in told:
                    self._set(one, ApiError.in_batch(told))
                    continue
                if first + index > self._told:
                    self._told, self.step = first + index, told["step"]
                one.future.set_result(one.read(told))
            self._done()

    def _fail(self, first: int, calls: list[_Sent], error: BaseException) -> None:
        with self._news:
            self._lost = error
            for index, one in enumerate(calls):
                self._answered.add(first + index)
                self._set(one, error)
            self._done()

    def _set(self, one: _Sent, error: BaseException) -> None:
        if self._failed is None:
            self._failed = error
            self._drop(_after(error))
        one.future.set_exception(error)

    def _done(self) -> None:
        while self._acknowledged + 1 in self._answered:
            self._acknowledged += 1
            self._answered.discard(self._acknowledged)
        self._running -= 1
        self._news.notify_all()

    def _drop(self, error: BaseException) -> None:
        while self._waiting:
            self._waiting.popleft().future.set_exception(error)

    def _saw(self, error: BaseException) -> None:
        with self._news:
            self._failed = None
            self._news.notify_all()


def _after(error: BaseException) -> ClientError:
    return ClientError(f"not made, as an earlier call of the session failed: {error}")
