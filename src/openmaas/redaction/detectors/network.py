"""Addresses of machines."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from openmaas.redaction.cues import has_digit
from openmaas.redaction.entity import SHAPED, Entity
from openmaas.redaction.policy import Kind

_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_V4 = re.compile(
    rf"(?<![\w.-]){_BYTE}(?:\.{_BYTE}){{3}}(?:/\d{{1,2}}(?!\d))?(?![\w-]|\.\d)", re.ASCII
)
_V6 = re.compile(
    r"(?<![\w:.])(?:[0-9a-f]{1,4}:|::)[0-9a-f:.]{1,43}(?:%\w{1,15})?(?:/\d{1,3}(?!\d))?"
    r"(?![\w:])",
    re.ASCII | re.IGNORECASE,
)
_MAC = re.compile(
    r"(?<![\w:.-])(?:[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}"
    r"|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2})(?![\w:-]|\.\w)",
    re.ASCII | re.IGNORECASE,
)
_VERSION = re.compile(
    r"(?:\bv(?:er(?:si\w+)?)?\.?|\brelease|\bsection|\bchapter|\bclause|\bfigure|§|\bbuild|版本"
    r"|\bالإصدار)[ :]*$",
    re.IGNORECASE,
)


class Network:
    kinds: tuple[Kind, ...] = ("ip_address", "mac_address")

    def find(self, text: str) -> Iterable[Entity]:
        if ":" not in text and not has_digit(text):
            return
        for found in _V4.finditer(text):
            if not _VERSION.search(text, max(0, found.start() - 16), found.start()):
                yield Entity(found.start(), found.end(), "ip_address", SHAPED)
        if ":" in text:
            for found in _V6.finditer(text):
                address = found[0].rstrip(".:") if not found[0].endswith("::") else found[0]
                if _is_v6(address):
                    end = found.start() + len(address)
                    yield Entity(found.start(), end, "ip_address", SHAPED)
        for found in _MAC.finditer(text):
            yield Entity(found.start(), found.end(), "mac_address", SHAPED)


def _is_v6(text: str) -> bool:
    """Not a time of the day, nor ``a::b`` as programs write it."""
    if text.count(":") < 2 or (text.count(":") < 3 and not re.search(r"\d", text)):
        return False
    try:
        address = ipaddress.ip_interface(text)
    except ValueError:
        return False
    return address.version == 6 and text.strip(":") != ""
