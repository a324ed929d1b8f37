"""Real English sentences of varying length, from texts that come with Python itself."""

from __future__ import annotations

import random
import re
from pydoc_data.topics import topics


def sentences(count: int) -> list[str]:
    """So many sentences of 4 to 60 words of Python's language reference, shuffled, seeded."""
    found = []
    for name in sorted(topics):
        for piece in re.split(r"(?<=[.?!])\s+|\n\n", topics[name]):
            text = " ".join(piece.split())
            if re.match(r"[A-Z][a-z' ,]+ .*[.?!]$", text) and 4 <= len(text.split()) <= 60:
                found.append(text)
    chosen = sorted(set(found))
    random.Random(1).shuffle(chosen)
    if len(chosen) < count:
        raise ValueError(f"there are {len(chosen)} sentences")
    return chosen[:count]
