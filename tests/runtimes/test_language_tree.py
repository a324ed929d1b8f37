"""Sequences that begin alike are read as if each were alone, whatever order they come in."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from openmaas.runtimes import language_tree
from openmaas.runtimes.language_tree import Pass
from openmaas.runtimes.openvino_reading import Reader

VOCABULARY = 50


class Remembering:
    """A network whose logits depend on all tokens before and on their order, and nothing else."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self._rows: list[tuple[int, int]] = []  # (position, token) in its memory

    def __call__(self, chosen: Pass) -> NDArray[np.float32]:
        self.passes.append(len(chosen.tokens))
        kept = [self._rows[row] for row in chosen.kept]
        new = list(zip(chosen.positions, chosen.tokens, strict=True))
        self._rows = kept + new
        found, sees = [], chosen.sees
        for row in chosen.rows:
            seen = [self._rows[column] for column in np.flatnonzero(sees[row])]
            assert [position for position, _ in seen] == list(range(len(seen)))
            assert seen[-1] == new[row]
            found.append(logits([token for _, token in seen]))
        return np.array(found, np.float32).reshape(-1, VOCABULARY)


def logits(tokens: list[int]) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(repr(tokens).encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=VOCABULARY).astype(np.float32)


def expected(tokens: list[int], start: int) -> list[float]:
    rows = [logits(tokens[:at]) for at in range(start, len(tokens))]
    return [
        float(row[token] - np.log(np.exp(row).sum()))
        for row, token in zip(rows, tokens[start:], strict=True)
    ]


def drawn(generator: np.random.Generator, count: int) -> list[tuple[list[int], int]]:
    """Sequences of a few that begin alike, some of them equal, and where their scores begin."""
    stems = [generator.integers(0, 3, 40).tolist() for _ in range(3)]
    made = []
    for _ in range(count):
        stem = stems[generator.integers(3)][: generator.integers(1, 40)]
        tail = generator.integers(0, 3, generator.integers(1, 8)).tolist()
        tokens = stem + tail
        made.append((tokens, int(generator.integers(1, len(tokens)))))
    return made


@pytest.mark.parametrize("size", [1, 5, 64, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_each_is_as_if_it_were_alone(size: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_tree, "PASS_TOKENS", size)
    generator = np.random.default_rng(seed)
    network = Remembering()
    reader = Reader(network)
    asked = dict(enumerate(drawn(generator, 30)))
    waiting = list(asked)
    found: dict[int, list[float]] = {}
    while waiting or reader.busy():
        for id in waiting[:4]:  # newcomers while others are read
            tokens, start = asked[id]
            reader.add(id, tokens, start, id % 3, "ab"[id % 2])
        waiting = waiting[4:]
        for step in reader.step():
            assert step.id not in found
            assert [token.id for token in step.tokens] == asked[step.id][0][asked[step.id][1] :]
            assert {len(token.alternatives) for token in step.tokens} == {step.id % 3}
            found[step.id] = [token.logprob or 0.0 for token in step.tokens]
    for id, (tokens, start) in asked.items():
        assert found[id] == pytest.approx(expected(tokens, start), abs=1e-5)
    assert max(network.passes) <= size
    assert sum(network.passes) < sum(len(tokens) for tokens, _ in asked.values())


def test_the_conversation_of_several_answers_is_read_once() -> None:
    network = Remembering()
    reader = Reader(network)
    for id in range(5):
        reader.add(id, [*range(40), id, 7], 40, 0, "")
    steps = reader.step()
    assert not reader.busy()
    assert len(steps) == 5
    assert network.passes == [45]


def test_another_salt_shares_nothing_and_waits_for_no_more_than_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(language_tree, "PASS_TOKENS", 4)
    network = Remembering()
    reader = Reader(network)
    for id in range(20):
        reader.add(id, [id, *range(9)], 1, 0, "many")
    reader.add(99, [0, 1, 2], 1, 0, "one")
    order = []
    while reader.busy():
        order += [step.id for step in reader.step()]
    assert 99 in order[:5]
    assert sum(network.passes) >= 20 * 9 + 2


def test_what_is_cancelled_is_read_no_further() -> None:
    reader = Reader(Remembering())
    reader.add(1, [1, 2, 3], 1, 0, "")
    reader.cancel(1)
    reader.cancel(1)
    assert not reader.busy()
    assert reader.step() == []
