"""Parts of a conversation, and the conversation without some of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec
import numpy as np
import regex
from numpy.typing import NDArray

from openmaas.inference import Message
from openmaas.tasks.passages import sentences

PartUnit = Literal["message", "document", "sentence", "word"]

# Words and not the model's tokens: half a word says nothing to a reader, a token may be half a
# character, and what remains of a text would be split into other tokens anyway.
_WORD = regex.compile(r"\S+\s*")
_DOCUMENT = regex.compile(r"\S.*?(?:\n\s*\n|\Z)", regex.DOTALL)  # what blank lines divide
_QUESTIONS = ("?", "？", "؟", "՞", ";")  # the last is the Greek one
_CLOSING = "\"'»”’)]」』"


class Part(msgspec.Struct, frozen=True):
    """``text`` is ``messages[message].content[start:end]``, white space after it included."""

    message: int
    start: int
    end: int
    text: str


def parts(
    messages: Sequence[Message], unit: PartUnit, fixed: Collection[int] | None = None
) -> list[Part]:
    """What can be taken out of a conversation, in order; nothing that is white space alone.

    Args:
        fixed: messages (by index) that stay whole. ``None``: what asks stays, unless it is all
            there is: the last user message where parts are messages, else its last sentence
            (or document) where that ends in a question.
    """
    found = [
        Part(at, start, end, content[start:end])
        for at, message in enumerate(messages)
        if (content := message.content or "") and at not in (fixed or ())
        for start, end in _spans(content, unit)
        if content[start:end].strip()
    ]
    if fixed is not None:
        return found
    asking = _asking(messages, unit)
    others = [part for part in found if asking is None or not _within(part, asking)]
    return others or found


def without(
    messages: Sequence[Message], parts: Sequence[Part], kept: NDArray[np.bool_]
) -> list[Message]:
    """The conversation with those parts alone that are ``kept`` (``bool[parts]``).

    A message that loses all its text stays, empty: many chat templates refuse a conversation in
    which user and assistant do not take turns, and none an empty turn.
    """
    texts = [message.content for message in messages]
    # From the last to the first, so that what is cut moves no other part.
    for part, keep in sorted(zip(parts, kept, strict=True), key=_place, reverse=True):
        text = texts[part.message]
        if not keep and text is not None:
            texts[part.message] = text[: part.start] + text[part.end :]
    return [
        message if text == message.content else msgspec.structs.replace(message, content=text)
        for message, text in zip(messages, texts, strict=True)
    ]


def _place(one: tuple[Part, np.bool_]) -> tuple[int, int]:
    return one[0].message, one[0].start


def _spans(content: str, unit: PartUnit) -> list[tuple[int, int]]:
    if unit == "message":
        return [(0, len(content))]
    if unit == "document":
        return [match.span() for match in _DOCUMENT.finditer(content)]
    if unit == "word":
        return [match.span() for match in _WORD.finditer(content)]
    spans: list[tuple[int, int]] = []
    at = 0
    for sentence in sentences(content):
        spans.append((at, at + len(sentence)))
        at += len(sentence)
    return spans


def _asking(messages: Sequence[Message], unit: PartUnit) -> Part | None:
    """What the model is asked: it is no evidence for the answer."""
    last = max((at for at, one in enumerate(messages) if one.role == "user"), default=None)
    if last is None or not (messages[last].content or "").strip():
        return None
    content = messages[last].content or ""
    if unit == "message":
        return Part(last, 0, len(content), content)
    whole: PartUnit = "document" if unit == "document" else "sentence"
    start, end = [span for span in _spans(content, whole) if content[slice(*span)].strip()][-1]
    asks = content[start:end].rstrip().rstrip(_CLOSING).endswith(_QUESTIONS)
    return Part(last, start, end, content[start:end]) if asks else None


def _within(part: Part, whole: Part) -> bool:
    return part.message == whole.message and whole.start <= part.start and part.end <= whole.end
