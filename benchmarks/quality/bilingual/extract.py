"""Takes aligned sentences out of the Debian Administrator's Handbook, as the Debian package
``debian-handbook`` 11.20220922 installs it in many languages.

    apt-get download debian-handbook && dpkg -x debian-handbook_*.deb handbook
    python extract.py handbook/usr/share/doc/debian-handbook/html > handbook.en-pt.tsv

Its pages have the same paragraphs in every language. A paragraph counts if it has as many
sentences in both; a sentence, if it is 8 to 35 words long and about as long as the other.
"""

from __future__ import annotations

import html
import random
import re
import sys
from pathlib import Path

import sentencex

COUNT, SEED = 200, 1
PARAGRAPH = re.compile(r'<p[^>]*>(.*?)</p>|<div class="para">(.*?)</div>', re.DOTALL)


def paragraphs(page: Path) -> list[str]:
    """Their text; empty where a paragraph holds more than running text."""
    found = []
    for match in PARAGRAPH.finditer(page.read_text(encoding="utf-8")):
        inner = match.group(1) or match.group(2) or ""
        plain = "<code" not in inner and "<a " not in inner and "<div" not in inner
        text = html.unescape(re.sub(r"<[^>]+>", "", inner)) if plain else ""
        found.append(" ".join(text.split()))
    return found


def fit(one: str, other: str) -> bool:
    words = len(one.split())
    return 8 <= words <= 35 and 0.6 < len(other) / len(one) < 1.7 and one != other


def main(folder: Path) -> None:
    pairs = []
    for page in sorted((folder / "en-US").glob("*.html")):
        english, portuguese = (paragraphs(folder / code / page.name) for code in ("en-US", "pt-BR"))
        if len(english) != len(portuguese):
            continue
        for former, latter in zip(english, portuguese, strict=True):
            ours = [one.strip() for one in sentencex.segment("en", former) if one.strip()]
            theirs = [one.strip() for one in sentencex.segment("pt", latter) if one.strip()]
            if len(ours) == len(theirs):
                pairs += [pair for pair in zip(ours, theirs, strict=True) if fit(*pair)]
    chosen = random.Random(SEED).sample(sorted(set(pairs)), COUNT)
    for former, latter in chosen:
        print(f"{former}\t{latter}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
