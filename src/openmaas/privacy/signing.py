"""Records that anybody can check: canonical JSON under an Ed25519 signature.

The form is that of RFC 8785 for what occurs here: texts, whole numbers, lists, and objects with
sorted names. Signatures are of RFC 8032.
"""

from __future__ import annotations

from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from openmaas.encryption.keyring import Keyring
from openmaas.errors import InvalidRequest

OWNER, OBJECT = "", "signing"  # of the key that signs: nobody's, and erased with nobody
FORM = "openmaas-erasure-1"


class SignedRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was done, and who says so.

    Attributes:
        record: what is signed, as ``canonical`` writes it.
        signature: Ed25519, hex.
        public_key: that checks it, hex; compare it with what the server tells.
    """

    record: dict[str, Any]
    signature: str
    public_key: str
    form: str = FORM


class Signer:
    """All methods block: the key is in the database, sealed."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def sign(self, record: dict[str, Any]) -> SignedRecord:
        key = self._key()
        public = key.public_key().public_bytes_raw()
        return SignedRecord(record, key.sign(canonical(record)).hex(), public.hex())

    def public_key(self) -> str:
        """Hex."""
        return self._key().public_key().public_bytes_raw().hex()

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self._keyring.key(OWNER, OBJECT).secret)


def canonical(record: dict[str, Any]) -> bytes:
    """The bytes that are signed."""
    return msgspec.json.encode(record, order="deterministic")


def parsed(raw: bytes) -> SignedRecord:
    """
    Raises:
        InvalidRequest: it is no signed record.
    """
    try:
        return msgspec.json.decode(raw, type=SignedRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"it is no signed record: {error}") from None


def verified(signed: SignedRecord, public_key: str | None = None) -> bool:
    """Whether a record is as it was signed.

    Args:
        public_key: whose signature it must be; None: that of the key that it names.
    """
    if signed.form != FORM or (public_key is not None and public_key != signed.public_key):
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed.public_key))
        key.verify(bytes.fromhex(signed.signature), canonical(signed.record))
    except (ValueError, InvalidSignature):
        return False
    return True
