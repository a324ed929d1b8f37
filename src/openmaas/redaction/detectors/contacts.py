"""E-mail addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable

from openmaas.redaction.entity import SHAPED, Entity
from openmaas.redaction.policy import Kind

_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'&=~/!#*")
_MOST_LOCAL = 64  # RFC 5321, 4.5.3.1.1
_LETTER = "A-Za-z0-9\u00c0-\u024f"
_DOMAIN = re.compile(f"(?:[{_LETTER}](?:[{_LETTER}-]{{0,62}})?\\.){{1,8}}[A-Za-z]{{2,24}}")
_LITERAL = re.compile(r"\[(?:IPv6:)?[0-9a-fA-F:.]{3,45}\]")
# What stands behind an @ in names of files and of packages.
_FILES = re.compile(r".*\.(?:png|jpe?g|gif|svg|webp|css|js|ts|py|json|ya?ml|html?)$", re.IGNORECASE)

_IN_URL = re.compile(r"://[^\s/@]{0,64}:$")


class Emails:
    kinds: tuple[Kind, ...] = ("email",)

    def find(self, text: str) -> Iterable[Entity]:
        at = text.find("@")
        while at >= 0:
            domain = _DOMAIN.match(text, at + 1) or _LITERAL.match(text, at + 1)
            start = _start(text, at)
            if domain and start < at and not _is_other(text, start, at, domain):
                yield Entity(start, domain.end(), "email", SHAPED)
            at = text.find("@", at + 1)


def _is_other(text: str, start: int, at: int, domain: re.Match[str]) -> bool:
    """A file, a repository (git@host:path), or a password in a URL (//name:password@host)."""
    return (
        _FILES.match(domain[0]) is not None
        or (text[start:at] == "git" and text[domain.end() : domain.end() + 1] == ":")
        or _IN_URL.search(text, max(0, start - _MOST_LOCAL), start) is not None
    )


def _start(text: str, at: int) -> int:
    """Where the part before the @ begins; ``at`` where there is none."""
    if text[at - 1 : at] == '"':
        opened = text.rfind('"', max(0, at - _MOST_LOCAL), at - 1)
        return opened if opened >= 0 and "\n" not in text[opened:at] else at
    start = at
    while start > 0 and at - start < _MOST_LOCAL:
        before = text[start - 1]
        if before not in _LOCAL and not "\u00c0" <= before <= "\u024f":
            break
        start -= 1
    # Quotes, slashes and the like are allowed in it, but are a text's own at its beginning.
    while start < at and text[start] in "'./-*!#&=~%+":
        start += 1
    part = text[start:at]
    for sign in "=/":  # to=ann@example.org, mailto links in tables
        start, part = (start + part.rfind(sign) + 1, part[part.rfind(sign) + 1 :])
    return at if part.endswith(".") else start
