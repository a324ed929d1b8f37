"""One text on its way out, and an account of what a model made up in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from openmaas.errors import PersonalData
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
        self._action = action
        self._tell = tell
        self._seen: Counter[str] = Counter()
        self._told = 0

    @property
    def held(self) -> bool:
        """Whether something of what was fed has not come out yet."""
        return self._outgoing.held > 0

    def feed(self, piece: str) -> str:
        """What may be told now.

        Raises:
            PersonalData: a model made some up, and the policy refuses them.
        """
        text = self._outgoing.feed(piece)
        self._count()
        return text

    def end(self) -> str:
        """The rest.

        Raises:
            PersonalData: as ``feed``.
        """
        text = self._outgoing.end()
        self._count()
        return text

    def _count(self) -> None:
        found = self._outgoing.found
        if found.total() == self._told:
            return
        kinds = found - self._seen
        self._seen, self._told = Counter(found), found.total()
        self._tell(kinds)
        if self._action == "block":
            raise PersonalData(
                "the answer has personal data that was not in the request, which this key's "
                f"redaction policy refuses: {', '.join(sorted(kinds))}"
            )


def _escaped(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]
