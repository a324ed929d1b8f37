"""Dynamic batching for encoders and ordinary networks.

While the engine works on one batch the next one gathers, so an idle engine never waits
and a busy one finds full batches. ``delay_seconds`` makes even an idle engine wait for
company, which pays only where one call costs far more than its rows.
"""

from __future__ import annotations

import logging
import time

import msgspec

from openmaas.errors import EngineFailed, OpenMaaSError
from openmaas.frames import Cancelled, Emit, ToGateway
from openmaas.inference import Failure, Request
from openmaas.runtimes.base import BatchRuntime
from openmaas.serving.inbox import Inbox, Line

log = logging.getLogger(__name__)


class Batching(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How batches are cut."""

    max_size: int = 4096  # rows or tokens of one engine call
    max_requests: int = 256
    delay_seconds: float = 0.0


def serve(runtime: BatchRuntime, inbox: Inbox, line: Line, batching: Batching) -> None:
    """The worker's main loop: gather → run → answer. Never returns."""
    while True:
        waiting = inbox.take(block=True, limit=batching.max_requests)
        if batching.delay_seconds and waiting:
            waiting += _company(inbox, batching, len(waiting))
        frame: ToGateway = [Cancelled(id=id) for id in inbox.cancelled()]
        batch, rest = _cut(runtime, waiting, batching.max_size, frame)
        if rest:
            inbox.put_back(rest)
        if batch:
            frame += _answers(runtime, batch)
        if frame:
            line.send(frame)


def _company(inbox: Inbox, batching: Batching, have: int) -> list[tuple[int, Request]]:
    until = time.monotonic() + batching.delay_seconds
    more: list[tuple[int, Request]] = []
    while (left := until - time.monotonic()) > 0 and have + len(more) < batching.max_requests:
        inbox.wait(left)
        more += inbox.take(block=False, limit=batching.max_requests - have - len(more))
    return more


def _cut(
    runtime: BatchRuntime, waiting: list[tuple[int, Request]], most: int, frame: ToGateway
) -> tuple[list[tuple[int, Request]], list[tuple[int, Request]]]:
    """The head of the queue that fits one batch, and the rest; misfits are answered into
    ``frame``. One request larger than a batch runs alone: the runtime cuts it further."""
    batch: list[tuple[int, Request]] = []
    total = 0
    for position, (id, request) in enumerate(waiting):
        try:
            size = runtime.size(request)
        except OpenMaaSError as error:
            frame.append(Emit(id=id, event=failure(error)))
            continue
        if batch and total + size > most:
            return batch, waiting[position:]
        batch.append((id, request))
        total += size
    return batch, []


def _answers(runtime: BatchRuntime, batch: list[tuple[int, Request]]) -> ToGateway:
    try:
        answers = runtime.run([request for _, request in batch])
        return [Emit(id=id, event=answer) for (id, _), answer in zip(batch, answers, strict=True)]
    except MemoryError:
        raise  # the process is not to be trusted any more
    except Exception as error:
        log.exception("the engine failed on a batch of %d", len(batch))
        if len(batch) > 1:  # one bad request must not fail its neighbours
            return [item for one in batch for item in _answers(runtime, [one])]
        return [Emit(id=batch[0][0], event=failure(error))]


def failure(error: Exception) -> Failure:
    """An exception as the event that ends a request. Foreign ones lose their text: it may
    hold the request's content."""
    if isinstance(error, OpenMaaSError):
        return Failure(
            code=error.code,
            message=error.message,
            param=error.param,
            retry_after=error.retry_after,
        )
    return Failure(code=EngineFailed.code, message="the engine failed on this request")
