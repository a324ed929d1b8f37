"""A session that has a process: its calls in their order, what it is billed, where it is."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from openmaas.errors import Conflict, DeadlineExceeded, OpenMaaSError, RateLimited, WorkerFailed
from openmaas.training import session_frames as frames
from openmaas.training.metering import Clock
from openmaas.training.session_frames import Answer, Call
from openmaas.training.session_process import SessionProcess
from openmaas.training.session_records import SessionRow
from openmaas.training.session_task import AUTO

QUEUE = 256  # calls of one session that wait or run
QUEUE_BYTES = 256 << 20
GAP_SECONDS = 10.0  # that a call waits for one whose number comes before its own
REMEMBERED = 4096  # numbers of calls whose place among all calls is known
CHANGING = (frames.ForwardBackward, frames.OptimStep, frames.Load)


class Order(NamedTuple):
    """Where a call stands among those of its session."""

    sequence: int | None = None  # its number, from 1; None: in order of arrival
    acknowledged: int | None = None  # up to this number its sender has the answers
    expected_step: int | None = None


class Live:
    """Everything is on the event loop.

    Attributes:
        users: requests that hold it; it is not put away while there are any.
        sequence: the number that comes next.
        step: as of the last answer.
        dirty: something was done since the last checkpoint.
        resumed_from: the step from which it was resumed, until that was told.
    """

    def __init__(
        self, row: SessionRow, process: SessionProcess, clock: Clock, *, resumed: bool
    ) -> None:
        self.row = row
        self.process = process
        self.clock = clock
        self.users = 0
        self.sequence = process.opened.sequence
        self.step = process.opened.step
        self.dirty = False
        self.resumed_from = self.step if resumed else None
        self.used = self.saved = time.monotonic()
        self.publishing = asyncio.Lock()
        self._strict = resumed and row.lost  # a number too high is one of what was lost
        self._parked: dict[int, asyncio.Future[None]] = {}
        self._ids: dict[int, int] = {}  # number → id in the process

    async def call(self, call: Call, order: Order, seconds: float, size: int = 0) -> Answer:
        """Runs a call in its turn.

        Args:
            seconds: until it must be answered.
            size: bytes of its tensors.

        Raises:
            Conflict: its number or the step that it expects is not where the session is, or a
                call before it failed.
            RateLimited: too many calls wait.
            QuotaExhausted: the compute that may be used is.
            DeadlineExceeded, WorkerFailed
            OpenMaaSError: what the call comes to.
        """
        end = time.monotonic() + seconds
        if order.sequence is not None:
            await self._turn(order.sequence, seconds)
        refusal = self._refusal(size)
        if refusal is not None:
            if order.sequence is None or self.process.outstanding >= 4 * QUEUE:
                raise refusal
            # Its number is used up, and those sent behind it fail too.
            call = frames.Spoiled(message=refusal.message)
        id, answer = self.process.ask(
            call, known=self._known(order), step=order.expected_step, size=size
        )
        self._advance(order.sequence, id)
        if refusal is not None:
            raise refusal
        self.dirty = self.dirty or isinstance(call, CHANGING)
        try:
            async with asyncio.timeout(max(0.0, end - time.monotonic())):
                found = await asyncio.shield(answer)
        except TimeoutError:
            self.process.cancel(id)
            raise DeadlineExceeded("the call was not done in time", retry_after=1) from None
        except asyncio.CancelledError:
            self.process.cancel(id)
            raise
        finally:
            self.used = time.monotonic()
            self.clock.add(self.process.take_busy())
        self.step = found.step
        return found

    async def save(self, seconds: float) -> Answer:
        """Writes the checkpoint from which it is resumed, whatever failed before."""
        call = frames.Save(name=AUTO, sequence=self.sequence)
        self.dirty = False
        _, answer = self.process.ask(call, known=2**62)
        try:
            async with asyncio.timeout(seconds):
                found = await asyncio.shield(answer)
        except (TimeoutError, OpenMaaSError):
            self.dirty = True
            raise
        finally:
            self.saved = time.monotonic()
            self.clock.add(self.process.take_busy())
        return found

    def end(self, how: str) -> None:
        """Its process is gone: nothing waits for its turn any more."""
        parked, self._parked = self._parked, {}
        for turn in parked.values():
            if not turn.done():
                turn.set_exception(WorkerFailed(f"the session's process ended: {how}"))
                turn.exception()
        self.clock.add(self.process.take_busy())

    def _refusal(self, size: int) -> OpenMaaSError | None:
        waiting = self.process.outstanding + len(self._parked)
        if waiting >= QUEUE or self.process.outstanding_bytes + size > QUEUE_BYTES:
            return RateLimited(f"{waiting} calls of this session wait already", retry_after=1)
        try:
            self.clock.check()
        except OpenMaaSError as error:
            return error
        return None

    # --- order -----------------------------------------------------------------------------

    async def _turn(self, sequence: int, seconds: float) -> None:
        if sequence < self.sequence or sequence in self._parked:
            raise self._misplaced(f"call {sequence} was made before")
        if sequence == self.sequence:
            return
        if self._strict:
            raise self._misplaced(
                f"call {sequence} follows on what was lost: the session was resumed from its last "
                "checkpoint"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parked[sequence] = turn
        try:
            async with asyncio.timeout(min(seconds, GAP_SECONDS)):
                await turn
        except TimeoutError:
            raise self._misplaced(f"the calls before {sequence} did not come") from None
        finally:
            self._parked.pop(sequence, None)

    def _advance(self, sequence: int | None, id: int) -> None:
        if sequence is None:
            return
        self._strict = False
        self._ids[sequence] = id
        self._ids.pop(sequence - REMEMBERED, None)
        self.sequence = sequence + 1
        turn = self._parked.get(self.sequence)
        if turn is not None and not turn.done():
            turn.set_result(None)

    def _known(self, order: Order) -> int | None:
        """The id up to which the sender knows the answers."""
        if order.acknowledged is None:
            return None
        if order.acknowledged >= self.sequence - 1:
            return 2**62
        return self._ids.get(order.acknowledged, 0)

    def _misplaced(self, why: str) -> Conflict:
        return Conflict(
            f"{why}; the session is at step {self.step} and expects call {self.sequence}",
            param="sequence",
        )
