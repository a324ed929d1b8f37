"""A version that is served: its queue, its replicas, and the account of its calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from openmaas import background
from openmaas.config import Limits
from openmaas.errors import DeadlineExceeded, OpenMaaSError, Overloaded, WorkerFailed
from openmaas.inference import Event, ModelInfo, Request
from openmaas.placement.base import Placement, WorkerSpec
from openmaas.registry.deployments import Replicas
from openmaas.serving.call import Call
from openmaas.serving.choice import DEDICATED
from openmaas.serving.fairness import FairQueue, Order, Share, estimate
from openmaas.serving.replica import BREAKER_SECONDS, Replica
from openmaas.serving.residency import Residency
from openmaas.serving.routing import Prefixes
from openmaas.serving.scaling import Scaler
from openmaas.serving.tally import Tally

State = Literal[
    "asleep", "waiting for memory", "loading", "ready", "restarting", "broken", "stopping"
]

log = logging.getLogger(__name__)

COMING = ("waiting for memory", "loading", "restarting")
SWEEP_SECONDS = 0.25
# For so long after an interactive call the model is kept free for the next: of the batch lane one
# call runs at a time.
QUIET_SECONDS = 1.0
REFUSED_SECONDS = 10.0  # for which a model is too large without another look
OUTGROWN = 1.25  # of what a worker had taken when it was stopped for it, asked for the next
_NOBODY = Share()


class Deployment:
    """Workers of one version. Calls wait in one fair queue while none has room, or none is loaded:
    whoever calls a model that is asleep wakes it.

    Args:
        tenant: whose model it is; ``PUBLIC``: everybody's.
        serves: the one tenant whose calls come here; None: all of those that may call the model.
        replicas: bounds of their number.
        idle_seconds: without a call, after which it leaves memory if it may.
        memory: bytes that one of its workers is known to take; 0: unknown.
        order: who is next where calls must wait.
        finished: told of every call that ended, and with which error.
        changed: told when ``state`` or ``detail`` changed.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        tenant: str,
        version: int,
        created: int,
        size: int,
        replicas: Replicas,
        idle_seconds: float,
        memory: int,
        placement: Placement,
        residency: Residency,
        limits: Limits,
        order: Order,
        finished: Callable[[Deployment, Call, OpenMaaSError | None], None],
        changed: Callable[[Deployment], None],
        serves: str | None = None,
    ) -> None:
        self.asked = spec
        self.spec = _with_threads(_with_cache(spec, alone=bool(serves or tenant)), replicas.max)
        self.model = spec.deployment
        self.tenant = tenant
        self.serves = serves
        self.label = f"{tenant}/{spec.deployment}" if tenant else spec.deployment
        if serves is not None:
            self.label += f" (for {serves})"
        self.number = version
        self.version = str(version)
        self.created = created  # of the version, Unix seconds
        self.size = size  # bytes of the artifact
        self.bounds = replicas
        self.idle_seconds = idle_seconds
        self.state: State = "asleep"
        self.detail = ""
        self.info: ModelInfo | None = None  # once it was loaded
        self.calls: dict[int, Call] = {}
        self.replicas: list[Replica] = []
        self.leaving: list[Replica] = []  # they still take memory
        self.last_used = time.monotonic()
        self.wanted = False  # loaded though nobody calls it: it is to answer soon
        self.answers = True  # calls may come to it: where not, nothing is pinned
        self.ready_since = 0.0
        self.counted_restarts = 0  # that telemetry was told of
        self.memory = memory  # of one worker, the most that was seen
        self.load_seconds = 0.0
        self.loads = 0  # workers that were started
        self.was_ready = False  # since the server started
        self._restarts = 0  # of replicas that are gone
        self._tallies: dict[str, Tally] = {}  # by caller's tenant
        self._placement = placement
        self._residency = residency
        self._limits = limits
        self._finished = finished
        self._changed = changed
        self._next_id = 0
        self._queue = FairQueue(order)
        self._of: dict[int, Replica] = {}  # call → who has it
        self._batch = 0  # calls of the batch lane that workers have
        self._interactive_at = -QUIET_SECONDS  # when the last other one came or went
        self._interactive = 0  # others here, waiting or not
        self._waiting = 0  # callers in known() and ready()
        self._asked = False  # the residency, for memory
        self._refused: OpenMaaSError | None = None  # it cannot be loaded as things are
        self._refused_at = 0.0
        self._needs = 0  # bytes that the last try turned out to need at the least
        self._draining = False  # it goes to sleep as soon as no worker has a call
        self._stopping = False
        self._turn = asyncio.Event()  # set when the state is none of COMING
        self._drained: asyncio.Event | None = None
        self._seconds_per_call = 0.05
        self._last_done = 0.0
        self._scaler = Scaler(replicas.min, replicas.max)
        self._prefixes = Prefixes() if replicas.max > 1 else None
        self._ending: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._sweep())
        residency.join(self)

    # --- for the pipeline ----------------------------------------------------------------

    async def known(self, deadline: float) -> ModelInfo:
        """What the model is, which takes loading it if it never was.

        Raises:
            Overloaded: it cannot run, or too many wait for it already.
            DeadlineExceeded: it was not loaded in time.
        """
        if self.info is None or self.state in ("broken", "stopping"):
            await self._until(lambda: self.info is not None, deadline)
        assert self.info is not None
        return self.info

    async def ready(self, deadline: float) -> None:
        """Returns once it is loaded.

        Raises:
            Overloaded, DeadlineExceeded: as ``known``.
        """
        if self.state != "ready":
            await self._until(lambda: self.state == "ready", deadline)

    def submit(self, request: Request, deadline: float, share: Share = _NOBODY) -> Call:
        """
        Raises:
            Overloaded: it cannot run, or the queue is full, and nobody waits with more than the
                caller does.
        """
        if self.state in ("broken", "stopping"):
            raise self._down()
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
        self.last_used = call.started
        if share.priority != "batch":
            self._interactive += 1
            self._interactive_at = call.started
        replica = None if self._queue else self._for(call)
        if replica is None:
            self._queue.push(call)
            call.progress = self.progress
            self.wake()
            self.freed()  # what waits before it may be of the batch lane, which is held back
        else:
            self._queue.pass_by(share)
            self._send(call, replica)
        return call

    def tally(self, tenant: str) -> Tally:
        """What one tenant's calls came to."""
        return self._tallies.get(tenant) or Tally()

    def progress(self) -> str:
        """How far a model is that callers wait for, in words."""
        if self.state == "waiting for memory":
            return f"{self.model} waits for memory"
        if self.state in COMING and self.replicas:
            took = f" of about {self.load_seconds:.0f}" if self.load_seconds else ""
            seconds = time.monotonic() - min(one.since for one in self.replicas)
            return f"{self.model} is {self.state}, {seconds:.0f}{took} s"
        return f"{len(self._queue)} calls wait for {self.model}"

    @property
    def restarts(self) -> int:
        """Workers that died."""
        return self._restarts + sum(one.restarts for one in self.replicas)

    @property
    def pids(self) -> list[int]:
        """Its workers' processes."""
        return [one.pid for one in self.replicas if one.pid is not None]

    @property
    def waiting(self) -> int:
        """Calls that no worker has yet."""
        return len(self._queue)

    # --- coming and going --------------------------------------------------------------------

    def wake(self) -> None:
        """Has it loaded, if it is asleep."""
        if not self.replicas and not self._asked and not self._stopping and not self._refused:
            self._asked = True
            self._update("")
            self._residency.ask(self)

    def grant(self) -> None:
        """The residency has memory for one more worker."""
        self._asked = False
        if self._stopping:
            return
        self.loads += 1
        self.replicas.append(Replica(self.spec, self._placement, self._limits, self))
        self._update("")

    def refuse(self, error: OpenMaaSError) -> None:
        """The residency will never have memory for it."""
        self._asked = False
        self._refused, self._refused_at = error, time.monotonic()
        self._update(error.message)
        self._fail_waiting(error)

    def defer(self, why: str) -> None:
        """It is not loaded now; whoever calls it wakes it."""
        self._asked = False
        self._update(why)

    @property
    def pinned(self) -> bool:
        return self.bounds.min > 0 and self.answers

    @property
    def idle(self) -> bool:
        """Whether it is loaded for nobody."""
        return bool(self.replicas) and not (self.calls or self._waiting or self.wanted)

    @property
    def called(self) -> bool:
        """Whether somebody waits for it to be loaded."""
        return bool(self._queue) or self._waiting > 0 or self.wanted or self.pinned

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def footprint(self) -> int:
        """Bytes that one of its workers is expected to take."""
        return max(self.memory or self._residency.guess(self.size), self._needs)

    @property
    def measured(self) -> bool:
        """Whether that is known, and no guess."""
        return bool(self.memory or self._needs)

    def replaced_by(self, other: Deployment) -> bool:
        """Whether the other is of the same version for the same callers, or this one itself."""
        same = (self.tenant, self.model, self.number) == (other.tenant, other.model, other.number)
        return same and self.serves == other.serves

    def ending(self) -> int:
        """Bytes of its workers that are about to be free."""
        return sum(one.memory() for one in self.leaving)

    def resident(self) -> int:
        """Bytes that its workers take now, the ones that are ending too."""
        total = sum(one.memory() for one in (*self.replicas, *self.leaving))
        # One that is loading has not taken yet what it will.
        peaks = (one.peak for one in self.replicas if one.state == "ready")
        self.memory = max(self.memory, max(peaks, default=0))
        return total

    def sleep(self, detail: str = "") -> None:
        """Leaves memory; calls that come meanwhile wait for it to be loaded again."""
        self._draining = False
        gone, self.replicas = self.replicas, []
        for replica in gone:
            self._end(replica)
        self._update(detail)

    def make_room(self) -> None:
        """Leaves memory as soon as its workers have answered what they have."""
        self._draining = True
        if all(one.idle for one in self.replicas):
            self.sleep()

    def outgrown(self) -> None:
        """It takes more memory than there was room for: it is to ask again, for more."""
        most = max(one.memory() for one in self.replicas)
        # With a margin, which alone must not make it too large.
        self._needs = max(most, min(int(most * OUTGROWN), self._residency.budget))
        self.sleep("it took more memory than was free")

    async def stop(self, drain_seconds: float) -> None:
        """Lets calls in flight finish, ends the workers, and returns when they are gone."""
        self._stopping = True
        if not self.replicas:
            self._fail_waiting(_taken_down(self.model))
        self._update("draining")
        if self.calls:
            self._drained = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds):
                    await self._drained.wait()
        await background.end(self._task)
        for call in list(self.calls.values()):
            call.fail(_taken_down(self.model))
        self.sleep("draining")
        await asyncio.gather(*self._ending)
        self._residency.leave(self)
        self._update("stopped")

    @property
    def gone(self) -> bool:
        return self._stopping and not self.replicas and not self.leaving

    def _end(self, replica: Replica) -> None:
        self.leaving.append(replica)
        self._restarts += replica.restarts
        if self._prefixes is not None:
            self._prefixes.forget(replica)

        async def end() -> None:
            await replica.stop()
            self.leaving.remove(replica)
            self._residency.freed()
            if self.called and not self._stopping:
                self.wake()

        task = asyncio.create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _until(self, holds: Callable[[], bool], deadline: float) -> None:
        while not holds():
            if self.state in ("broken", "stopping"):
                raise self._down()
            if self._waiting >= self._limits.queue:
                raise self._full()
            self._waiting += 1
            self.last_used = time.monotonic()
            self.wake()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._turn.wait()
            except TimeoutError:
                raise DeadlineExceeded(
                    f"not loaded in time: {self.progress()}", retry_after=5
                ) from None
            finally:
                self._waiting -= 1

    def _down(self) -> OpenMaaSError:
        if self._refused is not None:
            return self._refused
        return Overloaded(
            f"model {self.model!r} is not running now; its operator sees why in `openmaas status`",
            retry_after=BREAKER_SECONDS if self.state == "broken" else 1,
        )

    # --- who is next ------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether it is, or was a moment ago, called interactively."""
        return self._interactive > 0 or time.monotonic() - self._interactive_at <= QUIET_SECONDS

    def _batch_may(self) -> bool:
        """Whether a call of the batch lane may be sent to a worker."""
        return self._batch == 0 or not self.busy

    def _for(self, call: Call) -> Replica | None:
        """A replica that takes a call now."""
        if self._draining or (call.share.priority == "batch" and not self._batch_may()):
            return None
        if self._prefixes is None:
            one = self.replicas[0] if self.replicas else None
            return one if one is not None and one.has_room(call) else None
        able = [one for one in self.replicas if one.has_room(call)]
        return self._prefixes.choose(call, able) if able else None

    def _send(self, call: Call, replica: Replica) -> None:
        call.dispatch()
        call.tokens_in = estimate(call.request)
        call.expected = self._queue.expected(call)
        self._queue.charge(call)
        self._of[call.id] = replica
        if call.share.priority == "batch":
            self._batch += 1
        replica.send(call)

    def freed(self) -> None:
        if self._draining and all(one.idle for one in self.replicas):
            self.sleep()
        while self._queue:
            batch = self._batch_may()
            call = self._queue.peek(batch=batch)
            replica = None if call is None else self._for(call)
            if replica is None:
                return
            self._send(self._queue.pop(batch=batch), replica)

    # --- what replicas tell ----------------------------------------------------------------

    def heard(self, id: int, event: Event) -> None:
        call = self.calls.get(id)
        if call is not None:
            call.deliver(event)
            self._queue.charge(call)

    def lost(self, calls: list[Call], error: WorkerFailed) -> None:
        for call in calls:
            call.fail(error)

    def changed(self, replica: Replica) -> None:
        if replica not in self.replicas:
            return
        if replica.state == "ready":
            self.info = replica.info
            self.was_ready = True
            self._needs = 0
            self.ready_since = time.monotonic()
            self.load_seconds = replica.load_seconds
            self.last_used = time.monotonic()
            self._residency.freed()  # what it takes is known now
        self._update(replica.detail)
        if self.state == "broken":
            self._fail_waiting(self._down())
        self.freed()

    def _update(self, detail: str) -> None:
        self.state, self.detail = self._state(), detail
        if self.state in COMING:
            self._turn.clear()
        else:
            self._turn.set()
        self._changed(self)

    def _state(self) -> State:
        if self._stopping:
            return "stopping"
        states = {one.state for one in self.replicas}
        if "ready" in states:
            return "ready"
        if "restarting" in states:
            return "restarting"
        if "loading" in states:
            return "loading"
        if states or self._refused:
            return "broken"
        return "waiting for memory" if self._asked else "asleep"

    # --- how calls end -----------------------------------------------------------------------

    def _finish(self, call: Call, error: OpenMaaSError | None) -> None:
        """A call ended: by its last event, or because nobody waits for it any more."""
        del self.calls[call.id]
        if self._drained is not None and not self.calls:
            self._drained.set()
        now = time.monotonic()
        self.last_used = now
        replica = self._of.pop(call.id, None)
        if call.share.priority != "batch":
            self._interactive -= 1
            self._interactive_at = now
        elif replica is not None:
            self._batch -= 1
        if replica is None:
            self._queue.remove(call)
        else:
            self._queue.finished(call)
            replica.finished(call, good=error is None)
        if error is None:
            gap = min(now - self._last_done, 60.0) if self._last_done else 0.05
            self._seconds_per_call += 0.1 * (gap - self._seconds_per_call)
            self._last_done = now
        tally = self._tallies.get(call.share.tenant)
        if tally is None:
            tally = self._tallies[call.share.tenant] = Tally()
        tally.add(call, error)
        self._finished(self, call, error)
        if not self.calls:
            self._residency.idle()

    def _fail_waiting(self, error: OpenMaaSError) -> None:
        for call in [call for call in self.calls.values() if call.id not in self._of]:
            call.fail(error)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for replica in self.replicas:
                replica.look(SWEEP_SECONDS)
            for call in [call for call in self.calls.values() if call.deadline <= now]:
                what = "finished" if call.id in self._of else f"begun ({self.progress()})"
                call.fail(
                    DeadlineExceeded(
                        f"not {what} within {self._limits.request_seconds:g} s", retry_after=1
                    )
                )
            self.freed()  # the batch lane may go on
            self._scale(now)
            if self._refused and now - self._refused_at > REFUSED_SECONDS:
                self._refused = None  # others may have left: the next call tries again
                self._update(self.detail)
            may = self.state == "ready" and self.idle and not self.pinned
            if may and now - self.last_used > self.idle_seconds:
                self.sleep(f"idle for {self.idle_seconds:g} s")

    def _scale(self, now: float) -> None:
        ready = [one for one in self.replicas if one.state == "ready"]
        if not ready or len(ready) < len(self.replicas) or self._stopping or self._draining:
            return
        started = (call.started for call in self.calls.values() if call.first_event is None)
        wanted = self._scaler.look(
            now,
            replicas=len(ready),
            busy=sum(not one.idle for one in ready),
            oldest_wait=now - min(started, default=now),
        )
        if wanted > len(ready) and self._residency.fits(self):
            log.info("%s gets replica %d", self.label, len(ready) + 1)
            self.grant()
        elif wanted < len(ready):
            least = min(ready, key=lambda one: one.taken)
            if least.idle:
                log.info("%s loses replica %d", self.label, len(ready))
                self.replicas.remove(least)
                self._end(least)
                self._update("")

    def _full(self) -> Overloaded:
        wait = min(max(1.0, self._seconds_per_call * len(self.calls) / 2), 60.0)
        return Overloaded(
            f"the queue of model {self.model!r} is full ({self._limits.queue} requests)",
            retry_after=wait,
        )


def _with_threads(spec: WorkerSpec, replicas: int) -> WorkerSpec:
    """The cores are shared out among the replicas that there may be."""
    if replicas == 1 or spec.runtime == "echo" or "threads" in spec.options:
        return spec
    threads = max(1, len(os.sched_getaffinity(0)) // replicas)
    return msgspec.structs.replace(spec, options={**spec.options, "threads": threads})


def _with_cache(spec: WorkerSpec, *, alone: bool) -> WorkerSpec:
    """What an engine keeps of prompts tells by its timing what was asked: it keeps nothing in
    workers that answer more than one tenant.

    Args:
        alone: they answer one.
    """
    wanted = spec.options.get("prefix_cache")
    if wanted is True or wanted == DEDICATED:  # what else it may be is the runtime's to refuse
        return msgspec.structs.replace(spec, options={**spec.options, "prefix_cache": alone})
    return spec


def _taken_down(model: str) -> WorkerFailed:
    return WorkerFailed(f"model {model!r} is being taken down", retry_after=1)
