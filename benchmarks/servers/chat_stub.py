"""An OpenAI-compatible chat that answers at once: sixteen tokens, or a chunk for each of them.

Run by uvicorn as ``chat_stub:app``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

WORDS = [f"word{number} " for number in range(16)]
USAGE = {"prompt_tokens": 21, "completion_tokens": len(WORDS), "total_tokens": 21 + len(WORDS)}
HEAD = {"id": "chatcmpl-stub", "created": 1, "model": "stub"}


def _chunk(delta: dict[str, str], finish: str | None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {**HEAD, "object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


ANSWER = json.dumps(
    {
        **HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "".join(WORDS)},
                "finish_reason": "length",
            }
        ],
        "usage": USAGE,
    }
).encode()
CHUNKS = [
    _chunk({"role": "assistant", "content": ""}, None),
    *(_chunk({"content": word}, None) for word in WORDS),
    _chunk({}, "length", usage=USAGE) + b"data: [DONE]\n\n",
]

Message = dict[str, Any]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", scope["method"] == "POST"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    stream = b'"stream": true' in body or b'"stream":true' in body
    kind = b"text/event-stream" if stream else b"application/json"
    headers = [(b"content-type", kind)]
    if not stream:
        headers.append((b"content-length", str(len(ANSWER)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if not stream:
        await send({"type": "http.response.body", "body": ANSWER})
        return
    for chunk in CHUNKS:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})
