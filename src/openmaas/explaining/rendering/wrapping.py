"""Coloured texts broken into lines of a page, for pictures; browsers and terminals do it alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from openmaas.explaining.explanation import Piece
from openmaas.explaining.rendering.passages import Span

Measure = Callable[[str], float]

# Scripts that are written without spaces break after any character.
_WIDE = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U0001f000-\U0003ffff"
_IDEOGRAPH = re.compile(f"[{_WIDE}]")
_ATOMS = re.compile(rf"\n|[^\S\n]+|[{_WIDE}]|[^\s{_WIDE}]+")


class Chunk(NamedTuple):
    """What stands on one line of one piece, or between pieces."""

    x: float
    width: float
    text: str
    piece: Piece | None


class _Atom(NamedTuple):
    text: str
    span: int
    width: float


def wrap(spans: Sequence[Span], width: float, measure: Measure) -> list[list[Chunk]]:
    """Lines, none of them wider than ``width`` unless a single character is."""
    lines: list[list[_Atom]] = [[]]
    used, begun = 0.0, True  # begun: a paragraph; its indentation is kept
    base: list[bool] = [False]
    for word in _words(spans, measure):
        if word[0].text == "\n":
            lines.append([])
            base.append(False)
            used, begun = 0.0, True
            continue
        size = sum(atom.width for atom in word)
        space = word[0].text.isspace()
        if begun and not space:
            base[-1], begun = _leftward(word[0].text), False
        if used + size > width and (used or size > width):
            if size <= width and not space:
                parts = [word]
            elif space:
                parts = [[]] if used else []  # a space at the end of a line is not seen
            else:
                parts = list(_broken(word, width, measure))
            for at, part in enumerate(parts):
                if used or at:
                    lines.append([])
                    base.append(base[-1])
                lines[-1] += part
                used = sum(atom.width for atom in part)
            continue
        if space and not used and not begun:
            continue
        lines[-1] += word
        used += size
    return [_placed(line, spans, width, right) for line, right in zip(lines, base, strict=True)]


def _words(spans: Sequence[Span], measure: Measure) -> Iterator[list[_Atom]]:
    """What is kept together: pieces are often parts of words."""
    word: list[_Atom] = []
    for at, span in enumerate(spans):
        for text in _ATOMS.findall(span.text):
            alone = text.isspace() or _IDEOGRAPH.match(text)
            atom = _Atom(text, at, 0.0 if text == "\n" else measure(text))
            if alone:
                if word:
                    yield word
                    word = []
                yield [atom]
            else:
                word.append(atom)
    if word:
        yield word


def _broken(word: list[_Atom], width: float, measure: Measure) -> Iterator[list[_Atom]]:
    """A word that no line holds, broken wherever a line is full."""
    line: list[_Atom] = []
    used = 0.0
    for atom in word:
        for character in atom.text:
            size = measure(character)
            if line and used + size > width:
                yield line
                line, used = [], 0.0
            line.append(_Atom(character, atom.span, size))
            used += size
    yield line


def _placed(line: list[_Atom], spans: Sequence[Span], width: float, leftward: bool) -> list[Chunk]:
    """From atoms in the order of reading to chunks in the order of places."""
    chunks = []
    for span, group in groupby(line, key=lambda atom: atom.span):
        atoms = list(group)
        text = "".join(atom.text for atom in atoms)
        chunks.append(Chunk(0.0, sum(atom.width for atom in atoms), text, spans[span].piece))
    ordered = _visual(chunks, leftward)
    x = width - sum(chunk.width for chunk in chunks) if leftward else 0.0
    placed = []
    for chunk in ordered:
        placed.append(chunk._replace(x=max(0.0, x)))
        x += chunk.width
    return placed


def _visual(chunks: list[Chunk], leftward: bool) -> list[Chunk]:
    """Runs of the other direction turned around: a simple form of Unicode's UAX #9, of chunks."""
    if not leftward and not any(_leftward(chunk.text) for chunk in chunks):
        return chunks
    directions = [_direction(chunk.text) for chunk in chunks]
    resolved = [_resolve(directions, at, leftward) for at in range(len(chunks))]
    runs = [
        list(run) for _, run in groupby(zip(resolved, chunks, strict=True), key=lambda at: at[0])
    ]
    ordered: list[Chunk] = []
    for run in reversed(runs) if leftward else runs:
        inside = [chunk for _, chunk in run]
        ordered += reversed(inside) if run[0][0] else inside
    return ordered


def _resolve(directions: list[bool | None], at: int, base: bool) -> bool:
    """What has no direction has that of its neighbours, if they agree, and the line's if not."""
    own = directions[at]
    if own is not None:
        return own
    before = next((one for one in reversed(directions[:at]) if one is not None), base)
    after = next((one for one in directions[at + 1 :] if one is not None), base)
    return before if before == after else base


def _leftward(text: str) -> bool:
    return bool(_direction(text))


def _direction(text: str) -> bool | None:
    """Whether a text is written from right to left; ``None``: it has no letters to tell."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("R", "AL"):
            return True
        if kind in ("L", "EN"):
            return False
    return None
