"""A call's events, failures and cancellation."""

from __future__ import annotations

import asyncio

import pytest

from openmaas.errors import Abandoned, OpenMaaSError, WorkerFailed
from openmaas.inference import Chat, Delta, Failure, Finished, Message, Usage
from openmaas.serving.call import Call
from openmaas.serving.fairness import Share

REQUEST = Chat(messages=[Message(role="user", content="hi")])


def make(ends: list[OpenMaaSError | None]) -> Call:
    return Call(
        1,
        REQUEST,
        model="m",
        version="1",
        deadline=0,
        share=Share(),
        finish=lambda _, error: ends.append(error),
    )


async def test_result_is_every_event_in_order() -> None:
    ends: list[OpenMaaSError | None] = []
    call = make(ends)
    waiting = asyncio.create_task(call.result())
    await asyncio.sleep(0)
    call.deliver(Delta(text="a"))
    call.deliver(Delta(text="b"))
    call.deliver(Finished(usage=Usage(input_tokens=1, output_tokens=2)))
    events = await waiting
    assert [type(event) for event in events] == [Delta, Delta, Finished]
    assert call.usage.output_tokens == 2
    assert ends == [None]


async def test_events_that_arrive_together_come_in_one_list() -> None:
    call = make([])
    call.deliver(Delta(text="a"))
    call.deliver(Delta(text="b"))
    assert [event.text for event in await anext(call)] == ["a", "b"]  # type: ignore[union-attr]
    call.deliver(Finished(usage=Usage()))
    assert len(await anext(call)) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(call)


async def test_what_came_before_a_failure_is_delivered_first() -> None:
    ends: list[OpenMaaSError | None] = []
    call = make(ends)
    call.deliver(Delta(text="a"))
    call.deliver(Failure(code="worker_failed", message="died", retry_after=1.0))
    assert len(await anext(call)) == 1
    with pytest.raises(WorkerFailed) as raised:
        await anext(call)
    assert raised.value.retry_after == 1.0
    assert isinstance(ends[0], WorkerFailed)


async def test_cancel_wakes_the_waiter_and_is_idempotent() -> None:
    ends: list[OpenMaaSError | None] = []
    call = make(ends)
    waiting = asyncio.create_task(call.result())
    await asyncio.sleep(0)
    call.cancel()
    call.cancel()
    with pytest.raises(Abandoned):
        await waiting
    assert len(ends) == 1
    assert not call.answered


async def test_nothing_is_delivered_after_the_end() -> None:
    ends: list[OpenMaaSError | None] = []
    call = make(ends)
    call.deliver(Finished(usage=Usage()))
    call.deliver(Delta(text="late"))
    call.cancel()
    assert len(await call.result()) == 1
    assert ends == [None]
