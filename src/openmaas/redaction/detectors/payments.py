"""Numbers of credit cards and bank accounts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stdnum import iban, luhn

from openmaas.redaction.cues import has_digit
from openmaas.redaction.entity import CHECKED, Entity
from openmaas.redaction.policy import Kind

# ISO/IEC 7812: who issues by the first digits, and how many digits there then are.
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11,16}"  # Diners Club
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12,15}"  # Discover
    r"|35\d{14}|(?:2131|1800)\d{11}"  # JCB
    r"|62\d{14,17}"  # UnionPay
    r"|0604\d{8,15}|(?:50|5[678]|63|67)\d{10,17}"  # Maestro
    r"|220[0-4]\d{12,15}"  # Mir
)
_CARD = re.compile(r"(?<![\w#])(?<!\d[.,-])\d(?:[ -]?\d){11,18}(?![\w-]|[.,]\d)", re.ASCII)
_GROUPS = re.compile(
    r"\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5}"
    r"|\d{4}([ -])\d{4}\3\d{4}\3\d{4}\3\d{1,3}"
)

_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
    "DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 "
    "IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 "
    "MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
    "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
_LENGTH = {one[:2]: int(one[2:]) for one in _LENGTHS.split()}
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2} ?\d{2}(?=[ -]?[A-Za-z0-9])")
_MOST_SEPARATORS = 12


class Payments:
    kinds: tuple[Kind, ...] = ("credit_card", "iban")

    def find(self, text: str) -> Iterable[Entity]:
        if not has_digit(text):
            return
        for found in _CARD.finditer(text):
            digits = re.sub("[ -]", "", found[0])
            if _GROUPS.fullmatch(found[0]) and _is_card(digits):
                yield Entity(found.start(), found.end(), "credit_card", CHECKED)
        for found in _IBAN.finditer(text):
            end = _iban_end(text, found.start())
            if end:
                yield Entity(found.start(), end, "iban", CHECKED)


def _is_card(digits: str) -> bool:
    return (
        _ISSUERS.fullmatch(digits) is not None
        and len(digits) != 18  # a Chinese identity number
        and len(set(digits)) > 1
        and bool(luhn.is_valid(digits))
    )


def _iban_end(text: str, start: int) -> int | None:
    """The end of the account number that begins at ``start``, if it is one: ISO 13616."""
    length = _LENGTH.get(text[start : start + 2].upper())
    if length is None:
        return None
    letters: list[str] = []
    at = start
    for at in range(start, min(len(text), start + length + _MOST_SEPARATORS)):
        if text[at].isascii() and text[at].isalnum():
            letters.append(text[at])
        elif text[at] not in " -":
            return None
        if len(letters) == length:
            break
    after = text[at + 1 : at + 2]
    if len(letters) < length or (after.isascii() and after.isalnum()):
        return None
    number = "".join(letters).upper()
    return at + 1 if iban.is_valid(number, check_country=False) else None
