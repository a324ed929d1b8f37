"""What may be told of what was found: kinds and numbers, never the texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from openmaas.redaction.entity import Entity


def counted(entities: Iterable[Entity]) -> Counter[str]:
    """How many there are of each kind."""
    return Counter(one.kind for one in entities)
