"""Which tokens an engine reads next of sequences that begin alike: a tree, in passes.

Sequences are read in lexicographic order, so that one shares with the one before it all that it
shares with any. Between passes the keys and values of the last sequence alone are held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openmaas.runtimes.base import SampledToken

PASS_TOKENS = 256  # of one pass: more gain nothing on CPUs, and others wait so long
_TURN = 8  # passes in a row for sequences of one salt where others wait, too


@dataclass
class Sequence:
    """``tokens[start:]`` are to be scored, ``start`` ≥ 1."""

    id: int
    tokens: list[int]
    start: int
    alternatives: int
    salt: str  # sequences with another share nothing with it
    scored: list[SampledToken] = field(default_factory=list)
    asked: int = 0  # scored tokens that passes so far have computed
    shared: int = 0  # of its beginning, read for another sequence


@dataclass
class Pass:
    """Tokens to compute, which of those before them each sees, and whose logits are wanted."""

    kept: list[int]  # rows that the KV cache keeps of the last pass: first those it had kept
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    ways: list[list[int]] = field(default_factory=list)  # of each token: the columns that it sees
    rows: list[int] = field(default_factory=list)  # tokens of this pass whose logits are wanted …
    wanted: list[tuple[Sequence, int]] = field(default_factory=list)  # … for whom and which token

    @property
    def sees(self) -> NDArray[np.bool_]:
        """``tokens × (kept + tokens)``"""
        mask = np.zeros((len(self.tokens), len(self.kept) + len(self.tokens)), np.bool_)
        for row, way in enumerate(self.ways):
            mask[row, way] = True
        return mask


class Tree:
    """Sequences that wait to be read."""

    def __init__(self) -> None:
        self._waiting: dict[int, Sequence] = {}
        self._ended: list[Sequence] = []
        self._salt: str | None = None  # of the last pass …
        self._passes = 0  # … how many in a row were its …
        self._between = True  # … and whether the last ended a sequence
        self._held: list[int] = []  # tokens whose keys and values the engine has …
        self._columns: list[int] = []  # … and where in what the last pass left

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, sequence: Sequence) -> None:
        self._waiting[sequence.id] = sequence

    def remove(self, id: int) -> None:
        self._waiting.pop(id, None)

    def ended(self) -> list[Sequence]:
        """Sequences that the last pass completed."""
        ended, self._ended = self._ended, []
        return ended

    def next(self) -> Pass | None:
        """The next pass, of the salt that has waited longest; ``None``: nothing waits."""
        if not self._waiting:
            return None
        salts = [sequence.salt for sequence in self._waiting.values()]
        # A turn ends with a sequence: one that loses what was read of it may never be done.
        over = self._passes >= _TURN and self._between
        others = [salt for salt in salts if salt != self._salt]
        if others and (over or self._salt not in salts):
            self._salt, self._held, self._columns = others[0], [], []
            self._passes = 0
        self._passes += 1
        mine = [one for one in self._waiting.values() if one.salt == self._salt]
        first = min(mine, key=lambda one: (-_alike(self._held, one.tokens), one.tokens))
        reused = min(_alike(self._held, first.tokens), first.start - 1 + first.asked)
        made = Pass(kept=self._columns[:reused])
        way, before = list(range(reused)), self._held[:reused]
        for sequence in _from(first, mine):
            if len(made.tokens) >= PASS_TOKENS:
                break
            before, way = self._read(made, sequence, before, way)
            if sequence.start + sequence.asked == len(sequence.tokens):
                del self._waiting[sequence.id]
                self._ended.append(sequence)
        self._between = bool(self._ended)
        self._held, self._columns = before, way
        return made

    @staticmethod
    def _read(
        made: Pass, sequence: Sequence, before: list[int], way: list[int]
    ) -> tuple[list[int], list[int]]:
        """Adds a sequence to a pass, or as much as there is room for. ``way``: where the tokens
        ``before`` it are."""
        tokens, kept = sequence.tokens, len(made.kept)
        at = min(_alike(before, tokens), len(tokens) - 1)
        wanted = sequence.start - 1 + sequence.asked
        # Logits of this pass serve this sequence, too; those of an earlier one are gone.
        if at > wanted and way[wanted] < kept:
            at = wanted
        sequence.shared = max(sequence.shared, min(at, sequence.start - 1))
        way = way[:at]
        for place in range(wanted, at):
            made.rows.append(way[place] - kept)
            made.wanted.append((sequence, tokens[place + 1]))
            sequence.asked += 1
        end = min(len(tokens) - 1, at + PASS_TOKENS - len(made.tokens))
        for place in range(at, end):
            way = [*way, kept + len(made.tokens)]
            made.tokens.append(tokens[place])
            made.positions.append(place)
            made.ways.append(way)
            if place >= wanted:
                made.rows.append(way[-1] - kept)
                made.wanted.append((sequence, tokens[place + 1]))
                sequence.asked += 1
        return tokens[:end], way


def _from(first: Sequence, sequences: list[Sequence]) -> list[Sequence]:
    """All in lexicographic order, beginning with the first and going round."""
    ordered = sorted(sequences, key=lambda one: one.tokens)
    place = next(at for at, one in enumerate(ordered) if one is first)
    return ordered[place:] + ordered[:place]


def _alike(a: list[int], b: list[int]) -> int:
    """Length of what two begin with."""
    count = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        count += 1
    return count
