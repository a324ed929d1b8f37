"""What is found, and what finds it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from openmaas.redaction.policy import Kind

CHECKED, SHAPED, NAMED = 1.0, 0.8, 0.6
"""Scores: its check digits are right; it has the form, and words near it that say so where the
form alone is not telling; words around it or lists of names speak for it."""


class Entity(msgspec.Struct, frozen=True):
    """A stretch of a text.

    Attributes:
        start, end: in characters, the end not included.
        kind: one of ``KINDS``, or a tenant's own label.
        score: from 0 to 1.
    """

    start: int
    end: int
    kind: str
    score: float


class Detector(Protocol):
    """Finds one family of entities. Its time grows with the text's length and no faster."""

    kinds: tuple[Kind, ...]

    def find(self, text: str) -> Iterable[Entity]:
        """In any order, perhaps overlapping.

        Args:
            text: as ``folding.fold`` makes it.
        """
        ...
