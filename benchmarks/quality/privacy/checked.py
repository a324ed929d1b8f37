"""Sentences that were written and labelled by hand: ``tests/redaction/checked.txt``."""

from __future__ import annotations

import re
from pathlib import Path

from quality.privacy.generated import Label, Text

FILE = Path(__file__).parents[3] / "tests" / "redaction" / "checked.txt"


def texts() -> list[Text]:
    return [_read(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def _read(line: str) -> Text:
    """``⟦kind|thing⟧`` is a labelled thing."""
    text, labels = "", []
    for part in re.split("(⟦.*?⟧)", line.replace("\\n", "\n")):
        if part.startswith("⟦"):
            kind, thing = part[1:-1].split("|", 1)
            labels.append(Label(len(text), len(text) + len(thing), kind))
            text += thing
        else:
            text += part
    return Text(text, labels)
