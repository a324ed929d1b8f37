"""Letters as regular expressions write them."""

from __future__ import annotations

import re

HAN = re.compile("[\u4e00-\u9fff]")
ARABIC = re.compile("[\u0621-\u064a]")
"""Whether a text has any of the script: asked before what only finds something there."""


def _upper() -> str:
    """The capitals of Latin, Greek and Cyrillic."""
    signs = [chr(code) for code in (*range(0xC0, 0x250), *range(0x370, 0x530))]
    return "".join(one for one in signs if one.isupper())


CAPITAL = f"[A-Z{_upper()}]"
"""One of them."""
