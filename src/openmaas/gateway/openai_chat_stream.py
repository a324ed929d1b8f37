"""Neutral events → OpenAI's chat completion chunks, made by pasting text: this runs once for
every token of every stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from openmaas.gateway.openai_chat_answer import ChatLogprobs, chat_logprob, fingerprint, usage
from openmaas.inference import Delta, Event, Finished, ToolCallDelta

_json = msgspec.json.Encoder().encode


class ChatStream:
    """Chunks of one answer.

    The first of each choice says the role, the last why it ended; with ``include_usage`` one
    without choices follows that says the usage, and the others have ``usage: null``.
    """

    def __init__(
        self, id: str, created: int, model: str, version: str, *, include_usage: bool
    ) -> None:
        head = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint(version),
        }
        self._head = b"data: " + _json(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._include_usage = include_usage
        self._begun: set[int] = set()

    def write(self, events: Sequence[Event]) -> bytes:
        """Whole server-sent events, each ending in a blank line."""
        parts: list[bytes] = []
        for event in events:
            if isinstance(event, Delta):
                self._delta(event, parts)
            elif isinstance(event, Finished) and self._include_usage:
                parts += (self._head, b'],"usage":', _json(usage(event.usage)), b"}\n\n")
        return b"".join(parts)

    def _delta(self, delta: Delta, parts: list[bytes]) -> None:
        index = delta.index
        if index not in self._begun:
            self._begun.add(index)
            role = b'{"role":"assistant","content":"","refusal":null}'
            parts.append(self._chunk(index, role))
        if delta.logprobs is not None:
            logprobs = _json(ChatLogprobs(content=[chat_logprob(t) for t in delta.logprobs]))
            content = b'{"content":' + _json(delta.text) + b"}"
            parts.append(self._chunk(index, content, logprobs=logprobs))
        elif delta.text:
            parts.append(self._chunk(index, b'{"content":' + _json(delta.text) + b"}"))
        if delta.tool_calls:
            calls = _json({"tool_calls": [_tool_call(part) for part in delta.tool_calls]})
            parts.append(self._chunk(index, calls))
        if delta.finish is not None:
            parts.append(self._chunk(index, b"{}", finish=_json(delta.finish)))

    def _chunk(
        self, index: int, delta: bytes, *, logprobs: bytes = b"null", finish: bytes = b"null"
    ) -> bytes:
        return b'%b{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}%b' % (
            self._head, index, delta, logprobs, finish, self._tail,
        )  # fmt: skip


def _tool_call(part: ToolCallDelta) -> dict[str, Any]:
    function = {"arguments": part.arguments}
    if part.id is None:
        return {"index": part.index, "function": function}
    named = {"name": part.name or ""} | function
    return {"index": part.index, "id": part.id, "type": "function", "function": named}
