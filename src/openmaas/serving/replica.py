"""One worker of a deployment: started, watched, and started again when it dies or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import Literal, Protocol

from openmaas import background
from openmaas.config import Limits
from openmaas.errors import WorkerFailed
from openmaas.frames import Beat, Cancel, Cancelled, Emit, Refused, Submit, ToGateway
from openmaas.inference import Delta, Event, ModelInfo
from openmaas.placement.base import Placement, Worker, WorkerSpec
from openmaas.serving.call import Call
from openmaas.serving.fairness import places

State = Literal["loading", "ready", "restarting", "broken", "stopping"]

log = logging.getLogger(__name__)

HUNG_SECONDS = 4.5  # a worker that holds a request so long after its deadline is killed
CRASHES = 3  # so many in a minute with no good answer between opens the breaker …
CRASH_WINDOW_SECONDS = 60.0
BREAKER_SECONDS = 30.0  # … for so long
BACKOFF_SECONDS = 0.1  # doubles with each crash
# What a worker that batches may hold: enough for its next batch, little enough that whoever comes
# next is soon there.
ROOM_SECONDS = 0.1
LEAST_ROOM = 32
MEASURE_SECONDS = 0.1  # for which its memory is believed to be as it was measured
DIED = "the model's worker died while it held this request; the model is being restarted"


class Owner(Protocol):
    """The deployment, as its replicas see it."""

    def heard(self, id: int, event: Event) -> None:
        """A worker's news of a call."""

    def freed(self) -> None:
        """A replica may have room."""

    def changed(self, replica: Replica) -> None:
        """A replica's state is another."""

    def lost(self, calls: list[Call], error: WorkerFailed) -> None:
        """A worker died with these."""


