"""Words near a place in a text."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_]+(?:[.'-][^\W\d_]+)*")
_PARTS = re.compile("[.'-]")
_ARABIC, _JOINED = "\u0600", "\u0e00"  # from here on: Arabic letters; scripts without spaces
_PREFIXES = "ولبفك"  # Arabic words of one letter, written with what follows


class Cues:
    """Words in any case: whole ones in scripts that put spaces between words.

    Args:
        several: words with spaces between them; an underscore stands for a space or a hyphen.
    """

    def __init__(self, *several: str) -> None:
        every = {one.lower() for some in several for one in some.split()}
        plain = {one.replace("_", "-") for one in every}
        self._words = frozenset(one.strip(".") for one in plain if one[0] < _JOINED)
        phrases = {one.replace("_", " ") for one in every if "_" in one}
        self._phrases = tuple(phrases | {one for one in every if one[0] >= _JOINED})

    def last(self, text: str, start: int, end: int) -> int:
        """Where the last of them between ``start`` and ``end`` is; -1: there is none."""
        start = max(0, start)
        window = text[start:end].lower()
        place = -1
        for found in _WORD.finditer(window):
            if self._has(found[0]):
                place = found.start()
        for phrase in self._phrases:
            place = max(place, window.rfind(phrase))
        return place if place < 0 else start + place

    def within(self, text: str, start: int, end: int) -> bool:
        return self.last(text, start, end) >= 0

    def before(self, text: str, at: int, reach: int = 40) -> bool:
        """Whether the ``reach`` characters before ``at`` have any."""
        return self.last(text, at - reach, at) >= 0

    def _has(self, word: str) -> bool:
        known = self._words
        if word in known:
            return True
        if word[0] >= _ARABIC:
            # And, to, by …: one letter; to the: two, in the place of the article's.
            return (word[0] in _PREFIXES and word[1:] in known) or (
                word.startswith("لل") and f"ال{word[2:]}" in known
            )
        return not word.isalpha() and any(part in known for part in _PARTS.split(word))


_DIGITS = re.compile(r"\d+")


def has_digit(text: str) -> bool:
    return _DIGITS.search(text) is not None


def around_digits(text: str, reach: int) -> list[tuple[int, int]]:
    """Stretches of ``text`` that are no farther than ``reach`` characters from a digit: all that
    slow expressions need look at, where what they find has one."""
    stretches: list[tuple[int, int]] = []
    for found in _DIGITS.finditer(text):
        start, end = max(0, found.start() - reach), found.end() + reach
        if stretches and start <= stretches[-1][1]:
            stretches[-1] = stretches[-1][0], end
        else:
            stretches.append((start, end))
    return stretches
