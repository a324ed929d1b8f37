"""Words near a place in a text."""

from __future__ import annotations

import re


_LATIN = "A-Za-z\u00c0-\u052f"


def words(*several: str) -> re.Pattern[str]:
    """Any of the words in any case: whole ones in scripts that put spaces between words.

    Args:
        several: words with spaces between them; an underscore stands for a space or a hyphen.
    """
    every = sorted({one for some in several for one in some.split()}, key=len, reverse=True)
    plain = [re.escape(one).replace("_", "[ _-]?") for one in every]
    spaced = [one for one in plain if one[0].isascii() or "\u00c0" <= one[0] < "\u0600"]
    joined = [one for one in plain if one not in spaced]
    # Chinese stands beside Latin words without a space.
    parts = [rf"(?<![{_LATIN}\d])(?:{'|'.join(spaced)})(?![{_LATIN}])"] if spaced else []
    return re.compile("|".join([*parts, *joined]), re.IGNORECASE)


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


def before(text: str, at: int, cue: re.Pattern[str], reach: int = 40) -> bool:
    """Whether the ``reach`` characters before ``at`` have ``cue``."""
    return cue.search(text, max(0, at - reach), at) is not None


def last(text: str, at: int, cue: re.Pattern[str], reach: int = 40) -> int:
    """Where the last ``cue`` of the ``reach`` characters before ``at`` is; -1: there is none."""
    places = [found.start() for found in cue.finditer(text, max(0, at - reach), at)]
    return places[-1] if places else -1


def after(text: str, at: int, cue: re.Pattern[str], reach: int = 24) -> bool:
    return cue.search(text, at, at + reach) is not None