class Replica:
    """
    Args:
        spec: what the worker is told.
    """

    def __init__(
        self, spec: WorkerSpec, placement: Placement, limits: Limits, owner: Owner
    ) -> None:
        self.spec = spec
        self.state: State = "loading"
        self.detail = "starting"
        self.info: ModelInfo | None = None
        self.worker: Worker | None = None  # None: it does not answer
        self.restarts = 0
        self.load_seconds = 0.0  # that its worker took, the last time
        self.peak = 0  # most bytes that a worker of it was seen to take
        self.since = time.monotonic()  # when it began to load
        self.taken = 0  # places of calls in the worker
        self._placement = placement
        self._limits = limits
        self._owner = owner
        self._process: Worker | None = None  # as soon as there is one
        self._measured_at, self._measured = -MEASURE_SECONDS, 0
        self._sent: dict[int, tuple[Call, int]] = {}  # what holds places → how many
        self._done = 0  # calls since the last look
        self._pace = 0.0  # a second, of the best times lately
        self._cancelled: dict[int, float] = {}  # id → when the worker must have let go of it
        self._crashes: deque[float] = deque(maxlen=CRASHES)
        self._beat: tuple[float, float] | None = None  # when, and how long its step had lasted
        self._exited: asyncio.Future[str] | None = None
        self._task = asyncio.create_task(self._supervise())

    # --- calls -----------------------------------------------------------------------------

    def has_room(self, call: Call) -> bool:
        if self.worker is None or self.state != "ready":
            return False
        room = self.info.room if self.info is not None else 0
        most = room or max(LEAST_ROOM, int(self._pace * ROOM_SECONDS))
        return not self.taken or self.taken + places(call.request) <= most

    def send(self, call: Call) -> None:
        assert self.worker is not None
        count = places(call.request)
        self._sent[call.id] = call, count
        self.taken += count
        seconds = call.deadline - time.monotonic()
        self.worker.send([Submit(id=call.id, request=call.request, seconds=seconds)])

    def finished(self, call: Call, *, good: bool) -> None:
        """A call of this replica is over."""
        if good:
            self._done += 1
            self._crashes.clear()
        elif not call.answered and self.worker is not None:
            self.worker.send([Cancel(id=call.id)])
            self._cancelled[call.id] = call.deadline + HUNG_SECONDS

    def holds(self, call: Call) -> bool:
        return call.id in self._sent

    # --- its worker ------------------------------------------------------------------------

    def memory(self) -> int:
        """Resident bytes, as of a moment ago."""
        if self._process is None:
            return 0
        now = time.monotonic()
        if now - self._measured_at > MEASURE_SECONDS:
            self._measured_at, self._measured = now, self._process.memory()
            self.peak = max(self.peak, self._measured)
        return self._measured

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def idle(self) -> bool:
        return not self._sent

    def look(self, seconds: float) -> None:
        """Called every ``seconds``: measures its pace, and ends its worker if that hangs."""
        self._pace = max(self._done / seconds, self._pace * 0.9)
        self._done = 0
        if self.worker is None:
            return
        now = time.monotonic()
        why = None
        if any(until < now for until in self._cancelled.values()):
            why = "it holds a request long after its deadline"
        elif self._beat is not None:
            at, busy = self._beat
            most = self._limits.step_seconds
            if now - at > most:
                why = f"nothing was heard of it for {now - at:.0f} s"
            elif busy and busy + now - at > most:
                why = f"one step lasts for {busy + now - at:.0f} s"
        if why is not None:
            log.error("worker of %s hangs (%s): killed", self.spec.deployment, why)
            self._cancelled.clear()
            self._beat = None
            self.detail = f"it hung: {why}"
            self.worker.kill()

    async def stop(self, seconds: float = 5) -> None:
        """Ends the worker; whoever calls has seen to it that no call needs it."""
        self._set("stopping", "stopping")
        await background.end(self._task)
        worker, self.worker = self.worker, None
        self._lose(WorkerFailed("the model is being taken down", retry_after=1))
        if worker is not None:
            await worker.stop(seconds)
        self._process = None
        self._set("stopping", "stopped")

    async def _supervise(self) -> None:
        while True:
            try:
                words = await self._one_life()
            except WorkerFailed as error:
                words = error.message
            except Exception as error:  # a full process table, say
                log.exception("cannot start a worker of %s", self.spec.deployment)
                words = f"{type(error).__name__}: {error}"
            self._process = None
            if self.state == "broken":
                return  # the artifact itself was refused: another try would end the same
            self.restarts += 1
            log.error("worker of %s ended: %s", self.spec.deployment, words)
            self._crashes.append(time.monotonic())
            window = time.monotonic() - CRASH_WINDOW_SECONDS
            if len(self._crashes) == CRASHES and self._crashes[0] > window:
                self._set("broken", f"{CRASHES} crashes within a minute; {words}")
                await asyncio.sleep(BREAKER_SECONDS)
            else:
                self._set("restarting", words)
                await asyncio.sleep(BACKOFF_SECONDS * 2 ** len(self._crashes))

    async def _one_life(self) -> str:
        """Starts a worker and returns how it ended."""
        exited = self._exited = asyncio.get_running_loop().create_future()
        self._measured_at, self._measured = -MEASURE_SECONDS, 0
        if self.state != "loading":
            self._set("restarting", f"loading again; before: {self.detail}")
        self.since = time.monotonic()
        worker, first = await self._placement.start(
            self.spec, self._started, self._on_frame, lambda words: self._on_exit(exited, words)
        )
        if isinstance(first, Refused):
            await worker.stop(seconds=1)
            self._set("broken", first.message)
            return first.message
        self.load_seconds = time.monotonic() - self.since
        self._measured_at = -MEASURE_SECONDS  # what it took while it loaded was not all
        self.worker = worker
        self.info = first.info
        self._beat = time.monotonic(), 0.0
        self._set("ready", "")
        try:
            # Shielded: when this task is cancelled to stop the worker, the worker still runs.
            return await asyncio.shield(exited)
        finally:
            if exited.done():
                self.worker = None

    def _started(self, worker: Worker) -> None:
        self._process = worker

    def _on_exit(self, exited: asyncio.Future[str], words: str) -> None:
        if not exited.done():
            exited.set_result(words)
        if exited is not self._exited:
            return  # an earlier worker took its time to die
        self._cancelled.clear()
        if self.worker is not None:
            self.worker = None
            if self.state == "ready":
                self._set("restarting", f"{self.detail}; {words}" if self.detail else words)
            self._lose(WorkerFailed(DIED, retry_after=1))

    def _lose(self, error: WorkerFailed) -> None:
        calls = [call for call, _ in self._sent.values()]
        self._sent.clear()
        self.taken = 0
        if calls:
            self._owner.lost(calls, error)

    def _on_frame(self, frame: ToGateway) -> None:
        for item in frame:
            if isinstance(item, Emit):
                if not isinstance(item.event, Delta):
                    self._free(item.id)
                self._owner.heard(item.id, item.event)
            elif isinstance(item, Cancelled):
                self._cancelled.pop(item.id, None)
                self._free(item.id)
            elif isinstance(item, Beat):
                self._beat = time.monotonic(), item.busy
        self._owner.freed()

    def _free(self, id: int) -> None:
        """A call holds no place in the worker any more."""
        sent = self._sent.pop(id, None)
        if sent is not None:
            self.taken -= sent[1]

    def _set(self, state: State, detail: str) -> None:
        self.state = state
        self.detail = detail
        with contextlib.suppress(RuntimeError):
            self._owner.changed(self)
