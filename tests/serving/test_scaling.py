"""The rule by which replicas come and go."""

from __future__ import annotations

from openmaas.serving.scaling import DOWN_SECONDS, UP_SECONDS, Scaler


def run(scaler: Scaler, start: float, seconds: float, replicas: int, busy: int, wait: float) -> int:
    now = start
    while now < start + seconds:
        wanted = scaler.look(now, replicas=replicas, busy=busy, oldest_wait=wait)
        if wanted != replicas:
            return wanted
        now += 0.25
    return replicas


def test_one_more_when_calls_wait_and_all_are_busy() -> None:
    assert run(Scaler(0, 3), 0, 30, 1, 1, 1.0) == 2
    assert run(Scaler(0, 1), 0, 30, 1, 1, 1.0) == 1  # no more than the bound
    assert run(Scaler(0, 3), 0, UP_SECONDS, 1, 1, 1.0) == 1  # not at the first sign
    assert run(Scaler(0, 3), 0, 30, 1, 1, 0.1) == 1  # busy, but nobody waits
    assert run(Scaler(0, 3), 0, 30, 2, 1, 1.0) == 2  # one is free


def test_one_fewer_after_long_slack() -> None:
    scaler = Scaler(0, 3)
    assert run(scaler, 0, DOWN_SECONDS - 1, 2, 0, 0.0) == 2
    assert run(scaler, DOWN_SECONDS, DOWN_SECONDS, 2, 0, 0.0) == 1
    assert run(Scaler(2, 3), 0, 120, 2, 0, 0.0) == 2  # no fewer than the bound
    assert run(Scaler(0, 3), 0, 120, 2, 2, 0.0) == 2  # both have work


def test_it_does_not_flap() -> None:
    """A load that two replicas carry and one does not: it stays at two."""
    scaler, replicas, changes = Scaler(1, 4), 1, 0
    for step in range(4 * 600):
        busy = min(replicas, 2)  # work for 1.4 replicas, in bursts
        wait = 1.0 if replicas < 2 else 0.0
        wanted = scaler.look(step / 4, replicas=replicas, busy=busy if step % 10 < 8 else 1,
                             oldest_wait=wait)  # fmt: skip
        changes += wanted != replicas
        replicas = wanted
    assert (replicas, changes) == (2, 1)
