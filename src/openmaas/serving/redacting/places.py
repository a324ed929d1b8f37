"""Places in a text whose entities were replaced, as places in the text that was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from openmaas.inference import Span
from openmaas.redaction.entity import Entity
from openmaas.redaction.vault import Vault


class Replaced(NamedTuple):
    """A placeholder, and what it stands in place of."""

    start: int  # characters, in the text that the model read
    end: int
    given_start: int  # in the text that was given
    given_end: int


class Places:
    """Of one text.

    Args:
        hidden: the text with placeholders.
        vault: that made them.
        entities: that they are in the place of; a placeholder that stands for none is as long as
            what it stands for.
    """

    def __init__(self, hidden: str, vault: Vault, entities: Sequence[Entity] = ()) -> None:
        self.replaced: list[Replaced] = []
        ends = {one.start: one.end for one in entities}
        shift = 0
        for start, end, placeholder in vault.reader.read(hidden):
            thing = vault.thing(placeholder)
            if thing is not None:
                given = start - shift
                given_end = ends.get(given, given + len(thing))
                self.replaced.append(Replaced(start, end, given, given_end))
                shift = end - given_end

    def given(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the given text that one of the hidden text stands for: a placeholder that
        is in it only in part is in it whole."""
        return self._one(start, last=False), self._one(end, last=True)

    def spans(self, spans: Sequence[Span]) -> list[Span]:
        """A tagger's, none over another: of those that share a placeholder the first."""
        made: list[Span] = []
        for span in spans:
            start, end = self.given(span.start, span.end)
            if not made or start >= made[-1].end:
                made.append(msgspec.structs.replace(span, start=start, end=end))
        return made

    def _one(self, at: int, *, last: bool) -> int:
        shift = 0
        for one in self.replaced:
            if at < one.start or (last and at == one.start):
                break
            if at < one.end or (last and at == one.end):
                return one.given_end if last else one.given_start
            shift = one.given_end - one.end
        return at + shift
