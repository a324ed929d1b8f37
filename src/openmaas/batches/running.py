"""One batch from its first line to its files, as far as it gets before its server ends."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, Protocol, TypeVar

import msgspec

from openmaas.batches.files import Files, State
from openmaas.batches.finishing import finish
from openmaas.batches.lines import (
    Line,
    LineError,
    Output,
    Response,
    line_id,
    read,
    read_one,
)
from openmaas.batches.records import Batch, Batches, Trouble
from openmaas.batches.results import Results
from openmaas.batches.turns import Turns
from openmaas.batches.validating import validate
from openmaas.errors import StorageFull, StorageUnavailable

log = logging.getLogger(__name__)

MOST = 32  # lines of one batch that are asked, or wait to be asked again, at one time
AGAIN = frozenset((
    "rate_limit_exceeded", "overloaded", "deadline_exceeded", "worker_failed", "storage_full",
    "storage_unavailable",
))  # fmt: skip
"""Codes of errors after which a line is asked again."""
CRASHES = 3  # of a worker that held a line, after which it is the line's fault
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds until a line is asked again
AGAIN_SECONDS = 1.0  # where the database is away

T = TypeVar("T")
Why = Literal["cancelled", "expired", "stopped"]


class Answer(NamedTuple):
    status: int
    body: bytes  # JSON
    retry_after: float | None = None  # seconds


class Trial(Protocol):
    """A line that is being asked."""

    @property
    def settled(self) -> bool:
        """It is, or is being, billed: giving it up now would lose what was paid for."""
        ...

    async def run(self) -> Answer: ...


Ask = Callable[[Batch, str, bytes], Trial]
"""Asks a batch's endpoint: the id of the request, and its body."""


class _Waiting(NamedTuple):
    """A line that is to be asked again."""

    due: float  # on the monotonic clock
    number: int
    offset: int
    tries: int


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str = ""


class _Failed(msgspec.Struct):
    error: _Error = _Error()


class Shop(NamedTuple):
    """What all batches share."""

    batches: Batches
    files: Files
    ask: Ask
    turns: Turns
    most: int  # lines of one batch at one time
    one: asyncio.Semaphore  # reads or writes whole files


