"""Of entities that overlap, which ones hold."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from openmaas.redaction.entity import CHECKED, Entity

_PROSE = frozenset({"person", "address"})
_LEAST = 3  # letters and digits that a rest must have to be worth hiding


def merged(text: str, entities: Iterable[Entity]) -> list[Entity]:
    """Sorted and free of overlaps: what has right check digits beats what has a form, which beats
    names and addresses; of equals the longer holds, then the former. Of what loses, the stretches
    that stick out of the winners hold all the same: an address that meets a number is still one."""
    kept: list[Entity] = []
    together: list[Entity] = []  # a chain of overlaps
    end = -1
    for one in sorted(entities, key=lambda one: one.start):
        if one.start >= end:
            kept += _winners(text, together)
            together = []
        together.append(one)
        end = max(end, one.end)
    return kept + _winners(text, together)


def _winners(text: str, entities: list[Entity]) -> list[Entity]:
    if len(entities) < 2:
        return entities
    kept: list[Entity] = []
    starts: list[int] = []

    def keep(one: Entity) -> None:
        at = bisect_right(starts, one.start)
        kept.insert(at, one)
        starts.insert(at, one.start)

    for one in sorted(entities, key=_order):
        rests = _outside(one, kept, starts)
        if rests == [(one.start, one.end)]:
            keep(one)
        else:
            for start, end in rests:
                trimmed = _trimmed(text, Entity(start, end, one.kind, one.score))
                if trimmed is not None:
                    keep(trimmed)
    return kept


def _order(one: Entity) -> tuple[int, int, int]:
    rank = 2 if one.kind in _PROSE else 0 if one.score >= CHECKED else 1
    return rank, one.start - one.end, one.start


def _outside(one: Entity, kept: list[Entity], starts: list[int]) -> list[tuple[int, int]]:
    """The stretches of it that nothing kept covers."""
    rests = []
    at = bisect_right(starts, one.start)
    if at and kept[at - 1].end > one.start:
        at -= 1
    start = one.start
    while at < len(kept) and kept[at].start < one.end:
        if kept[at].start > start:
            rests.append((start, kept[at].start))
        start = max(start, kept[at].end)
        at += 1
    if start < one.end:
        rests.append((start, one.end))
    return rests


def _trimmed(text: str, one: Entity) -> Entity | None:
    """Without what is neither letter nor digit at its ends."""
    start, end = one.start, one.end
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    return Entity(start, end, one.kind, one.score) if end - start >= _LEAST else None
