"""Answers on their way out: what was hidden is put back, what the model made up is treated."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from openmaas.errors import PersonalData
from openmaas.redaction.entity import Entity
from openmaas.redaction.finder import Finder
from openmaas.redaction.placeholders import label
from openmaas.redaction.policy import Action
from openmaas.redaction.segments import LONGEST_LOOK, Segmenter
from openmaas.redaction.vault import Vault

_THING = "\ufffc"  # stands for what was put back, while the text around it is looked at
_CONTEXT = 80  # characters before a run that are looked at with it
_LEAST = 2  # letters and digits of what is worth a mark
_MOST_MARKS = 10_000  # different things that are numbered in one answer


class Outgoing:
    """One answer, in pieces cut anywhere. The pieces given back, joined, do not depend on the cuts.

    Held back is only what could be the beginning of a placeholder (80 characters at most, and only
    where something was hidden) and, for ``hide`` and ``block``, an unfinished word or run of words
    that an entity could be in (``segments``: 256 characters, of one long word or private key
    4,096). For ``report`` what the model made up is counted, and nothing waits for it.

    Attributes:
        found: what the model made up, by kind.
    """

    def __init__(
        self,
        vault: Vault,
        finder: Finder | None,
        action: Action,
        escape: Callable[[str], str] = str,
    ) -> None:
        """
        Args:
            finder: looks for what the model made up; ``None``: nothing does.
            escape: of what is put back, where the answer is JSON, say.
        """
        self.found: Counter[str] = Counter()
        self._restoring = _Restoring(vault, escape)
        self._made_up: _MadeUp | None = None
        if finder is not None and action != "off":
            self._made_up = _MadeUp(vault, finder, action, self.found)
        self._waits = action in ("hide", "block")

    @property
    def held(self) -> int:
        """Characters that were fed and have not come out yet."""
        return self._restoring.held + (self._made_up.held if self._made_up is not None else 0)

    def feed(self, piece: str) -> str:
        """What can be sent now.

        Raises:
            PersonalData: the model made some up, and the policy is ``block``.
            InvalidRequest: a tenant's own expression took too long.
        """
        return self._treated(*self._restoring.feed(piece), final=False)

    def end(self) -> str:
        """What was held back, once no more text comes. Raises as ``feed`` does."""
        return self._treated(*self._restoring.end(), final=True)

    def _treated(self, text: str, things: list[str], *, final: bool) -> str:
        if self._made_up is None:
            return _filled(text, deque(things))
        treated = self._made_up.feed(text, things, final=final)
        return treated if self._waits else _filled(text, deque(things))


class _Restoring:
    """Finds placeholders: in their place is ``_THING``, and what they stand for beside the text."""

    def __init__(self, vault: Vault, escape: Callable[[str], str]) -> None:
        self._vault, self._escape = vault, escape
        self._held, self._before = "", ""  # the latter: the character before what is held

    @property
    def held(self) -> int:
        return len(self._held)

    def feed(self, piece: str) -> tuple[str, list[str]]:
        return self._read(piece, final=False)

    def end(self) -> tuple[str, list[str]]:
        return self._read("", final=True)

    def _read(self, piece: str, *, final: bool) -> tuple[str, list[str]]:
        text = self._before + self._held + piece
        last = len(self._before)
        found, safe = self._vault.reader.step(text, last, final=final)
        parts, things = [], []
        for start, end, placeholder in found:
            thing = self._vault.thing(placeholder)
            if thing is not None:
                between = text[last:start]
                things += [_THING] * between.count(_THING) + [self._escape(thing)]
                parts += [between, _THING]
                last = end
        rest = text[last:safe]
        things += [_THING] * rest.count(_THING)
        self._held, self._before = text[safe:], text[:safe][-1:]
        return "".join([*parts, rest]), things


class _MadeUp:
    """Finds what the model made up, and marks it."""

    def __init__(self, vault: Vault, finder: Finder, action: Action, found: Counter[str]) -> None:
        self._vault, self._finder, self._action, self._found = vault, finder, action, found
        self._segmenter = Segmenter(finder.words, finder.expressions)
        self._held, self._context = "", ""
        self._things: deque[str] = deque()
        self._marks: dict[tuple[str, str], int] = {}
        self._numbers: Counter[str] = Counter()

    @property
    def held(self) -> int:
        return len(self._held)

    def feed(self, text: str, things: list[str], *, final: bool) -> str:
        self._held += text
        self._things.extend(things)
        parts = []
        at = 0
        while at < len(self._held):
            rest = self._held[at : at + LONGEST_LOOK]
            is_rest = at + LONGEST_LOOK >= len(self._held)
            segment = self._segmenter.next(rest, final=final and is_rest)
            if segment is None:
                break
            end = segment.end
            if segment.is_run:
                found = self._entities(rest[: segment.seen])
                end = _end(segment.end, segment.is_cut, found)
                parts.append(self._marked(rest[:end], found))
            else:
                parts.append(rest[:end])
            self._context = (self._context + rest[:end])[-_CONTEXT:]
            at += end
        self._held = self._held[at:]
        return _filled("".join(parts), self._things)

    def _entities(self, text: str) -> list[Entity]:
        """Of the text behind the context."""
        shift = len(self._context)
        return [
            Entity(max(one.start - shift, 0), one.end - shift, one.kind, one.score)
            for one in self._finder.find(self._context + text)
            if one.end > shift
        ]

    def _marked(self, text: str, entities: list[Entity]) -> str:
        parts, last = [], 0
        for one in entities:
            for start, end in _between_things(text, one.start, min(one.end, len(text))):
                thing = text[start:end]
                if sum(map(str.isalnum, thing)) < _LEAST or self._vault.knows(thing, one.kind):
                    continue
                self._found[one.kind] += 1
                if self._action == "block":
                    raise PersonalData(f"The answer has personal data of the kind {one.kind}.")
                parts += [text[last:start], self._mark(thing, one.kind)]
                last = end
        return "".join([*parts, text[last:]])

    def _mark(self, thing: str, kind: str) -> str:
        key = kind, " ".join(thing.casefold().split())
        number = self._marks.get(key)
        if number is None:
            self._numbers[kind] += 1
            number = self._numbers[kind]
            if len(self._marks) < _MOST_MARKS:
                self._marks[key] = number
        return f"[{label(kind)}_{number}]"


def _end(end: int, is_cut: bool, found: list[Entity]) -> int:
    """Where a segment ends that cuts no entity: behind one that reaches out of a whole run; of a
    run that goes on, before one, which is then looked at again with what follows it."""
    for one in found:
        if one.start < end < one.end:
            return one.start if is_cut and one.start > 0 else one.end
    return end


def _between_things(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The stretches of an entity that the caller's own things do not interrupt."""
    stretches = []
    while (at := text.find(_THING, start, end)) >= 0:
        stretches.append((start, at))
        start = at + 1
    return [(a, b) for a, b in [*stretches, (start, end)] if a < b]


def _filled(text: str, things: deque[str]) -> str:
    """``text`` with the next things in the place of ``_THING``."""
    if _THING not in text:
        return text
    first, *others = text.split(_THING)
    return first + "".join(things.popleft() + other for other in others)
