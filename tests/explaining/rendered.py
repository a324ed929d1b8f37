"""Explanations to be drawn, harmless and hostile, and what is read of their pages."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import msgspec

from openmaas.explaining.explanation import (
    Alternative,
    Attribution,
    Cost,
    Explanation,
    Feature,
    Piece,
    Trust,
)

HOSTILE = "<script>alert('\"1&')</script>"


def explained(*found: Any, label: str = "positive", **fields: Any) -> Explanation:
    given: dict[str, Any] = {
        "id": "expl_1",
        "model": "sentiment",
        "version": "3",
        "task": "sentiment",
        "method": "occlusion",
        "source": "Zeiler and Fergus (2014), arXiv:1311.2901",
        "unit": "word",
        "seed": 7,
        "trust": Trust(
            completeness_error=0.0123, converged=True, notes=["Words are left out one by one."]
        ),
        "cost": Cost(forward_passes=412, seconds=1.73),
    }
    attributions = [
        Attribution(
            baselineOutputValue=0.5,
            instanceOutputValue=0.934,
            featureAttributions=one,
            outputIndex=[0],
            outputDisplayName=label,
            approximationError=None,
        )
        for one in found
    ]
    return Explanation(**(given | fields), attributions=attributions)


def pieces(text: str, *shares: float, message: int | None = None) -> list[Piece]:
    """Of its words; the shares are used again when they end."""
    return [
        Piece(
            text=word.group(),
            start=word.start(),
            end=word.end(),
            attribution=shares[at % len(shares)],
            message=message,
        )
        for at, word in enumerate(re.finditer(r"\S+", text))
    ]


def gauge(text: str, size: float, bold: bool) -> float:
    """Letters of one width, as a typewriter's."""
    return len(text) * size * 0.6


class Parsed(HTMLParser):
    """Tags with their attributes, and the text outside of style sheets."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "rect", "line", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "rect":
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def hostile() -> list[tuple[Explanation, Any]]:
    text = f"good {HOSTILE} bad"
    found = [
        Piece(
            text=HOSTILE,
            start=5,
            end=5 + len(HOSTILE),
            attribution=0.5,
            logprob=-1.0,
            alternatives=[Alternative(text=HOSTILE, logprob=-2.0)],
        )
    ]
    fields: dict[str, Any] = dict.fromkeys(("label", "model", "version", "task", "source"), HOSTILE)
    trust = Trust(completeness_error=None, converged=None, notes=[HOSTILE])
    row = {HOSTILE: HOSTILE}
    column = [Feature(name=HOSTILE, value=HOSTILE, attribution=-0.5, low=-0.6, high=-0.4)]
    conversation = [{"role": HOSTILE, "content": text}]
    said = [msgspec.structs.replace(found[0], message=0)]
    return [
        (explained(found, trust=trust, **fields), text),
        (explained(said, trust=trust, **fields), conversation),
        (explained(column, trust=trust, **fields), row),
        (explained(column, trust=trust, **fields), [[HOSTILE]]),
        (explained({HOSTILE: [[1.0, 2.0], [0.0, -1.0]]}, **fields), {HOSTILE: [[1, 2], [3, 4]]}),
        (explained(found, method="surprise", **fields), None),
    ]


def many() -> Explanation:
    columns = [
        Feature(
            name=f"column {at} {'long ' * 20}", value=at, attribution=at - 20.0, low=-30.0, high=2.0
        )
        for at in range(50)
    ]
    return explained(columns, unit="feature")
