"""Names of persons: by the words around them, and by lists of names."""

from __future__ import annotations

from collections.abc import Iterable

from openmaas.redaction.detectors.names_arabic import ArabicNames
from openmaas.redaction.detectors.names_chinese import ChineseNames
from openmaas.redaction.detectors.names_latin import LatinNames
from openmaas.redaction.detectors.words import ARABIC, HAN
from openmaas.redaction.entity import Entity
from openmaas.redaction.gazetteer import Gazetteer, gazetteer
from openmaas.redaction.policy import Kind


class Names:
    """
    Args:
        known: instead of the lists that are shipped.
    """

    kinds: tuple[Kind, ...] = ("person",)

    def __init__(self, known: Gazetteer | None = None) -> None:
        lists = known or gazetteer()
        self._latin, self._arabic = LatinNames(lists), ArabicNames(lists)
        self._chinese = ChineseNames()

    def find(self, text: str) -> Iterable[Entity]:
        yield from self._latin.find(text)
        if ARABIC.search(text):
            yield from self._arabic.find(text)
        if HAN.search(text):
            yield from self._chinese.find(text)
