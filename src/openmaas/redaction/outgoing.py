"""Answers on their way out: what was hidden is put back, what the model made up is treated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from openmaas.redaction.finder import Finder
from openmaas.redaction.policy import Action
from openmaas.redaction.vault import Vault


class Outgoing:
    def __init__(
        self,
        vault: Vault,
        finder: Finder | None,
        action: Action,
        escape: Callable[[str], str] = str,
    ) -> None:
        self.found: Counter[str] = Counter()
        self._vault, self._escape = vault, escape
        self._text = ""

    def feed(self, piece: str) -> str:
        self._text += piece
        return ""

    def end(self) -> str:
        return self._vault.restore(self._text, self._escape)
