"""Explanations of texts whose personal data models did not see: told of the texts as given."""

from __future__ import annotations

from typing import Any

import msgspec

from openmaas.explaining.explanation import Attribution, Explanation, Piece
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.explain.body import How
from openmaas.gateway.explain.inquiry import Subject
from openmaas.inference import Message
from openmaas.serving.redacting.redaction import Hidden, Redaction


async def seen(exchange: Exchange, text: str) -> str:
    """A text as models may see it, by the caller's redaction policy.

    Raises:
        PersonalData: the policy refuses what is in it.
    """
    redaction = await _redaction(exchange)
    return text if redaction is None else (await redaction.texts([text], "input"))[0]


async def seen_messages(exchange: Exchange, messages: list[Message]) -> list[Message]:
    """As ``seen``, of a conversation."""
    redaction = await _redaction(exchange)
    return messages if redaction is None else await redaction.conversation(messages)


async def seen_how(exchange: Exchange, how: How) -> How:
    """As ``seen``, of the words that a caller gives beside the input."""
    redaction = await _redaction(exchange)
    if redaction is None:
        return how
    changed: dict[str, Any] = {}
    for name in ("target", "hypothesis_template", "baseline", "answer"):
        value = getattr(how, name, None)
        if isinstance(value, str):
            (changed[name],) = await redaction.texts([value], name)
    if how.labels is not None:
        changed["labels"] = await redaction.texts(how.labels, "labels")
    return msgspec.structs.replace(how, **changed)


def told(found: Explanation, exchange: Exchange, subject: Subject) -> Explanation:
    """An explanation in the caller's own words: a placeholder is one piece, whose share is that of
    its parts added up, and places are those of the given texts."""
    redaction = exchange.ticket.redaction
    if redaction is None or not redaction.hides:
        return found
    attributions = [_attribution(one, redaction, subject) for one in found.attributions]
    return msgspec.structs.replace(found, attributions=attributions)


def shown(exchange: Exchange, given: Any) -> Any:
    """The input for pictures, in the caller's own words."""
    redaction = exchange.ticket.redaction
    if redaction is None or not redaction.hides:
        return given
    return _shown(given, redaction)


async def _redaction(exchange: Exchange) -> Redaction | None:
    if exchange.caller.redaction.action == "off":
        return None
    return await exchange.pipeline.redaction(exchange.ticket)


def _shown(given: Any, redaction: Redaction) -> Any:
    if isinstance(given, str):
        return redaction.known(given).given
    if isinstance(given, list):
        return [_shown(one, redaction) for one in given]
    if isinstance(given, dict):
        return {name: _shown(one, redaction) for name, one in given.items()}
    return given


def _attribution(given: Attribution, redaction: Redaction, subject: Subject) -> Attribution:
    shares = given.featureAttributions
    if isinstance(shares, list) and all(isinstance(one, Piece) for one in shares):
        shares = _pieces(shares, redaction, subject)
    name = redaction.known(given.outputDisplayName).given
    return msgspec.structs.replace(given, featureAttributions=shares, outputDisplayName=name)


def _pieces(pieces: list[Piece], redaction: Redaction, subject: Subject) -> list[Piece]:
    texts: dict[int | None, Hidden] = {}
    made: list[Piece] = []
    for piece in pieces:
        text = texts.get(piece.message)
        if text is None:
            whole = (
                subject.shown if piece.message is None else subject.shown[piece.message]["content"]
            )
            text = texts[piece.message] = redaction.known(whole)
        start, end = text.places.given(piece.start, piece.end)
        last = made[-1] if made else None
        if last is not None and last.message == piece.message and start < last.end:
            end = max(end, last.end)
            made[-1] = _joined(last, piece, text.given[last.start : end], end)
        else:
            words = text.given[start:end]
            made.append(msgspec.structs.replace(piece, text=words, start=start, end=end))
    return made


def _joined(one: Piece, other: Piece, text: str, end: int) -> Piece:
    """Two parts of a placeholder. What was measured of each alone does not hold for both."""
    logprob = one.logprob
    if logprob is not None and other.logprob is not None:
        logprob += other.logprob
    return msgspec.structs.replace(
        one,
        text=text,
        end=end,
        attribution=one.attribution + other.attribution,
        low=None,
        high=None,
        logprob=logprob,
        alternatives=[],
    )
