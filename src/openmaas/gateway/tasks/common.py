"""What the bodies and answers of all language tasks share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest, PayloadTooLarge
from openmaas.gateway.openai_parameters import ModelName

if TYPE_CHECKING:
    from openmaas.config import Limits
    from openmaas.gateway.exchange import Exchange
    from openmaas.serving.asking import Asking

Input = str | Annotated[list[str], Meta(min_length=1)]
Language = Annotated[str, Meta(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$")]
TEXTS_AT_ONCE = 8  # of those that take a task several requests


class TaskBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every task takes."""

    model: ModelName | None = None  # None: the deployed one that does the task best
    input: Input


class TaskUsage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TaskAnswer(Struct, kw_only=True):
    """What every task answers."""

    model: str
    version: str
    usage: TaskUsage


def texts(given: Input, limits: Limits, param: str = "input") -> list[str]:
    """One text or several, none of them empty or too long.

    Raises:
        InvalidRequest, PayloadTooLarge: one is.
    """
    found = [given] if isinstance(given, str) else given
    if len(found) > limits.inputs:
        raise InvalidRequest(
            f"{param}: {len(found)} texts are over the limit of {limits.inputs}", param=param
        )
    for index, text in enumerate(found):
        if not text.strip():
            raise InvalidRequest(f"{param} {index} is empty", param=param)
    total = sum(map(len, found))
    if total > limits.text_characters:
        raise PayloadTooLarge(
            f"{param} has {total} characters; the limit of one call is {limits.text_characters}",
            param=param,
        )
    return found


async def hidden(exchange: Exchange, found: Sequence[str], param: str = "input") -> list[str]:
    """Texts as models may see them, by the caller's redaction policy. What the task makes of them
    is to go through ``restored``.

    Raises:
        PersonalData: the policy refuses what is in one.
    """
    if exchange.caller.redaction.action == "off":
        return list(found)
    redaction = await exchange.pipeline.redaction(exchange.ticket)
    return await redaction.texts(found, param)


async def restored(exchange: Exchange, text: str) -> str:
    """A task's answer as its caller may see it.

    Raises:
        PersonalData: a model made some up, and the policy refuses them.
    """
    redaction = exchange.ticket.redaction
    return text if redaction is None else await redaction.answered(text)


async def restored_pieces(
    exchange: Exchange, pieces: AsyncGenerator[str, None]
) -> AsyncGenerator[str, None]:
    """As ``restored``, of an answer that comes in pieces."""
    redaction = exchange.ticket.redaction
    if redaction is None:
        async for piece in pieces:
            yield piece
        return
    outgoing = redaction.outgoing()
    async for piece in pieces:
        text = outgoing.feed(piece)
        if text:
            yield text
    text = outgoing.end()
    if text:
        yield text


def used(model: Asking) -> TaskUsage:
    tokens = model.usage
    total = tokens.input_tokens + tokens.output_tokens
    return TaskUsage(tokens.input_tokens, tokens.output_tokens, total)


def event(value: Struct) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
