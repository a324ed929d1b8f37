"""The most that a request can use, known before it runs: what quotas reserve.

The gateway has no tokenizer, and needs none for a bound: a token stands for one byte at least.
"""

from __future__ import annotations

from openmaas.inference import (
    Attribute,
    Chat,
    Complete,
    Embed,
    Loglikelihood,
    Message,
    ModelInfo,
    Predict,
    Request,
    Score,
    Tag,
    Translate,
    Usage,
)

TEMPLATE = 64  # tokens that a chat template puts around a conversation …
TURN = 8  # … and around each message
TOOLS = 512  # what templates say about tools, beside the tools themselves
SPECIAL = 3  # around a text that is embedded, scored, tagged or translated
# Tokens that a translation has at the most by those of its sentence, whatever the runtime
TRANSLATED = ((32, 96), (128, 288), (1 << 62, 512))


def worst_case(request: Request, info: ModelInfo) -> Usage:
    """An upper bound of what a request will have used. Sampling must have been bounded."""
    context = info.context_tokens or (1 << 40)
    if isinstance(request, Predict):
        return Usage(rows=request.rows)
    if isinstance(request, Attribute):
        # each point goes forward and back, and so do both ends
        passes = 2 * (max(request.steps, request.most_steps) + 3)
        if request.text is None:
            return Usage(rows=passes)
        return Usage(input_tokens=passes * min(context, _size(request.text) + SPECIAL))
    if isinstance(request, Chat):
        prompt = min(context, _conversation(request.messages) + _tools(request))
        return Usage(
            input_tokens=prompt,
            output_tokens=min(context, request.sampling.max_tokens or context) * request.n,
        )
    if isinstance(request, Complete):
        answer = min(context, request.sampling.max_tokens or 0) * request.n
        return Usage(
            input_tokens=sum(min(context, _prompt(one)) for one in request.prompts),
            output_tokens=answer * len(request.prompts),
        )
    if isinstance(request, Loglikelihood):
        prompt = _conversation(request.messages)
        return Usage(input_tokens=min(context, prompt) + sum(map(_size, request.answers)))
    if isinstance(request, Translate):
        sizes = [min(context, _size(one) + SPECIAL) for one in request.inputs]
        longest = sum(next(long for most, long in TRANSLATED if size <= most) for size in sizes)
        return Usage(input_tokens=sum(sizes), output_tokens=longest)
    if isinstance(request, Embed):
        return Usage(input_tokens=sum(min(context, _size(one) + SPECIAL) for one in request.inputs))
    if isinstance(request, Score):
        pairs = (one if isinstance(one, tuple) else (one,) for one in request.inputs)
        return Usage(
            input_tokens=sum(min(context, sum(map(_size, pair)) + SPECIAL) for pair in pairs)
        )
    if isinstance(request, Tag) and request.truncate:
        return Usage(input_tokens=sum(min(context, _size(one) + SPECIAL) for one in request.inputs))
    return Usage(input_tokens=sum(_size(one) + SPECIAL for one in request.inputs))


def _conversation(messages: list[Message]) -> int:
    total = TEMPLATE
    for message in messages:
        total += TURN + _size(message.content or "") + _size(message.name or "")
        for call in message.tool_calls or ():
            total += TURN + _size(call.name) + _size(call.arguments) + _size(call.id)
    return total


def _tools(request: Chat) -> int:
    if not request.tools:
        return 0
    # Templates write parameters as JSON, some with more spaces than others.
    return TOOLS + sum(
        64 + _size(tool.name) + _size(tool.description or "") + 2 * len(repr(tool.parameters))
        for tool in request.tools
    )


def _prompt(text: str | list[int]) -> int:
    return _size(text) + (1 if isinstance(text, str) else 0)  # raw text begins with one of its own


def _size(text: str | list[int]) -> int:
    return len(text.encode(errors="replace")) if isinstance(text, str) else len(text)
