"""Letters as regular expressions write them."""

from __future__ import annotations


def _upper() -> str:
    """The capitals of Latin, Greek and Cyrillic."""
    signs = [chr(code) for code in (*range(0xC0, 0x250), *range(0x370, 0x530))]
    return "".join(one for one in signs if one.isupper())


CAPITAL = f"[A-Z{_upper()}]"
"""One of them."""
