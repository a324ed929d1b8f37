"""Words near a place in a text."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_]+(?:[.'-][^\W\d_]+)*")
_PARTS = re.compile("[.'-]")
_ARABIC, _JOINED = "\u0600", "\u0e00"  # from here on: Arabic letters; scripts without spaces
_PREFIXES = "ولبفك"  # Arabic words of one letter, written with what follows


class Near:
    """A stretch of a text, and its words."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.start = max(0, start)
        self.text = text[self.start : end].lower()
        self.words: dict[str, int] = {}  # and the place of the last of each
        for found in _WORD.finditer(self.text):
            word = found[0]
            self.words[word] = found.start()
            if word[0] >= _ARABIC:
                # And, to, by …: one letter; to the: two, in the place of the article's.
                if word[0] in _PREFIXES:
                    self.words[word[1:]] = found.start()
                if word.startswith("لل"):
                    self.words[f"ال{word[2:]}"] = found.start()
            elif not word.isalpha():
                self.words.update(dict.fromkeys(_PARTS.split(word), found.start()))


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

    def are(self, near: Near) -> bool:
        """Whether any of them is there."""
        return not self._words.isdisjoint(near.words) or any(
            phrase in near.text for phrase in self._phrases
        )

    def last(self, near: Near) -> int:
        """Where the last of them is; -1: there is none."""
        words = (near.words[word] for word in self._words.intersection(near.words))
        phrases = (near.text.rfind(phrase) for phrase in self._phrases)
        return max(max(words, default=-1), max(phrases, default=-1))

    def within(self, text: str, start: int, end: int) -> bool:
        """Whether any of them is between ``start`` and ``end``."""
        return self.are(Near(text, start, end))


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
