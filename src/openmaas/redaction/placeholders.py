"""What stands for something hidden, ``<PERSON_1>``, and how models and translators change it.

Read are, in any case, with a space, a hyphen, a point or nothing in the place of ``_``, and with
spaces at the inside of the brackets: ``<…>``, ``‹…›``, ``«…»``, ``〈…〉``, ``《…》``,
``<…>`` of full width, and ``<…>`` as HTML, JSON and Markdown escape it; and, exactly as it was
written but for the brackets, ``PERSON_1``, within no word. Numbers may have any script's digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import regex

LITERAL = "literal"
"""Kind of a caller's own text that reads as a placeholder."""

_PAIRS = "<> ‹› «» 〈〉 《》 ＜＞".split()
_OPEN = "(?:[" + "".join(pair[0] for pair in _PAIRS) + r"]|&lt;|\\u003[cC]|\\<)"
_CLOSE = "(?:[" + "".join(pair[1] for pair in _PAIRS) + r"]|&gt;|\\u003[eE]|\\>)"
_SEPARATOR = r"(?:\\?_|[ .-])?"
_STARTS = "".join(pair[0] for pair in _PAIRS) + r"&\\"

_ANY = re.compile(
    rf"{_OPEN} {{0,2}}([A-Za-z][A-Za-z0-9_\\ .-]{{0,60}}?\d{{1,6}}) {{0,2}}{_CLOSE}"
    r"|(?<![A-Za-z0-9_])([A-Z][A-Z0-9_]{0,34}_[0-9]{1,6})(?![A-Za-z0-9_])"
)
_BETWEEN = re.compile(r"[\\_ .-]+")


class Placeholder(NamedTuple):
    label: str  # upper case
    number: int

    def __str__(self) -> str:
        return f"<{self.label}_{self.number}>"

    @property
    def spelled(self) -> str:
        """What any of its forms is without signs: ``PERSON1``."""
        return f"{self.label.replace('_', '')}{self.number}"


def label(kind: str) -> str:
    return kind.upper()


def spellings(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and ``spelled`` of all in ``text`` that reads as a placeholder of any label."""
    if "_" in text or any(sign in text for sign in _STARTS):
        for found in _ANY.finditer(text):
            inside = _BETWEEN.sub("", found[1] or found[2]).upper()
            yield found.start(), found.end(), "".join(map(_plain_digit, inside))


class Reader:
    """Reads the placeholders of some labels.

    Args:
        labels: of the placeholders that stand for something.
    """

    def __init__(self, labels: frozenset[str]) -> None:
        self._forms = _compiled(labels) if labels else None

    def read(self, text: str) -> list[tuple[int, int, Placeholder]]:
        """Start, end and placeholder, from the first."""
        return self.step(text, 0, final=True)[0]

    def step(
        self, text: str, since: int, *, final: bool
    ) -> tuple[list[tuple[int, int, Placeholder]], int]:
        """What was read from ``since`` on, and where what could still become one begins: the end
        where nothing could.

        Args:
            final: no more text follows.
        """
        found: list[tuple[int, int, Placeholder]] = []
        forms, at = self._forms, since
        while forms is not None and (begin := forms.begins.search(text, at)):
            start, is_bare = begin.start(), begin[0] == ""
            pattern = forms.bare if is_bare else forms.bracketed
            match = pattern.match(text, start, partial=not final)
            if match is None:
                at = start + 1
                continue
            # What has no bracket may have another digit yet.
            if match.partial or (is_bare and match.end() == len(text) and not final):
                return found, start
            number = "".join(map(_plain_digit, match["number"]))
            if not number.startswith("0"):
                name = forms.labels[_BETWEEN.sub("", match["label"]).upper()]
                found.append((start, match.end(), Placeholder(name, int(number))))
            at = match.end()
        return found, len(text)


class _Forms(NamedTuple):
    labels: dict[str, str]  # by what they are without signs
    begins: re.Pattern[str]  # the first character of a bracket, or before a bare label
    bracketed: regex.Pattern[str]
    bare: regex.Pattern[str]


@lru_cache(256)
def _compiled(labels: frozenset[str]) -> _Forms:
    names = sorted(labels, key=len, reverse=True)
    either = "|".join(name.replace("_", _SEPARATOR) for name in names)
    firsts = "".join(sorted({name[0] for name in names}))
    return _Forms(
        {_BETWEEN.sub("", name): name for name in names},
        re.compile(rf"[{_STARTS}]|(?<![A-Za-z0-9_])(?=[{firsts}])"),
        regex.compile(
            rf"{_OPEN} {{0,2}}(?P<label>(?i:{either})){_SEPARATOR}(?P<number>\d{{1,6}}) {{0,2}}"
            rf"{_CLOSE}"
        ),
        regex.compile(rf"(?P<label>{'|'.join(names)})_(?P<number>[0-9]{{1,6}})(?![A-Za-z0-9_])"),
    )


def _plain_digit(sign: str) -> str:
    return str(unicodedata.digit(sign, sign))