class Work:
    """Everything but what threads do is on the event loop."""

    def __init__(self, shop: Shop, batch: Batch, results: Results) -> None:
        self.results = results
        self._shop = shop
        self._batch = batch
        self._why: Why | None = None
        self._validated = batch.state != "validating"
        self._ending = asyncio.Event()
        self._news = asyncio.Event()  # a line is over
        self._path = shop.files.path(batch.input)
        self._input = partial(shop.files.open, batch.input)
        self._after = (0, 0)  # what was read: bytes and lines
        self._read: deque[Line] = deque()
        self._all_read = False
        self._waiting: list[_Waiting] = []  # a heap
        self._crashes: Counter[int] = Counter()  # by line
        self._tries: dict[int, int] = {}  # of lines that were asked before
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[int, tuple[asyncio.Task[None], Trial]] = {}
        # As many as get through: halved where the answer is to wait, and growing again.
        self._room = float(shop.most)
        self._halved = 0.0

    def end(self, why: Why) -> None:
        """Asks nothing more; what is being asked is given up."""
        self._why = self._why or why
        self._ending.set()

    async def run(self) -> None:
        """Returns when the batch is finished, or ``end("stopped")`` was said."""
        try:
            await self._run()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("batch %s cannot go on", self._batch.id)
            trouble = Trouble("server_error", "something broke here; it is in the server's log")
            await self._fail([trouble])
        finally:
            await self.results.close()

    async def _run(self) -> None:
        if not self._validated and self._why is None:
            self._validated = await self._validate()
            if not self._validated:
                return
        if not await asyncio.to_thread(self._path.is_file) and self._why is None:
            await self._fail([Trouble("file_gone", "the input file is not there any more")])
            return
        await asyncio.to_thread(self.results.open)
        if self._why is None:
            await self._ask_all()
        if self._why != "stopped":
            await self.results.close(None)
            await self._finish()

    # --- before and after ------------------------------------------------------------------------

    async def _validate(self) -> bool:
        """Whether there is something to ask."""
        batch, batches = self._batch, self._shop.batches
        async with self._shop.one:
            if not await asyncio.to_thread(self._path.is_file):
                await self._fail([Trouble("file_gone", "the input file is not there any more")])
                return False
            found = await asyncio.to_thread(validate, self._input, batch.endpoint)
        if found.troubles:
            await self._fail(found.troubles)
            return False
        before: tuple[State] = ("validating",)
        return await self._note(
            lambda: batches.move(
                batch.id, before, "in_progress", total=found.total, model=found.model
            )
        )

    async def _fail(self, troubles: list[Trouble]) -> None:
        told = msgspec.to_builtins(troubles)
        before: tuple[State, ...] = ("validating", "in_progress", "finalizing", "cancelling")
        await self._note(
            lambda: self._shop.batches.move(self._batch.id, before, "failed", errors=told)
        )

    async def _finish(self) -> None:
        shop, batch = self._shop, self._batch
        state: State = "completed"
        if self._why == "cancelled":
            state = "cancelled"
        elif self._why == "expired":
            state = "expired"
        elif not await self._note(
            lambda: shop.batches.move(batch.id, ("in_progress", "finalizing"), "finalizing")
        ):
            state = "cancelled"  # at the last moment
        expired = state == "expired" and self._validated
        async with shop.one:
            made = await self._note(
                lambda: finish(batch, self.results, shop.files, expired=expired)
            )
        files = [file for file in (made.output, made.error) if file is not None]
        values = {
            "completed": made.completed,
            "failed": made.failed,
            "usage": msgspec.to_builtins(made.used),
            "output": None if made.output is None else made.output.id,
            "error": None if made.error is None else made.error.id,
        }
        await self._note(lambda: shop.batches.finish(batch.id, state, files, **values))
        await asyncio.to_thread(self.results.remove)

    async def _note(self, note: Callable[[], T]) -> T:
        """Does in a thread what needs the database or the disk, as soon as it is there."""
        while True:
            try:
                return await asyncio.to_thread(note)
            except FileNotFoundError:
                raise
            except (StorageUnavailable, StorageFull, OSError) as error:
                log.warning("batch %s waits: %s", self._batch.id, error)
                await asyncio.sleep(AGAIN_SECONDS)

    # --- lines ------------------------------------------------------------------------------------

    async def _ask_all(self) -> None:
        """Returns when every line has its answer, or ``end`` was said."""
        pump = asyncio.create_task(self._pump())
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({pump, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            pump.cancel()
            await asyncio.wait({pump})
            await self._give_up()
        if not pump.cancelled():
            pump.result()

    async def _pump(self) -> None:
        """Returns when every line has its answer."""
        tenant = self._batch.tenant
        while (line := await self._next()) is not None:
            await self._shop.turns.take(tenant)
            task = asyncio.create_task(self._line(line))
            self._tasks.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._shop.turns.give_back(self._batch.tenant)
        self._news.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("a line of batch %s broke", self._batch.id, exc_info=task.exception())

    async def _next(self) -> Line | None:
        """The next line that there is room for; None: there is none any more."""
        while True:
            self._news.clear()
            due = self._waiting[0].due if self._waiting else None
            if len(self._tasks) < max(1, int(self._room)):
                if due is not None and due <= time.monotonic():
                    one = heapq.heappop(self._waiting)
                    self._tries[one.number] = one.tries
                    return await self._note(partial(read_one, self._input, one.number, one.offset))
                if len(self._tasks) + len(self._waiting) < self._shop.most:
                    if not self._read and not self._all_read:
                        await self._read_on()
                    if self._read:
                        return self._read.popleft()
            if not self._tasks and not self._waiting and self._all_read:
                return None
            wait = None if due is None else max(0.05, due - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()

    async def _read_on(self) -> None:
        found, self._after = await self._note(
            partial(read, self._input, self._after, self.results.done)
        )
        self._read.extend(found)
        self._all_read = not found

    async def _line(self, line: Line) -> None:
        batch, began = self._batch, time.monotonic()
        request = batch.request(line.number)
        trial = self._shop.ask(batch, request, line.body)
        task = asyncio.current_task()
        assert task is not None, "a line has a task of its own"
        self._asking[line.number] = task, trial
        try:
            answer = await trial.run()
        finally:
            del self._asking[line.number]
        tries = self._tries.pop(line.number, 0) + 1
        error = None if answer.status == 200 else _error(answer)
        if error is not None and error.code == "worker_failed":
            self._crashes[line.number] += 1
        spent = self._crashes[line.number] >= CRASHES
        if error is not None and not spent and (error.code in AGAIN or not answer.status):
            self._shrink(began)
            wait = min(FIRST_WAIT * 2 ** min(tries - 1, 10), LONGEST_WAIT)
            wait = max(wait * random.uniform(0.5, 1), answer.retry_after or 0)  # noqa: S311
            due = time.monotonic() + wait
            heapq.heappush(self._waiting, _Waiting(due, line.number, line.offset, tries))
            return
        self._room = min(self._room + 1 / self._room, self._shop.most)
        output = Output(
            line_id(batch.id, line.number),
            line.custom_id,
            Response(answer.status, request, msgspec.Raw(answer.body)),
            error,
        )
        written = msgspec.json.encode(output) + b"\n"
        await self.results.add(line.number, written, ok=error is None)

    def _shrink(self, began: float) -> None:
        """Once for all that were asked together."""
        if began > self._halved:
            self._halved = time.monotonic()
            self._room = max(1.0, self._room / 2)

    async def _give_up(self) -> None:
        """What is not billed is asked no more; what is gets its answer written."""
        for task, trial in list(self._asking.values()):
            if not trial.settled:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _error(answer: Answer) -> LineError:
    try:
        found = msgspec.json.decode(answer.body, type=_Failed).error
    except msgspec.DecodeError:
        found = _Error()
    return LineError(found.code, found.message)
