"""Sealed values that fit into memory: of columns, and of records that others keep."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openmaas.encryption.keyring import Key, Keyring
from openmaas.encryption.master import NONCE_BYTES
from openmaas.encryption.records import TAG_BYTES, VERSION
from openmaas.errors import SealBroken


def seal(data: bytes, key: Key, about: bytes) -> bytes:
    """Seals what fits into memory.

    Args:
        about: what it is and where it belongs; it is unsealed for that alone.
    """
    nonce, id = secrets.token_bytes(NONCE_BYTES), key.id.encode()
    header = bytes([VERSION, len(id)]) + id
    return header + nonce + AESGCM(key.secret).encrypt(nonce, data, header + about)


def unseal(sealed: bytes, keyring: Keyring, about: bytes) -> bytes:
    """What was sealed, with whichever key of the ring it was.

    Raises:
        SealBroken, Erased, WrongMaster
    """
    at = 2 + (sealed[1] if len(sealed) > 1 else 0)
    header, nonce = sealed[:at], sealed[at : at + NONCE_BYTES]
    if len(sealed) < at + NONCE_BYTES + TAG_BYTES or sealed[0] != VERSION:
        raise SealBroken("what is stored was changed or cut")
    try:
        key = keyring.by_id(header[2:].decode("ascii"))
        return AESGCM(key.secret).decrypt(nonce, sealed[at + NONCE_BYTES :], header + about)
    except (InvalidTag, UnicodeDecodeError):
        raise SealBroken("what is stored was changed, or is another's") from None


def seal_json(value: Any, key: Key, about: str) -> dict[str, str]:
    """A value as a column of JSON holds it, sealed."""
    sealed = seal(msgspec.json.encode(value), key, about.encode())
    return {"sealed": base64.b64encode(sealed).decode()}


def unseal_json(stored: Any, keyring: Keyring, about: str) -> Any:
    """The value of a column of JSON; one that is not sealed as it is.

    Raises:
        SealBroken, Erased, WrongMaster
    """
    if not isinstance(stored, dict) or stored.keys() != {"sealed"}:
        return stored
    try:
        sealed = base64.b64decode(stored["sealed"], validate=True)
    except (ValueError, TypeError):
        raise SealBroken("what is stored was changed") from None
    return msgspec.json.decode(unseal(sealed, keyring, about.encode()))


def json_key_of(stored: Any) -> str | None:
    """The id of the key that a column of JSON was sealed with; None: it is not sealed."""
    if not isinstance(stored, dict) or stored.keys() != {"sealed"}:
        return None
    sealed = base64.b64decode(stored["sealed"])
    return sealed[2 : 2 + sealed[1]].decode("ascii", "replace")
