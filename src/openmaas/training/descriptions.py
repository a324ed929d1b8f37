"""What is in data sets, as their rows hold it: labels may be names, so that it is sealed."""

from __future__ import annotations

from typing import Any

import msgspec

from openmaas.encryption.keyring import Keyring
from openmaas.encryption.values import seal_json, unseal_json
from openmaas.training.data import Description


def stored(description: Description, keyring: Keyring, id: str, tenant: str) -> dict[str, str]:
    """What the column of data set ``id`` is to hold."""
    return seal_json(msgspec.to_builtins(description), keyring.key(tenant, id), _about(id))


def description(column: Any, keyring: Keyring, id: str) -> Description | None:
    """What the column says; None: nothing yet.

    Raises:
        Erased, SealBroken, WrongMaster
    """
    found = unseal_json(column, keyring, _about(id))
    return None if found is None else msgspec.convert(found, Description)


def _about(id: str) -> str:
    return f"datasets/{id}"
