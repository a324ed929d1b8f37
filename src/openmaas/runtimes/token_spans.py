"""Labels of tokens → spans of a text, as transformers' token classification pipelines make them.

Source of the ways to aggregate: transformers' ``TokenClassificationPipeline``; of the schemes:
Ramshaw and Marcus 1995 (BIO), Ratinov and Roth 2009 (BILOU).
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.inference import Aggregation, Span

OUTSIDE = "O"
STARTS, ENDS = "BUS", "LEUS"  # marks of a span's first and of its last token, in any scheme
JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # invisible, they belong to the character before them

Array = NDArray[np.float32]
_MARKED = re.compile(r"([BILOUSEM])[-_](.+)", re.DOTALL)


class Token(NamedTuple):
    """What a tokenizer says of one of a text's tokens."""

    start: int  # characters
    end: int
    word: int | None  # number of the word that it is of; None: it is one by itself


class Scheme:
    """What a network's labels stand for: a mark of BIO, BILOU or their like and a kind, or a kind
    alone."""

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels
        found = [_MARKED.fullmatch(label) for label in labels]
        marked = all(found[at] for at, label in enumerate(labels) if label != OUTSIDE)
        self._parts = [
            (one[1], one[2]) if one is not None and marked else ("I", label)
            for label, one in zip(labels, found, strict=True)
        ]

    def spans(
        self, text: str, tokens: list[Token], shares: Array, aggregation: Aggregation
    ) -> list[Span]:
        """
        Args:
            shares: [tokens, labels], probabilities.

        Returns:
            Spans in order; white space at their ends is left out.
        """
        seen = [at for at, token in enumerate(tokens) if token.end > token.start]
        if not seen:
            return []
        tokens, shares = [tokens[at] for at in seen], shares[seen]
        if aggregation not in ("none", "simple"):
            tokens, shares = _words(tokens, shares, aggregation)
        best, scores = shares.argmax(1), shares.max(1)
        if aggregation == "none":
            groups = [[at] for at in range(len(tokens)) if self.labels[best[at]] != OUTSIDE]
        else:
            groups = self._groups([int(at) for at in best])
        made = []
        for group in groups:
            start, end = _trimmed(text, tokens[group[0]].start, tokens[group[-1]].end)
            number = int(best[group[0]])
            label = self.labels[number] if aggregation == "none" else self._parts[number][1]
            if start < end:
                score = float(scores[group].mean())
                made.append(Span(start=start, end=end, label=label, score=score))
        return _apart(made)

    def _groups(self, best: list[int]) -> list[list[int]]:
        """Places of the tokens, or words, of each span."""
        groups: list[list[int]] = []
        before: tuple[str, str] | None = None  # mark and kind of the one before, if inside a span
        for at, number in enumerate(best):
            if self.labels[number] == OUTSIDE:
                before = None
                continue
            mark, kind = self._parts[number]
            if before is None or before[1] != kind or mark in STARTS or before[0] in ENDS:
                groups.append([])
            groups[-1].append(at)
            before = (mark, kind)
        return groups


def _words(
    tokens: list[Token], shares: Array, aggregation: Aggregation
) -> tuple[list[Token], Array]:
    """Words as if they were tokens. Each has the probabilities of its first token, those of its
    surest one, or the mean of all."""
    firsts = [
        at
        for at, token in enumerate(tokens)
        if not at or token.word is None or token.word != tokens[at - 1].word
    ]
    ends = [*firsts[1:], len(tokens)]
    words = [
        Token(tokens[first].start, tokens[end - 1].end, tokens[first].word)
        for first, end in zip(firsts, ends, strict=True)
    ]
    if aggregation == "first":
        return words, shares[firsts]
    parts = [shares[first:end] for first, end in zip(firsts, ends, strict=True)]
    if aggregation == "average":
        rows = [part.mean(0) for part in parts]
    else:
        rows = [part[part.max(1).argmax()] for part in parts]
    return words, np.stack(rows)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without white space at the ends, and with the marks that stand on its last character, which
    a tokenizer may have dropped."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while start < end < len(text) and _is_mark(text[end]):
        end += 1
    return start, end


def _is_mark(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character) in ("Mn", "Me", "Mc")


def _apart(spans: list[Span]) -> list[Span]:
    """Without what the one before covers too, as tokens of one character's bytes may."""
    kept: list[Span] = []
    for span in spans:
        start = max(span.start, kept[-1].end) if kept else span.start
        if start < span.end:
            kept.append(msgspec.structs.replace(span, start=start))
    return kept
