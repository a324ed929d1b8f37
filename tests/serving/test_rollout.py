"""Who answers, and when a version is taken back: the rules alone, without a server."""

from __future__ import annotations

from collections import Counter

from openmaas.registry.deployments import Alias, Bounds, Target
from openmaas.serving.rollout import Route


def route(weights: dict[int, float], bounds: Bounds | None = None) -> Route:
    targets = [Target(version, weight) for version, weight in weights.items()]
    return Route(Alias(model="m", alias="live", targets=targets, bounds=bounds))


def test_shares_are_exact_and_evenly_spread() -> None:
    one = route({1: 70, 2: 20, 3: 10})
    chosen = [one.choose() for _ in range(1000)]
    assert Counter(chosen) == {1: 700, 2: 200, 3: 100}
    for at in range(0, 1000, 10):
        assert Counter(chosen[at : at + 10]) == {1: 7, 2: 2, 3: 1}


def test_a_key_stays_where_it_is_as_the_canary_grows() -> None:
    keys = [f"user-{n}" for n in range(4000)]
    before = {key: route({1: 90, 2: 10}).choose(key) for key in keys}
    after = {key: route({1: 50, 2: 50}).choose(key) for key in keys}
    assert before == {key: route({1: 90, 2: 10}).choose(key) for key in keys}
    for counts, share in ((Counter(before.values()), 0.1), (Counter(after.values()), 0.5)):
        assert abs(counts[2] / 4000 - share) < 0.02
    assert all(after[key] == 2 for key in keys if before[key] == 2)


def observe(one: Route, version: int, calls: int, *, failed: int, seconds: float) -> None:
    for n in range(calls):
        one.observe(version, seconds, "worker_failed" if n < failed else None)


def test_a_version_that_fails_is_taken_back() -> None:
    one = route({1: 90, 2: 10}, Bounds(errors=0.05, calls=50))
    observe(one, 1, 500, failed=0, seconds=0.01)
    observe(one, 2, 49, failed=49, seconds=0.01)
    assert one.verdict() is None  # it is not judged yet
    observe(one, 2, 1, failed=1, seconds=0.01)
    assert "50 of the last 50 calls of version 2 failed" in str(one.verdict())


def test_chance_alone_takes_nothing_back() -> None:
    one = route({1: 90, 2: 10}, Bounds(errors=0.05, calls=50))
    observe(one, 2, 100, failed=7, seconds=0.01)  # 5 are expected, give or take 2.2
    assert one.verdict() is None
    observe(one, 2, 10, failed=10, seconds=0.01)
    assert one.verdict() is not None


def test_callers_faults_are_not_the_models() -> None:
    one = route({1: 90, 2: 10}, Bounds(errors=0.0, calls=10))
    for code in ("invalid_request", "abandoned", "rate_limit_exceeded", "overloaded"):
        for _ in range(20):
            one.observe(2, 0.01, code)
    assert one.verdict() is None
    assert one.windows[2].total == 0


def test_a_slow_version_is_taken_back() -> None:
    one = route({1: 90, 2: 10}, Bounds(errors=None, latency=2.0, calls=50))
    observe(one, 1, 100, failed=0, seconds=0.010)
    observe(one, 2, 100, failed=0, seconds=0.019)
    assert one.verdict() is None
    observe(one, 2, 100, failed=0, seconds=0.021)
    assert "over 2 times" in str(one.verdict())


def test_without_bounds_nothing_is_taken_back() -> None:
    one = route({1: 90, 2: 10})
    observe(one, 2, 100, failed=100, seconds=0.01)
    assert one.verdict() is None
