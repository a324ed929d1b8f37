"""What a token-classification model calls names and places, as kinds of personal data."""

from __future__ import annotations

from collections.abc import Sequence

from openmaas.inference import Span
from openmaas.redaction.entity import Entity
from openmaas.redaction.policy import KINDS, Kind

LEAST = 0.5  # probability of a span that counts

# Labels of CoNLL-2003, OntoNotes, WikiNEuRal and of models that are made to find personal data.
_KINDS: dict[str, Kind] = {
    "PER": "person", "PERSON": "person", "NAME": "person", "GIVENNAME": "person",
    "FIRSTNAME": "person", "MIDDLENAME": "person", "SURNAME": "person", "LASTNAME": "person",
    "LOC": "address", "LOCATION": "address", "ADDRESS": "address", "STREET": "address",
    "STREETADDRESS": "address", "BUILDINGNUM": "address", "ZIPCODE": "address",
    "FAC": "address", "EMAIL": "email", "EMAILADDRESS": "email",
    "PHONE": "phone", "PHONENUMBER": "phone", "TELEPHONENUM": "phone",
    "CREDITCARD": "credit_card", "CREDITCARDNUMBER": "credit_card", "IBAN": "iban",
    "SSN": "national_id", "SOCIALNUM": "national_id", "IDCARD": "national_id",
    "IDCARDNUM": "national_id", "PASSPORT": "national_id", "TAXNUM": "national_id",
    "DRIVERLICENSENUM": "national_id", "IP": "ip_address", "IPADDRESS": "ip_address",
    "IPV4": "ip_address", "IPV6": "ip_address", "MAC": "mac_address", "MACADDRESS": "mac_address",
    "PASSWORD": "secret", "DATEOFBIRTH": "birth_date", "DOB": "birth_date",
}  # fmt: skip


def entities(spans: Sequence[Span]) -> list[Entity]:
    """Spans whose label is a kind; what a model calls otherwise is left out."""
    found = []
    for span in spans:
        kind = kind_of(span.label)
        if kind is not None and span.score >= LEAST and span.end > span.start:
            found.append(Entity(span.start, span.end, kind, span.score))
    return found


def kind_of(label: str) -> Kind | None:
    """The kind that a model's label stands for."""
    plain = label.upper().removeprefix("B-").removeprefix("I-")
    plain = plain.replace("_", "").replace("-", "").replace(" ", "")
    return _KINDS.get(plain) or next((kind for kind in KINDS if _plain(kind) == plain), None)


def _plain(kind: Kind) -> str:
    return kind.upper().replace("_", "")
