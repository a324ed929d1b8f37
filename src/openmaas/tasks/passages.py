"""Texts cut at the ends of sentences, in every script, without losing a character."""

from __future__ import annotations

import sentencex

# sentencex falls back to rules of its own where a language has none; these hold for most.
ANY_LANGUAGE = "en"


def sentences(text: str, language: str = ANY_LANGUAGE) -> list[str]:
    """Sentences with the white space after them: joined, they are the text."""
    return [part for part in sentencex.segment(language, text) if part]


def passages(text: str, tokens: int, language: str = ANY_LANGUAGE) -> list[str]:
    """Whole sentences, as many as likely fit into so many tokens each; joined, they are the text.
    A sentence that is longer itself is cut at white space, or where it must be between
    characters."""
    made: list[str] = []
    held, size = "", 0.0
    for sentence in sentences(text, language):
        for piece in _pieces(sentence, tokens):
            cost = estimate(piece)
            if held and size + cost > tokens:
                made.append(held)
                held, size = "", 0.0
            held += piece
            size += cost
    if held:
        made.append(held)
    return made


def estimate(text: str) -> float:
    """Tokens of a text, roughly: a character of a script without spaces is one of its own,
    four letters of an alphabet make one."""
    plain = sum(character < "\u0250" for character in text)
    return plain / 4 + (len(text) - plain)


def _pieces(sentence: str, tokens: int) -> list[str]:
    if len(sentence) <= tokens or estimate(sentence) <= tokens:
        return [sentence]
    made: list[str] = []
    start, size, space = 0, 0.0, 0
    for at, character in enumerate(sentence):
        size += 0.25 if character < "\u0250" else 1.0
        if size > tokens and not _joins(sentence, at):
            end = space if space > start else at
            made.append(sentence[start:end])
            start, size = end, estimate(sentence[end : at + 1])
        if character.isspace():
            space = at + 1
    made.append(sentence[start:])
    return made


def _joins(text: str, at: int) -> bool:
    """Whether the character there belongs to the one before it: a mark, a joiner, a modifier of
    an emoji (Unicode Standard Annex 29, in short)."""
    import unicodedata

    character, before = text[at], text[at - 1] if at else ""
    return (
        unicodedata.combining(character) != 0
        or unicodedata.category(character) in ("Mn", "Me", "Mc", "Sk")
        or character in "\u200d\ufe0e\ufe0f"
        or before == "\u200d"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or ("\U0001f1e6" <= character <= "\U0001f1ff" and "\U0001f1e6" <= before <= "\U0001f1ff")
    )
