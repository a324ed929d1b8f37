"""Shadow traffic: a version gets a copy of the calls; its answers are compared and dropped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from openmaas.errors import OpenMaaSError
from openmaas.inference import (
    NUMPY,
    Delta,
    Embedded,
    Event,
    Loglikelihoods,
    Predicted,
    Request,
    Scored,
    Tagged,
    Tokenized,
    Translated,
    Usage,
)
from openmaas.serving.call import COPIED_EVENTS, Call
from openmaas.serving.deployment import Deployment
from openmaas.serving.fairness import Share

log = logging.getLogger(__name__)

AT_ONCE = 16  # copies in flight; more are left out, and counted
SAME = 1e-3  # numbers that differ by no more are the same
_NOTHING = Usage()


class Comparison(msgspec.Struct):
    """What became of the copies."""

    calls: int = 0  # that were copied
    same: int = 0
    different: int = 0
    failed: int = 0  # the shadow's calls, where the real one was answered
    left_out: int = 0  # too many were in flight, or the model was not loaded
    largest_difference: float = 0.0  # of two numbers of an answer
    live_seconds: float = 0.0  # of all copied calls that both answered
    shadow_seconds: float = 0.0


class Mirror:
    """Copies of calls to one version."""

    def __init__(self, share: float) -> None:
        self.seen = Comparison()
        self._share = share
        self._credit = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(self, call: Call, request: Request, shadow: Deployment, deadline: float) -> None:
        """Asks the shadow what a call asks, if it is that call's turn."""
        self._credit += self._share
        if self._credit < 1:
            return
        self._credit -= 1
        if len(self._tasks) >= AT_ONCE or shadow.state != "ready":
            self.seen.left_out += 1
            shadow.wake()
            return
        call.copy = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._compare(call, call.copy, request, shadow, deadline))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(
        self,
        call: Call,
        over: asyncio.Future[list[Event]],
        request: Request,
        shadow: Deployment,
        deadline: float,
    ) -> None:
        began = time.monotonic()
        other: list[Event] | None = None
        with contextlib.suppress(OpenMaaSError):
            # It is nobody's: it has the lowest place, and is in no ledger.
            copied = shadow.submit(request, deadline, Share("", 1.0, "batch"))
            try:
                other = await copied.result()
            finally:
                copied.cancel()
        seconds = time.monotonic() - began
        real = await over
        if call.usage == _NOTHING or len(real) > COPIED_EVENTS:
            return  # nobody was answered: there is nothing to compare with
        self.seen.calls += 1
        if other is None:
            self.seen.failed += 1
            return
        self.seen.live_seconds += call.seconds
        self.seen.shadow_seconds += seconds
        difference = compare(real, other)
        if difference is None:
            self.seen.different += 1
            return
        self.seen.largest_difference = max(self.seen.largest_difference, difference)
        if difference <= SAME:
            self.seen.same += 1
        else:
            self.seen.different += 1


def compare(one: Sequence[Event], other: Sequence[Event]) -> float | None:
    """The largest difference of two answers' numbers, 0 for texts that are equal; None: they
    differ in kind, shape, text or label."""
    if not one or not other or type(one[-1]) is not type(other[-1]):
        return None
    a, b = one[-1], other[-1]
    if isinstance(a, Predicted) and isinstance(b, Predicted):
        return _tensors(a, b)
    if isinstance(a, Embedded | Scored) and isinstance(b, Embedded | Scored):
        return _numbers(a.data, b.data, "<f4")
    if isinstance(a, Translated) and isinstance(b, Translated):
        return 0.0 if a.outputs == b.outputs else None
    if isinstance(a, Tokenized) and isinstance(b, Tokenized):
        return 0.0 if a.outputs == b.outputs else None
    if isinstance(a, Tagged) and isinstance(b, Tagged):
        return _spans(a, b)
    if isinstance(a, Loglikelihoods) and isinstance(b, Loglikelihoods):
        if len(a.logprobs) != len(b.logprobs):
            return None
        return max((abs(x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True)), default=0.0)
    return 0.0 if _texts(one) == _texts(other) else None


def _spans(a: Tagged, b: Tagged) -> float | None:
    """The largest difference of two scores, where the same characters have the same labels."""
    places = [
        [[(span.start, span.end, span.label) for span in spans] for spans in one.outputs]
        for one in (a, b)
    ]
    if places[0] != places[1]:
        return None
    scores = [[span.score for spans in one.outputs for span in spans] for one in (a, b)]
    return max((abs(x - y) for x, y in zip(*scores, strict=True)), default=0.0)


def _texts(events: Sequence[Event]) -> dict[int, str]:
    found: dict[int, str] = {}
    for event in events:
        if isinstance(event, Delta):
            calls = "".join((c.name or "") + c.arguments for c in event.tool_calls or ())
            found[event.index] = found.get(event.index, "") + event.text + calls
    return found


def _tensors(a: Predicted, b: Predicted) -> float | None:
    largest = 0.0
    others = {tensor.name: tensor for tensor in b.outputs}
    for tensor in a.outputs:
        other = others.get(tensor.name)
        if other is None or (other.datatype, other.shape) != (tensor.datatype, tensor.shape):
            return None
        kind = NUMPY.get(tensor.datatype)
        if kind is None:  # texts
            difference = 0.0 if tensor.data == other.data else None
        else:
            difference = _numbers(tensor.data, other.data, kind)
        if difference is None:
            return None
        largest = max(largest, difference)
    return largest


def _numbers(a: bytes, b: bytes, kind: str) -> float | None:
    x = np.frombuffer(a, kind).astype(np.float64)
    y = np.frombuffer(b, kind).astype(np.float64)
    if x.shape != y.shape:
        return None
    apart = np.abs(x - y)
    if not np.isfinite(apart).all():
        return 0.0 if np.array_equal(x, y, equal_nan=True) else None
    return float(apart.max(initial=0.0))
