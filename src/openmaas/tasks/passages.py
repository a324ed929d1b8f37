"""Texts cut at the ends of sentences, in every script, without losing a character."""

from __future__ import annotations

import regex
import sentencex

# sentencex falls back to rules of its own where a language has none; English ones hold for most.
ANY_LANGUAGE = "en"
_CHARACTER = regex.compile(r"\X")  # as a reader sees it: a letter with its marks, a whole emoji


def sentences(text: str, language: str = ANY_LANGUAGE) -> list[str]:
    """Sentences with the white space after them: joined, they are the text."""
    return [part for part in sentencex.segment(language, text) if part]


def passages(text: str, tokens: int, language: str = ANY_LANGUAGE) -> list[str]:
    """Whole sentences, as many as likely fit into so many tokens each; joined, they are the text.
    A sentence that is longer itself is cut at white space, or else between characters."""
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
    """Tokens of a text, roughly: four letters of the Latin alphabet make one, a character of
    another script is one of its own."""
    return sum(map(_cost, text))


def _cost(character: str) -> float:
    return 0.25 if character < "\u0250" else 1.0


def _pieces(sentence: str, tokens: int) -> list[str]:
    if len(sentence) <= tokens or estimate(sentence) <= tokens:
        return [sentence]
    made: list[str] = []
    start, space, size, since_space = 0, 0, 0.0, 0.0
    for match in _CHARACTER.finditer(sentence):
        cost = estimate(match[0])
        if size + cost > tokens and match.start() > start:
            at_space = space > start
            end = space if at_space else match.start()
            made.append(sentence[start:end])
            start, size = end, since_space if at_space else 0.0
        size += cost
        since_space += cost
        if match[0].isspace():
            space, since_space = match.end(), 0.0
    made.append(sentence[start:])
    return made
