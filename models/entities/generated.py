"""Labelled texts made of the sentences of ``prose`` and the names of ``names``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import prose
from names import Names

PERSON, ADDRESS, ORGANISATION = "PERSON", "ADDRESS", "ORGANISATION"


class Labelled(NamedTuple):
    """A text, and (start, end, label) in characters of what is in it. Characters of ``unknown``
    (start, end) may be anything, and teach nothing."""

    text: str
    spans: list[tuple[int, int, str]]
    unknown: Sequence[tuple[int, int]] = ()


class Builder:
    """Appends to a text, and remembers where its spans are."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[tuple[int, int, str]] = []
        self.unknown: list[tuple[int, int]] = []

    def add(self, text: str, label: str | None = None) -> None:
        if label is not None:
            self.spans.append((len(self.text), len(self.text) + len(text), label))
        self.text += text

    def join(self, other: Labelled, between: str) -> None:
        start = len(self.text) + len(between)
        self.text += between + other.text
        self.spans += [(first + start, end + start, label) for first, end, label in other.spans]
        self.unknown += [(first + start, end + start) for first, end in other.unknown]

    def done(self) -> Labelled:
        return Labelled(self.text, self.spans, self.unknown)


def frames(text: str) -> list[str]:
    return [line.replace("\\n", "\n") for line in text.strip().split("\n")]


def fill(frame: str, names: Names) -> Labelled:
    """A sentence with every gap filled."""
    made = Builder()
    for part in re.split(r"(\{[a-z]\})", frame):
        if re.fullmatch(r"\{[a-z]\}", part):
            for text, label in _gap(part[1], names):
                made.add(text, label)
        else:
            made.add(part)
    return made.done()


def _gap(kind: str, names: Names) -> list[tuple[str, str | None]]:
    chance = names.random
    if kind == "p":
        title, name = names.person()
        return [(title, None), (name, PERSON)]
    if kind == "f":
        return [(names.first(), PERSON)]
    if kind == "l":
        return [(chance.choice(["Mr", "Mrs", "Ms", "Dr", "Miss"]) + " ", None),
                (names.last(), PERSON)]  # fmt: skip
    if kind == "a":
        return [(names.address(), ADDRESS)]
    if kind == "o":
        invented = chance.random() < 0.6
        return [(names.firm() if invented else chance.choice(prose.FIRMS), ORGANISATION)]
    if kind == "c":
        return [(chance.choice(prose.CITIES) if chance.random() < 0.7 else names.city(), None)]
    if kind == "w":
        return [(chance.choice(prose.COUNTRIES), None)]
    if kind == "b":
        return [(chance.choice(prose.PRODUCTS), None)]
    if kind == "x":
        return [(chance.choice(prose.TITLES_OF_WORKS), None)]
    return [(_date(names) if kind == "d" else _number(names), None)]


def _date(names: Names) -> str:
    chance = names.random
    month, year = chance.choice(prose.MONTHS), chance.randint(1950, 2026)
    return chance.choice(
        [month, f"{month} {year}", f"{chance.randint(1, 28)} {month} {year}", str(year),
         chance.choice(prose.DAYS), f"{chance.randint(1, 28)}/{chance.randint(1, 12)}/{year}",
         f"{month} {chance.randint(1, 28)}, {year}"]
    )  # fmt: skip


def _number(names: Names) -> str:
    chance = names.random
    return chance.choice(
        [str(chance.randint(2, 99)), str(chance.randint(100, 99999)), f"{chance.random() * 90:.1f}",
         f"+{chance.randint(1, 99)} {chance.randint(100, 999)} {chance.randint(100000, 9999999)}",
         f"{chance.choice('ABKXZ')}{chance.randint(1000, 99999)}-{chance.randint(1, 99)}"]
    )  # fmt: skip
