"""Lists of names: given and family ones in Latin and Arabic script (``models/names/make.py``)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).with_name("names")


class Gazetteer(NamedTuple):
    """Attributes:
    given, family: names that are no common words of English.
    given_alone: of these, the ones that are given in several languages.
    given_words, family_words: that are.
    """

    given: frozenset[str]
    given_alone: frozenset[str]
    given_words: frozenset[str]
    family: frozenset[str]
    family_words: frozenset[str]
    arabic_given: frozenset[str]
    arabic_family: frozenset[str]


@cache
def gazetteer() -> Gazetteer:
    """Read once, when names are first looked for: about 40,000 words."""
    return Gazetteer(*(_read(f"{name}.txt") for name in Gazetteer._fields))


def _read(name: str) -> frozenset[str]:
    lines = (_FOLDER / name).read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))
