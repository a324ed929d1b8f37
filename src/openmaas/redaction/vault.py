"""What was hidden of one request or conversation, and how it is put back."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from openmaas.errors import PayloadTooLarge
from openmaas.redaction.entity import Entity
from openmaas.redaction.placeholders import LITERAL, Placeholder, Reader, label, spellings
from openmaas.redaction.policy import KINDS

MOST_ENTRIES, MOST_BYTES = 20_000, 4 << 20
_LABELS = frozenset(label(kind) for kind in (*KINDS, LITERAL))
_NUMERIC = frozenset({"phone", "credit_card", "iban", "national_id", "mac_address"})
_SIGNS = re.compile(r"[\s().\-/:]+")


class Vault:
    """The mapping of one request or conversation: in memory alone, and in no error's message. Not
    for several threads at once.

    Attributes:
        hidden: how many stretches were hidden, by kind.
    """

    def __init__(self, entries: int = MOST_ENTRIES, size: int = MOST_BYTES) -> None:
        """
        Args:
            entries: different things that may be hidden.
            size: bytes that all of them may have together.
        """
        self.hidden: Counter[str] = Counter()
        self._entries, self._size, self._used = entries, size, 0
        self._placeholders: dict[tuple[str, str], Placeholder] = {}
        self._things: dict[Placeholder, str] = {}
        self._spelled: set[str] = set()  # of placeholders that stand for something
        self._taken: set[str] = set()  # that texts have without meaning any of ours
        self._counts: Counter[str] = Counter()
        self._own: frozenset[str] = frozenset()  # labels of the tenant's own
        self._reader = Reader(frozenset())

    def __len__(self) -> int:
        return len(self._things)

    @property
    def reader(self) -> Reader:
        """Of all placeholders that may stand for something; of none, where nothing is hidden."""
        return self._reader

    def thing(self, placeholder: Placeholder) -> str | None:
        """What it stands for; ``None``: nothing."""
        return self._things.get(placeholder)

    def knows(self, text: str, kind: str) -> bool:
        """Whether it is something that was hidden here."""
        return (kind, _plain(text, kind)) in self._placeholders

    def avoid(self, text: str) -> None:
        """No placeholder that occurs in ``text`` is given to anything from now on. To be told of
        every text of a request before the first is hidden."""
        self._taken.update(
            spelled for _, _, spelled in spellings(text) if spelled not in self._spelled
        )

    def hide(self, text: str, entities: Sequence[Entity]) -> str:
        """``text`` with placeholders in the place of ``entities``.

        A caller's own text that reads as a placeholder of ours is hidden too: it would come back
        as something else.

        Args:
            entities: sorted, not overlapping.

        Raises:
            PayloadTooLarge: the mapping has no more room.
        """
        self.avoid(text)
        own = [
            Entity(start, end, LITERAL, 1.0)
            for start, end, spelled in spellings(text)
            if spelled in self._spelled
            and not any(one.start < end and start < one.end for one in entities)
        ]
        parts, last = [], 0
        for one in sorted([*entities, *own], key=lambda one: one.start) if own else entities:
            parts += [text[last : one.start], self._hidden(text[one.start : one.end], one.kind)]
            last = one.end
        return "".join([*parts, text[last:]])

    def restore(self, text: str, escape: Callable[[str], str] = str) -> str:
        """``text`` with the real things in the place of placeholders, in any of the forms that
        ``placeholders`` reads. A thing that was written in several ways comes back in the first.

        Args:
            escape: of what is put in, where the text is JSON, say.
        """
        parts, last = [], 0
        for start, end, one in self._reader.read(text):
            thing = self._things.get(one)
            if thing is not None:
                parts += [text[last:start], escape(thing)]
                last = end
        return "".join([*parts, text[last:]])

    def _hidden(self, thing: str, kind: str) -> str:
        key = kind, _plain(thing, kind)
        placeholder = self._placeholders.get(key)
        if placeholder is None:
            self._used += len(thing.encode(errors="surrogatepass"))
            if len(self._things) >= self._entries or self._used > self._size:
                raise PayloadTooLarge("It has more personal data than can be hidden at once.")
            placeholder = self._placeholders[key] = self._new(label(kind))
            self._things[placeholder] = thing
        if kind != LITERAL:
            self.hidden[kind] += 1
        return str(placeholder)

    def _new(self, name: str) -> Placeholder:
        if not self._things or name not in _LABELS | self._own:
            self._own |= {name} - _LABELS
            # Of all kinds at once: one expression for nearly all vaults, made once.
            self._reader = Reader(_LABELS | self._own)
        while True:
            self._counts[name] += 1
            made = Placeholder(name, self._counts[name])
            if made.spelled not in self._taken:
                self._spelled.add(made.spelled)
                return made


def _plain(text: str, kind: str) -> str:
    """What is the same for the same thing, however it is written."""
    if kind == LITERAL:
        return text
    plain = unicodedata.normalize("NFKC", text).casefold()
    if kind in _NUMERIC:
        return _SIGNS.sub("", plain)
    return " ".join(plain.split())
