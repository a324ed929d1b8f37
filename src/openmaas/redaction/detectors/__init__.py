"""One file per family of entities. What needs a library or a list loads it when it is first asked
for, so that a policy without it costs nothing."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib import import_module

from openmaas.redaction.entity import Detector
from openmaas.redaction.policy import Kind

# Class by module, in the order in which they are asked, and what it finds.
_FAMILIES: dict[str, tuple[str, frozenset[Kind]]] = {
    "contacts": ("Emails", frozenset({"email"})),
    "phones": ("Phones", frozenset({"phone"})),
    "payments": ("Payments", frozenset({"credit_card", "iban"})),
    "identities": ("Identities", frozenset({"national_id"})),
    "network": ("Network", frozenset({"ip_address", "mac_address"})),
    "credentials": ("Credentials", frozenset({"secret"})),
    "births": ("Births", frozenset({"birth_date"})),
    "addresses": ("Addresses", frozenset({"address"})),
    "names": ("Names", frozenset({"person"})),
}


def of(kinds: Collection[str]) -> list[Detector]:
    """Those that find any of ``kinds``."""
    return [_made(module) for module, (_, found) in _FAMILIES.items() if found & set(kinds)]


@cache
def _made(module: str) -> Detector:
    name = _FAMILIES[module][0]
    made: Detector = getattr(import_module(f"{__name__}.{module}"), name)()
    return made
