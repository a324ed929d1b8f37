"""A text whose parts can be taken away, as a classifier sees it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import regex

from openmaas.errors import InvalidRequest
from openmaas.explaining.explanation import Piece, Unit
from openmaas.explaining.game import Masks, Shares, Values
from openmaas.tasks.asking import Model
from openmaas.tasks.classify import classify
from openmaas.tasks.passages import sentences

WORDS = 128  # beyond which a text is explained by sentences, where nobody says otherwise
PARTS = 1024  # of a text
# What stands between spaces, with its punctuation ("great!", ":)"); in scripts that are written
# without spaces each character, with its marks.
_DENSE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_DENSE}]\p{{M}}*|[^\s{_DENSE}]+")
NOTHING = "…"  # stands where nothing is left: models refuse an empty text


class Span(NamedTuple):
    start: int  # characters
    end: int


def words(text: str) -> list[Span]:
    return [Span(*match.span()) for match in _WORD.finditer(text)]


def whole_sentences(text: str) -> list[Span]:
    """Without the white space around them."""
    found, at = [], 0
    for one in sentences(text):
        left = at + len(one) - len(one.lstrip())
        right = at + len(one.rstrip())
        at += len(one)
        if right > left:
            found.append(Span(left, right))
    return found


class Text:
    """A text in parts.

    Args:
        unit: "word" or "sentence"; None: words, if there are not too many.
        baseline: what stands where a part is taken away; nothing: the text closes up.

    Raises:
        InvalidRequest: it has no part, or too many.
    """

    def __init__(self, text: str, unit: Unit | None, baseline: str = "") -> None:
        self.text = text
        self.baseline = baseline
        self.unit: Unit = unit or "word"
        self.parts = words(text) if self.unit == "word" else whole_sentences(text)
        if unit is None and len(self.parts) > WORDS:
            self.unit, self.parts = "sentence", whole_sentences(text)
        if not 1 <= len(self.parts) <= PARTS:
            raise InvalidRequest(
                f"the text has {len(self.parts)} {self.unit}s; from 1 to {PARTS} can be explained",
                param="input",
            )

    def rendered(self, kept: Masks) -> str:
        """The text with only some of its parts.

        Args:
            kept: [parts].
        """
        made, at = [], 0
        for there, part in zip(kept, self.parts, strict=True):
            between = self.text[at : part.start]
            if there:
                made += [between, self.text[part.start : part.end]]
            elif self.baseline:
                made += [between, self.baseline]
            at = part.end
        made.append(self.text[at:])
        return "".join(made).strip() or NOTHING


class TextQuestion:
    """Why a text has its labels. A ``questions.Question``.

    Args:
        labels: as ``classify`` takes them.
    """

    def __init__(
        self,
        model: Model,
        text: Text,
        labels: list[str] | None,
        *,
        multi_label: bool,
        template: str | None,
    ) -> None:
        self.unit: Unit = text.unit
        self.parts = len(text.parts)
        self.outputs: list[tuple[list[int], str]] = []
        self._model = model
        self._text = text
        self._how = {"labels": labels, "multi_label": multi_label, "template": template}

    async def choose(self, target: str | int | None, most: int) -> None:
        """Settles which labels are explained: the one that is named, else the likeliest.

        Raises:
            InvalidRequest: no such label.
        """
        names, scores = await self._scores([self._text.text])
        if target is None:
            best = (-scores[0]).argsort(kind="stable")[:most]
            self.outputs = [([int(at)], names[at]) for at in best]
            return
        if isinstance(target, str) and target in names:
            self.outputs = [([names.index(target)], target)]
        elif isinstance(target, int) and 0 <= target < len(names):
            self.outputs = [([target], names[target])]
        else:
            raise InvalidRequest(
                f"no label {target!r}; there are: {', '.join(names[:50])}", param="target"
            )

    async def play(self, masks: Masks) -> Values:
        _, scores = await self._scores([self._text.rendered(row) for row in masks])
        return scores[:, [index[0] for index, _ in self.outputs]]

    def told(self, shares: Shares, output: int) -> list[Piece]:
        """Attributions of one output, for people."""
        low, high = shares.low, shares.high
        return [
            Piece(
                text=self._text.text[part.start : part.end],
                start=part.start,
                end=part.end,
                attribution=float(shares.values[at, output]),
                low=None if low is None else float(low[at, output]),
                high=None if high is None else float(high[at, output]),
            )
            for at, part in enumerate(self._text.parts)
        ]

    async def _scores(self, texts: list[str]) -> tuple[list[str], Values]:
        labels, scores = await classify(self._model, texts, **self._how)  # type: ignore[arg-type]
        return labels, np.asarray(scores, np.float64)
