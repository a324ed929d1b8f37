"""One text on its way out, and an account of what a model made up in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from openmaas.redaction.finder import Finder
from openmaas.redaction.outgoing import Outgoing
from openmaas.redaction.policy import Action
from openmaas.redaction.vault import Vault

Tell = Callable[[Counter[str]], None]


class Treated:
    """
    Args:
        json: the text is written JSON, in which what is put back is escaped.
        tell: is told of kinds as they are found.
    """

    def __init__(
        self, vault: Vault, finder: Finder, action: Action, tell: Tell, *, json: bool
    ) -> None:
        self._outgoing = Outgoing(vault, finder, action, _escaped if json else str)
        self._tell = tell
        self._told: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Characters of what was fed that have not come out yet."""
        return self._outgoing.held

    def feed(self, piece: str) -> str:
        """What may be told now.

        Raises:
            PersonalData: a model made some up, and the policy refuses them.
        """
        try:
            return self._outgoing.feed(piece)
        finally:
            self._count()

    def end(self) -> str:
        """The rest.

        Raises:
            PersonalData: as ``feed``.
        """
        try:
            return self._outgoing.end()
        finally:
            self._count()

    def _count(self) -> None:
        found = self._outgoing.found
        if found != self._told:
            self._tell(found - self._told)
            self._told = Counter(found)


def _escaped(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]
