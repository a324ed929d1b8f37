"""Postal addresses."""

from __future__ import annotations

from collections.abc import Iterable

from openmaas.redaction.entity import Entity
from openmaas.redaction.policy import Kind


class Addresses:
    kinds: tuple[Kind, ...] = ("address",)

    def find(self, text: str) -> Iterable[Entity]:
        return ()
