"""Which replica a prompt goes to."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from openmaas.inference import Chat, Message
from openmaas.serving.call import Call
from openmaas.serving.fairness import Share
from openmaas.serving.routing import BLOCK, OVERLOAD, Prefixes, blocks_of


def replica(taken: int = 0) -> Any:
    return SimpleNamespace(taken=taken)


def call(text: str, tenant: str = "acme") -> Call:
    return Call(
        1,
        Chat(messages=[Message(role="user", content=text)]),
        model="m",
        version="1",
        deadline=time.monotonic() + 60,
        share=Share(tenant),
        finish=lambda call, error: None,
    )


SYSTEM = "You are a helpful assistant. " * 40


def test_the_idlest_takes_a_prompt_that_nobody_knows() -> None:
    a, b = replica(2), replica(1)
    assert Prefixes().choose(call("hi"), [a, b]) is b


def test_a_prompt_that_begins_alike_goes_where_the_first_went() -> None:
    prefixes, a, b = Prefixes(), replica(0), replica(1)
    assert prefixes.choose(call(SYSTEM + "one"), [a, b]) is a
    a.taken = 3  # busier now, but it knows the prompt
    assert prefixes.choose(call(SYSTEM + "two"), [a, b]) is a
    a.taken = b.taken + OVERLOAD + 1
    assert prefixes.choose(call(SYSTEM + "three"), [a, b]) is b


def test_the_longest_common_beginning_counts() -> None:
    prefixes, a, b = Prefixes(), replica(), replica()
    branch = SYSTEM + "x" * BLOCK * 2
    prefixes.choose(call(SYSTEM), [a])
    prefixes.choose(call(branch), [b])
    assert prefixes.choose(call(branch + "more"), [a, b]) is b


def test_another_tenants_prompt_is_unknown() -> None:
    prefixes, a, b = Prefixes(), replica(0), replica(0)
    prefixes.choose(call(SYSTEM), [a])
    a.taken = 1
    assert prefixes.choose(call(SYSTEM, "other"), [a, b]) is b
    assert set(blocks_of("acme", call(SYSTEM).request)).isdisjoint(
        blocks_of("other", call(SYSTEM).request)
    )


def test_a_replica_that_left_is_forgotten() -> None:
    prefixes, a, b = Prefixes(), replica(0), replica(0)
    prefixes.choose(call(SYSTEM), [a])
    prefixes.forget(a)
    a.taken = 1
    assert prefixes.choose(call(SYSTEM), [a, b]) is b
