"""Personal data in the texts of a data set: replaced for good, counted or refused as it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from openmaas.errors import InvalidRequest
from openmaas.redaction.entity import Entity
from openmaas.redaction.finder import Finder, finder
from openmaas.redaction.policy import RedactionPolicy
from openmaas.redaction.vault import Vault

ENTRIES, BYTES = 2_000_000, 256 << 20  # different things that a data set may have hidden
NAMED = 20  # columns that a refusal names

Counts = dict[str, dict[str, int]]
"""Column → kind → rows in which it was found."""


class Hiding:
    """By one policy. A thing has one placeholder in all of a data set; what stands for what is
    forgotten with the process that reads it.

    Args:
        policy: ``None``: as one that is off.
    """

    def __init__(self, policy: RedactionPolicy | None = None) -> None:
        self.action = "off" if policy is None else policy.action
        self._finder: Finder | None = None
        if policy is not None and policy.action != "off":
            self._finder = finder(policy)
        self._vault = Vault(ENTRIES, BYTES)
        self._rows: dict[str, Counter[str]] = {}

    def avoid(self, array: Any) -> None:
        """No text of it is taken for a placeholder: to be told of all, before the first is hidden.

        Args:
            array: of Arrow's texts.
        """
        if self.action == "hide":
            for text in pc.unique(array.drop_null()).to_pylist():
                self._vault.avoid(text)

    def column(self, name: str, array: Any) -> Any:
        """Texts as they are to be kept.

        Args:
            array: of Arrow's texts.
        """
        if self._finder is None:
            return array
        counted = pc.value_counts(array.drop_null()).to_pylist()
        texts = {one["values"]: int(one["counts"]) for one in counted}
        changed = self._changed(name, texts)
        if not changed:
            return array
        return pa.array([changed.get(text, text) for text in array.to_pylist()], pa.string())

    def names(self, column: str, rows: Mapping[str, int]) -> list[str]:
        """Names of classes as they are to be kept, in order.

        Args:
            rows: of each name.

        Raises:
            InvalidRequest: two become one.
        """
        for name in rows if self.action == "hide" else ():
            self._vault.avoid(name)
        changed = self._changed(column, rows)
        made = [changed.get(name, name) for name in rows]
        if len(set(made)) < len(made):
            raise InvalidRequest(f"two classes of {column!r} are one where personal data is hidden")
        return made

    def told(self, text: str) -> str:
        """A text as a message may quote it."""
        if self._finder is None or self.action == "report":
            return text
        return self._vault.hide(text, self._finder.find(text))

    def found(self) -> Counts:
        """
        Raises:
            InvalidRequest: something was, and the policy is to refuse it.
        """
        counts = {name: dict(sorted(rows.items())) for name, rows in self._rows.items()}
        if self.action != "block" or not counts:
            return counts
        where = [
            f"{kind} in {rows} {'row' if rows == 1 else 'rows'} of {name!r}"
            for name, kinds in counts.items()
            for kind, rows in kinds.items()
        ]
        more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
        raise InvalidRequest(
            "the redaction policy of its owner refuses personal data: there is "
            f"{'; '.join(where[:NAMED])}{more}"
        )

    def _changed(self, column: str, rows: Mapping[str, int]) -> dict[str, str]:
        """Texts that become others, by what they were."""
        changed: dict[str, str] = {}
        if self._finder is None:
            return changed
        for text, count in rows.items():
            entities = self._finder.find(text)
            if not entities:
                continue
            kinds = self._rows.setdefault(column, Counter())
            for kind in _kinds(entities):
                kinds[kind] += count
            if self.action == "hide":
                changed[text] = self._vault.hide(text, entities)
        return changed


def _kinds(entities: Sequence[Entity]) -> Iterable[str]:
    return {one.kind for one in entities}
