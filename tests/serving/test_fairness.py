"""The fair queue: shares by weight and by tokens, nobody starves, a lone tenant gets everything."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from openmaas.inference import Chat, Message
from openmaas.serving.call import Call
from openmaas.serving.fairness import BATCH_EVERY, FairQueue, Order, Priority, Share

_id = iter(range(1 << 30))


def call(
    tenant: str, weight: float = 1.0, priority: Priority = "interactive", tokens: int = 10
) -> Call:
    made = Call(
        next(_id),
        Chat(messages=[Message(role="user", content="x")]),
        model="m",
        version="1",
        deadline=0,
        share=Share(tenant, weight, priority),
        finish=lambda call, error: None,
    )
    made.tokens_in = tokens
    return made


def serve(queue: FairQueue, count: int, refill: bool = True) -> list[Call]:
    """Takes so many out, each of them replaced by another of its tenant."""
    served = []
    for _ in range(count):
        one = queue.pop()
        queue.charge(one)
        served.append(one)
        if refill:
            share = one.share
            queue.push(call(share.tenant, share.weight, share.priority, one.tokens_in))
        queue.finished(one)
    return served


def queue_of(*calls: Call, order: Order = "tokens") -> FairQueue:
    queue = FairQueue(order)
    for one in calls:
        queue.push(one)
    return queue


def test_weights_share_the_tokens() -> None:
    queue = queue_of(call("a", 3.0), call("b", 1.0))
    counts = Counter(one.share.tenant for one in serve(queue, 400))
    assert abs(counts["a"] - 300) <= 2


def test_long_requests_count_for_what_they_are() -> None:
    queue = queue_of(call("long", tokens=100), call("short", tokens=10))
    counts = Counter(one.share.tenant for one in serve(queue, 1100))
    assert abs(counts["short"] - 10 * counts["long"]) <= 11


def test_output_that_comes_later_counts() -> None:
    queue = queue_of(call("a"), call("b"))
    first = queue.pop()
    queue.charge(first)
    first.tokens_out = 1000
    queue.charge(first)
    queue.push(call(first.share.tenant))
    other = "b" if first.share.tenant == "a" else "a"
    assert {one.share.tenant for one in serve(queue, 20)} == {other}


def test_places_that_become_free_at_once_are_shared() -> None:
    queue = FairQueue()
    running = [call("a", 3) for _ in range(10)] + [call("b", 1) for _ in range(6)]
    for one in running:  # nobody waits yet: the places go to whoever comes
        queue.pass_by(one.share)
    for one in running * 4:
        queue.push(call(one.share.tenant, one.share.weight))
    shares = []
    for _ in range(20):
        shares.append(sum(one.share.tenant == "a" for one in running))
        for one in running:
            one.tokens_out = 100
            queue.charge(one)
            queue.finished(one)
        running = []
        for _ in range(16):
            one = queue.pop()
            one.expected = queue.expected(one)
            queue.charge(one)
            queue.push(call(one.share.tenant, one.share.weight))
            running.append(one)
    assert abs(sum(shares) - 20 * 12) <= 2
    assert set(shares[5:]) <= {11, 12, 13}


def test_within_a_tenant_first_come_first_served() -> None:
    calls = [call("a") for _ in range(10)]
    assert serve(queue_of(*calls), 10, refill=False) == calls


def test_a_pause_is_not_saved_up() -> None:
    queue = queue_of(call("busy"))
    serve(queue, 100)
    queue.push(call("back"))
    served = [one.share.tenant for one in serve(queue, 40)]
    assert abs(served.count("busy") - 20) <= 1


def test_a_flood_waits_behind_itself() -> None:
    queue = queue_of(*(call("flood") for _ in range(1000)))
    serve(queue, 10, refill=False)
    queue.push(call("other"))
    assert "other" in {one.share.tenant for one in serve(queue, 2, refill=False)}


def test_by_arrival_a_flood_is_served_first() -> None:
    queue = queue_of(*(call("flood") for _ in range(100)), order="arrival")
    queue.push(call("other"))
    served = [one.share.tenant for one in serve(queue, 101, refill=False)]
    assert served[-1] == "other"


def test_batch_waits_but_does_not_starve() -> None:
    queue = queue_of(call("a"), call("b", priority="batch"))
    served = [one.share.priority for one in serve(queue, 10 * BATCH_EVERY)]
    assert served.count("batch") == 10
    assert "batch" not in served[: BATCH_EVERY - 1]


def test_batch_alone_gets_everything() -> None:
    calls = [call("a", priority="batch") for _ in range(5)]
    assert serve(queue_of(*calls), 5, refill=False) == calls


def test_who_leaves_is_not_served() -> None:
    calls = [call("a") for _ in range(3)]
    queue = queue_of(*calls)
    assert queue.remove(calls[1])
    assert not queue.remove(calls[1])
    assert serve(queue, 2, refill=False) == [calls[0], calls[2]]
    assert len(queue) == 0
    assert queue.peek() is None


def test_a_full_queue_makes_room_at_the_cost_of_whoever_has_most() -> None:
    calls = [call("flood") for _ in range(5)]
    queue = queue_of(*calls, call("other"))
    assert queue.pushed_out_by(Share("new")) is calls[-1]
    assert queue.pushed_out_by(Share("flood")) is None
    assert queue_of(call("a"), call("b")).pushed_out_by(Share("a")) is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50)), min_size=20, max_size=200),
    st.sampled_from([1.0, 2.0, 5.0]),
)
def test_backlogged_tenants_never_differ_by_more_than_two_requests(
    sizes: list[tuple[str, int]], weight: float
) -> None:
    """The paper's theorem 4.4: the difference of two backlogged tenants' services is bounded."""
    weights = {"a": 1.0, "b": weight}
    queue = FairQueue()
    backlog = {name: [n for who, n in sizes if who == name] + [10] for name in "ab"}
    for name in "ab":
        for tokens in backlog[name]:
            queue.push(call(name, weights[name], tokens=tokens))
    got = {"a": 0.0, "b": 0.0}
    left = {name: len(backlog[name]) for name in "ab"}
    while all(left.values()):
        one = queue.pop()
        queue.charge(one)
        queue.finished(one)
        got[one.share.tenant] += one.tokens_in / one.share.weight
        left[one.share.tenant] -= 1
        assert abs(got["a"] - got["b"]) <= 2 * 50
