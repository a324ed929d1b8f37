"""One form of digits, spaces and hyphens, so that detectors need know no other."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from openmaas.redaction.entity import Entity

# One character for one: places in the text stay what they are.
_ALIKE = (
    {chr(zero + n): str(n) for zero in (0x660, 0x6F0, 0x966, 0xFF10) for n in range(10)}
    | {chr(wide): chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)}
    | dict.fromkeys("\u00a0\u2007\u202f\u2009\u3000\u2002\u2003", " ")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63", "-")
    | dict.fromkeys("\u2018\u2019", "'")
)
_FOLDS = re.compile(f"[{''.join(_ALIKE)}]")
# Marks that are not seen, Arabic vowels and the dash that stretches Arabic words.
_UNSEEN = (
    "\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
    "\u0640\u064b-\u0652\u0670"
)
_VARIES = re.compile(f"[{_UNSEEN}]|[^\\W\\d_][\u0300-\u036f]+")
_MOST_MARKS = 8  # on one letter


class Folded:
    """A text as detectors read it."""

    def __init__(self, text: str) -> None:
        self.text, self._origin = text, None
        if not text.isascii():
            self.text = _FOLDS.sub(lambda found: _ALIKE[found[0]], text)
            if _VARIES.search(self.text):
                self.text, self._origin = _composed(self.text)

    def unfolded(self, entities: Iterable[Entity]) -> list[Entity]:
        """With places in the text that was given."""
        origin = self._origin
        if origin is None:
            return list(entities)
        return [Entity(origin[one.start], origin[one.end], one.kind, one.score) for one in entities]


def _composed(text: str) -> tuple[str, list[int]]:
    """The text without what is not seen, letters and their marks as one character where there is
    one, and the place each character comes from, and the end's."""
    parts: list[str] = []
    origin: list[int] = []
    last = 0
    for found in _VARIES.finditer(text):
        parts.append(text[last : found.start()])
        origin.extend(range(last, found.start()))
        last = found.end()
        composed = unicodedata.normalize("NFC", found[0][: 1 + _MOST_MARKS])
        if len(found[0]) > 1:
            parts.append(composed[0])
            origin.append(found.start())
    parts.append(text[last:])
    origin.extend(range(last, len(text) + 1))
    return "".join(parts), origin
