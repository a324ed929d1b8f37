"""A version that is served: keeps its worker alive and its calls accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from openmaas.config import Limits
from openmaas.errors import DeadlineExceeded, OpenMaaSError, Overloaded, WorkerFailed
from openmaas.frames import Cancel, Cancelled, Emit, Refused, Submit, ToGateway
from openmaas.inference import Delta, ModelInfo, Request
from openmaas.placement.base import Placement, Worker, WorkerSpec
from openmaas.serving.call import Call
from openmaas.serving.fairness import FairQueue, Order, Share, estimate, places
from openmaas.serving.tally import Tally

State = Literal["loading", "ready", "restarting", "broken", "stopping"]

log = logging.getLogger(__name__)

SWEEP_SECONDS = 0.25
HUNG_SECONDS = 5.0  # a worker that holds a request so long after its deadline is killed
CRASHES = 3  # so many in a minute with no good answer between opens the breaker …
CRASH_WINDOW_SECONDS = 60.0
BREAKER_SECONDS = 30.0  # … for so long
BACKOFF_SECONDS = 0.1  # doubles with each crash
# What a worker that batches may hold: enough for its next batch, little enough that whoever comes
# next is soon there.
ROOM_SECONDS = 0.1
LEAST_ROOM = 32
_NOBODY = Share()


class Deployment:
    """One worker of one version, restarted when it dies. Only its own requests fail with it.

    Args:
        tenant: whose model it is; ``PUBLIC``: everybody's.
        order: who is next where calls must wait.
        finished: told of every call that ended, and with which error.
        changed: told when ``state`` or ``detail`` changed.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        tenant: str,
        version: str,
        created: int,
        placement: Placement,
        limits: Limits,
        order: Order,
        finished: Callable[[Deployment, Call, OpenMaaSError | None], None],
        changed: Callable[[Deployment], None],
    ) -> None:
        self.spec = spec
        self.model = spec.deployment
        self.tenant = tenant
        self.label = f"{tenant}/{spec.deployment}" if tenant else spec.deployment
        self.version = version
        self.created = created  # of the version, Unix seconds
        self.state: State = "loading"
        self.detail = "starting"
        self.info: ModelInfo | None = None
        self.worker: Worker | None = None
        self.restarts = 0
        self.calls: dict[int, Call] = {}
        self._tallies: dict[str, Tally] = {}  # by caller's tenant
        self._placement = placement
        self._limits = limits
        self._finished = finished
        self._changed = changed
        self._next_id = 0
        self._queue = FairQueue(order)
        self._sent: dict[int, int] = {}  # what holds places in the worker → how many
        self._taken = 0  # their sum
        self._done = 0  # calls since the last sweep
        self._pace = 0.0  # a second, of the best times lately
        self._waiting = 0  # callers in ready()
        self._cancelled: dict[int, float] = {}  # id → when the worker must have let go of it
        self._crashes: deque[float] = deque(maxlen=CRASHES)
        self._turn = asyncio.Event()  # set when the state leaves loading or restarting
        self._exited: asyncio.Future[str] | None = None
        self._drained: asyncio.Event | None = None
        self._seconds_per_call = 0.05
        self._last_done = 0.0
        self._tasks = [asyncio.create_task(self._supervise()), asyncio.create_task(self._sweep())]

    # --- for the pipeline ----------------------------------------------------------------

    async def ready(self, deadline: float) -> ModelInfo:
        """What the model is, once it is loaded.

        Raises:
            Overloaded: it is not running, or too many wait for it already.
            DeadlineExceeded: it was not loaded in time.
        """
        while self.state != "ready" or self.info is None:
            if self.state in ("broken", "stopping"):
                raise Overloaded(
                    f"model {self.model!r} is not running now; its operator sees why in "
                    "`openmaas status`",
                    retry_after=BREAKER_SECONDS if self.state == "broken" else 1,
                )
            if self._waiting >= self._limits.queue:
                raise self._full()
            self._waiting += 1
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._turn.wait()
            except TimeoutError:
                raise DeadlineExceeded(
                    f"model {self.model!r} was not loaded in time", retry_after=5
                ) from None
            finally:
                self._waiting -= 1
        return self.info

    def submit(self, request: Request, deadline: float, share: Share = _NOBODY) -> Call:
        """
        Raises:
            Overloaded: the queue is full, and nobody waits with more than the caller does.
        """
        if self.worker is None:
            raise WorkerFailed(_DIED, retry_after=1)
        if len(self.calls) >= self._limits.queue:
            out = self._queue.pushed_out_by(share)
            if out is None:
                raise self._full()
            out.fail(self._full())
        self._next_id += 1
        call = Call(
            self._next_id,
            request,
            model=self.model,
            version=self.version,
            deadline=deadline,
            share=share,
            finish=self._finish,
        )
        self.calls[call.id] = call
        if self._queue or not self._has_room(call):
            self._queue.push(call)
        else:
            self._queue.pass_by(share)
            self._send(call)
        return call

    def tally(self, tenant: str) -> Tally:
        """What one tenant's calls came to."""
        return self._tallies.get(tenant) or Tally()

    async def stop(self, drain_seconds: float) -> None:
        """Lets calls in flight finish, ends the worker, and returns when it is gone."""
        self._set("stopping", "draining")
        if self.calls:
            self._drained = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds):
                    await self._drained.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_all(WorkerFailed(f"model {self.model!r} is being taken down", retry_after=1))
        if self.worker is not None:
            await self.worker.stop(seconds=5)
            self.worker = None
        self._set("stopping", "stopped")

    @property
    def gone(self) -> bool:
        return self.state == "stopping" and self.worker is None

    # --- who is next ------------------------------------------------------------------------

    def _has_room(self, call: Call) -> bool:
        room = self.info.room if self.info is not None else 0
        most = room or max(LEAST_ROOM, int(self._pace * ROOM_SECONDS))
        return not self._taken or self._taken + places(call.request) <= most

    def _send(self, call: Call) -> None:
        assert self.worker is not None
        call.dispatch()
        call.tokens_in = estimate(call.request)
        call.expected = self._queue.expected(call)
        self._queue.charge(call)
        self._sent[call.id] = places(call.request)
        self._taken += self._sent[call.id]
        seconds = call.deadline - time.monotonic()
        self.worker.send([Submit(id=call.id, request=call.request, seconds=seconds)])

    def _freed(self, id: int) -> None:
        """A call holds no place in the worker any more."""
        self._taken -= self._sent.pop(id, 0)

    def _send_next(self) -> None:
        while self.worker is not None:
            call = self._queue.peek()
            if call is None or not self._has_room(call):
                return
            self._send(self._queue.pop())

    # --- keeping the worker alive ----------------------------------------------------------

    async def _supervise(self) -> None:
        while True:
            try:
                words = await self._one_life()
            except WorkerFailed as error:
                words = error.message
            except Exception as error:  # a full process table, say
                log.exception("cannot start a worker of %s", self.model)
                words = f"{type(error).__name__}: {error}"
            if self.state == "broken":
                return  # the artifact itself was refused: another try would end the same
            self.restarts += 1
            log.error("worker of %s ended: %s", self.model, words)
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
        self._exited = asyncio.get_running_loop().create_future()
        if self.state != "loading":
            self._set("restarting", f"loading again; before: {self.detail}")
        worker, first = await self._placement.start(self.spec, self._on_frame, self._on_exit)
        if isinstance(first, Refused):
            await worker.stop(seconds=1)
            self._set("broken", first.message)
            return first.message
        self.worker = worker
        self.info = first.info
        self._set("ready", "")
        try:
            # Shielded: when this task is cancelled to stop the worker, the worker still runs.
            return await asyncio.shield(self._exited)
        finally:
            if self._exited.done():
                self.worker = None

    def _on_exit(self, words: str) -> None:
        self._cancelled.clear()
        self._sent.clear()
        self._taken = 0
        if self.worker is not None:
            self.worker = None
            if self.state == "ready":
                self._set("restarting", words)
            self._fail_all(WorkerFailed(_DIED, retry_after=1))
        if self._exited is not None and not self._exited.done():
            self._exited.set_result(words)

    def _on_frame(self, frame: ToGateway) -> None:
        for item in frame:
            if isinstance(item, Emit):
                call = self.calls.get(item.id)
                if not isinstance(item.event, Delta):
                    self._freed(item.id)
                if call is not None:
                    call.deliver(item.event)
                    self._queue.charge(call)
            elif isinstance(item, Cancelled):
                self._cancelled.pop(item.id, None)
                self._freed(item.id)
        if self._queue:
            self._send_next()

    def _finish(self, call: Call, error: OpenMaaSError | None) -> None:
        """A call ended: by its last event, or because nobody waits for it any more."""
        del self.calls[call.id]
        if self._drained is not None and not self.calls:
            self._drained.set()
        now = time.monotonic()
        if call.dispatched is None:
            self._queue.remove(call)
        else:
            self._queue.finished(call)
        if error is None:
            self._done += 1
            self._crashes.clear()
            gap = min(now - self._last_done, 60.0) if self._last_done else 0.05
            self._seconds_per_call += 0.1 * (gap - self._seconds_per_call)
            self._last_done = now
        elif not call.answered and self.worker is not None and call.dispatched is not None:
            self.worker.send([Cancel(id=call.id)])
            self._cancelled[call.id] = call.deadline + HUNG_SECONDS
        tally = self._tallies.get(call.share.tenant)
        if tally is None:
            tally = self._tallies[call.share.tenant] = Tally()
        tally.add(call, error)
        self._finished(self, call, error)

    def _fail_all(self, error: OpenMaaSError) -> None:
        for call in list(self.calls.values()):
            call.fail(error)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            self._pace = max(self._done / SWEEP_SECONDS, self._pace * 0.9)
            self._done = 0
            for call in [call for call in self.calls.values() if call.deadline <= now]:
                call.fail(
                    DeadlineExceeded(
                        f"not finished within {self._limits.request_seconds:g} s", retry_after=1
                    )
                )
            if self.worker and any(until < now for until in self._cancelled.values()):
                log.error("worker of %s hangs: killed", self.model)
                self._cancelled.clear()
                self.worker.kill()

    def _full(self) -> Overloaded:
        wait = min(max(1.0, self._seconds_per_call * len(self.calls) / 2), 60.0)
        return Overloaded(
            f"the queue of model {self.model!r} is full ({self._limits.queue} requests)",
            retry_after=wait,
        )

    def _set(self, state: State, detail: str) -> None:
        self.state = state
        self.detail = detail
        if state in ("loading", "restarting"):
            self._turn.clear()
        else:
            self._turn.set()
        with contextlib.suppress(RuntimeError):
            self._changed(self)


_DIED = "the model's worker died while it held this request; the model is being restarted"
