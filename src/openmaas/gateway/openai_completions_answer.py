"""Neutral events → OpenAI's text completion object and its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from openmaas.gateway.openai_chat_answer import TokenUsage, fingerprint, finite, usage
from openmaas.inference import Delta, Event, Finished, FinishReason, TokenLogprob, Usage

_json = msgspec.json.Encoder().encode


class CompletionLogprobs(Struct):
    """Lists of one entry per token; null where there is nothing to say: no context before a
    prompt's first token, no alternatives asked for or known."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]  # characters from the start of the choice's text


class CompletionChoice(Struct):
    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class Completion(Struct):
    id: str
    created: int  # Unix seconds
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: TokenUsage
    object: Literal["text_completion"] = "text_completion"


def logprobs(tokens: Sequence[TokenLogprob], offset: int) -> CompletionLogprobs:
    """
    Args:
        offset: characters of the choice's tokens before these.
    """
    made = CompletionLogprobs([], [], [], [])
    for token in tokens:
        made.tokens.append(token.text)
        made.text_offset.append(offset)
        offset += len(token.text)
        if token.logprob is None:
            made.token_logprobs.append(None)
            made.top_logprobs.append(None)
            continue
        logprob = finite(token.logprob)
        made.token_logprobs.append(logprob)
        made.top_logprobs.append(_alternatives(token, logprob))
    return made


def _alternatives(token: TokenLogprob, logprob: float) -> dict[str, float] | None:
    if not token.alternatives:
        return None
    found: dict[str, float] = {}
    for text, _, other in token.alternatives:
        found.setdefault(text, finite(other))  # likeliest first: a later twin does not replace it
    found.setdefault(token.text, logprob)  # the chosen token is always among them
    return found


class _Choice:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.tokens: list[TokenLogprob] | None = None
        self.finish: FinishReason = "stop"


def answer(events: Sequence[Event], id: str, created: int, model: str, version: str) -> Completion:
    """The whole answer from all events of a call, the last of which is ``Finished``."""
    choices: dict[int, _Choice] = {}
    used = Usage()
    for event in events:
        if isinstance(event, Delta):
            choice = choices.get(event.index)
            if choice is None:
                choice = choices[event.index] = _Choice()
            if event.text:
                choice.texts.append(event.text)
            if event.logprobs is not None:
                choice.tokens = choice.tokens or []
                choice.tokens += event.logprobs
            if event.finish is not None:
                choice.finish = event.finish
        elif isinstance(event, Finished):
            used = event.usage
    return Completion(
        id=id,
        created=created,
        model=model,
        system_fingerprint=fingerprint(version),
        choices=[
            CompletionChoice(
                text="".join(choice.texts),
                index=index,
                logprobs=None if choice.tokens is None else logprobs(choice.tokens, 0),
                finish_reason=choice.finish,
            )
            for index, choice in sorted(choices.items())
        ],
        usage=usage(used),
    )


class CompletionStream:
    """Chunks of one answer. With ``include_usage`` one without choices ends it and says the
    usage, and the others have ``usage: null``."""

    def __init__(
        self, id: str, created: int, model: str, version: str, *, include_usage: bool
    ) -> None:
        head = {
            "id": id,
            "object": "text_completion",
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint(version),
        }
        self._head = b"data: " + _json(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._include_usage = include_usage
        self._offsets: dict[int, int] = {}  # choice → characters of its tokens so far

    def write(self, events: Sequence[Event]) -> bytes:
        """Whole server-sent events, each ending in a blank line."""
        parts: list[bytes] = []
        for event in events:
            if isinstance(event, Delta):
                if event.text or event.logprobs is not None:
                    parts.append(self._chunk(event.index, event.text, self._logprobs(event)))
                if event.finish is not None:
                    parts.append(self._chunk(event.index, "", b"null", _json(event.finish)))
            elif isinstance(event, Finished) and self._include_usage:
                parts += (self._head, b'],"usage":', _json(usage(event.usage)), b"}\n\n")
        return b"".join(parts)

    def _logprobs(self, delta: Delta) -> bytes:
        if delta.logprobs is None:
            return b"null"
        offset = self._offsets.get(delta.index, 0)
        self._offsets[delta.index] = offset + sum(len(token.text) for token in delta.logprobs)
        return _json(logprobs(delta.logprobs, offset))

    def _chunk(self, index: int, text: str, logprobs: bytes, finish: bytes = b"null") -> bytes:
        return b'%b{"text":%b,"index":%d,"logprobs":%b,"finish_reason":%b}%b' % (
            self._head, _json(text), index, logprobs, finish, self._tail,
        )  # fmt: skip
