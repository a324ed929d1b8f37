"""Texts cut at the borders of their pieces; what lies between is shown plainly."""

from __future__ import annotations

from typing import Any, NamedTuple

from openmaas.explaining.explanation import Piece
from openmaas.explaining.rendering import words


class Span(NamedTuple):
    text: str
    piece: Piece | None  # None: no share of it is known


class Passage(NamedTuple):
    """A text, or a message of a conversation."""

    role: str  # whose message it is; nothing of texts
    spans: list[Span]


def passages(
    pieces: list[Piece], given: Any, answer: bool, characters: int, most: int
) -> tuple[list[Passage], int]:
    """
    Args:
        given: a text, texts, or messages with ``role`` and ``content``; anything else: the pieces
            stand for it.
        answer: the pieces are of the model's answer, which may not be what is given.
        characters: drawn at most.
        most: pieces at most, and messages.

    Returns:
        The passages, and how many characters were left out.
    """
    texts = _texts(given)
    if texts is None or not pieces_fit(pieces, texts, exactly=answer):
        spans = _joined(pieces)
        texts = [("answer" if answer else "", "".join(span.text for span in spans))]
        cut = [spans]
    else:
        of: dict[int, list[Piece]] = {}
        for piece in pieces:
            of.setdefault(piece.message or 0, []).append(piece)
        cut = [_cut(text, of.get(at, [])) for at, (_, text) in enumerate(texts[:most])]
    found: list[Passage] = []
    drawn = 0
    for (role, _), spans in zip(texts, cut, strict=False):
        if characters <= 0 or most <= 0:
            break
        kept = _bounded(spans, characters, most)
        size = sum(len(span.text) for span in kept)
        drawn, characters = drawn + size, characters - size
        most -= max(1, sum(span.piece is not None for span in kept))
        found.append(Passage(role, [_shown(span) for span in kept]))
    return found, sum(len(text) for _, text in texts) - drawn


def pieces_fit(pieces: list[Piece], texts: list[tuple[str, str]], *, exactly: bool) -> bool:
    """Whether the pieces lie in the texts."""
    for piece in pieces:
        at = piece.message or 0
        if (piece.message is None and len(texts) > 1) or not 0 <= at < len(texts):
            return False
        text = texts[at][1]
        if not 0 <= piece.start <= piece.end <= len(text):
            return False
        if exactly and text[piece.start : piece.end] != piece.text:
            return False
    return True


def _texts(given: Any) -> list[tuple[str, str]] | None:
    if isinstance(given, str):
        return [("", given)]
    if not isinstance(given, list) or not given:
        return None
    found = []
    for one in given:
        if isinstance(one, str):
            found.append(("", one))
        elif isinstance(one, dict) and "content" in one:
            role = words.line(str(one.get("role", "")), 30)
            found.append((role, _content(one["content"])))
        else:
            return None
    return found


def _content(content: Any) -> str:
    """Of a message, which may be in parts."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _cut(text: str, pieces: list[Piece]) -> list[Span]:
    """What overlaps is drawn once, as the piece that began first."""
    spans: list[Span] = []
    at = 0
    for piece in sorted(pieces, key=lambda one: (one.start, one.end)):
        start = max(piece.start, at)
        if piece.end <= start:
            continue  # bytes of one character may be several tokens
        if start > at:
            spans.append(Span(text[at:start], None))
        spans.append(Span(text[start : piece.end], piece))
        at = piece.end
    if at < len(text):
        spans.append(Span(text[at:], None))
    return spans


def _joined(pieces: list[Piece]) -> list[Span]:
    """The text that pieces make where it is not at hand."""
    spans: list[Span] = []
    at: int | None = None
    for piece in sorted(pieces, key=lambda one: (one.message or 0, one.start, one.end)):
        if at is not None and piece.start != at:
            spans.append(Span(" " if piece.start - at == 1 else " … ", None))
        spans.append(Span(piece.text, piece))
        at = piece.end
    return spans


def _bounded(spans: list[Span], characters: int, most: int) -> list[Span]:
    kept = []
    for span in spans:
        most -= span.piece is not None
        if characters <= 0 or most < 0:
            break
        kept.append(Span(span.text[:characters], span.piece))
        characters -= len(span.text)
    return kept


def _shown(span: Span) -> Span:
    text = words.harmless(span.text)
    return Span(text if span.piece is None else words.spelled(text), span.piece)
