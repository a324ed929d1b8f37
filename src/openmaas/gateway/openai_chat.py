"""OpenAI's POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any

from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.openai_chat_answer import ChatCompletion, answer
from openmaas.gateway.openai_chat_stream import ChatStream
from openmaas.gateway.openai_messages import (
    ChatMessage,
    FunctionTool,
    ToolChoice,
    messages,
    tool_choice,
    tools,
)
from openmaas.gateway.openai_parameters import (
    Alternatives,
    Count,
    Sampled,
    include_usage,
    refuse,
    sampling,
    schema_text,
)
from openmaas.gateway.openai_stream import stream
from openmaas.inference import Chat


class TextFormat(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class ObjectFormat(Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    pass


class NamedSchema(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None  # the answer is held to the schema either way


class SchemaFormat(Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    json_schema: NamedSchema


class ChatBody(Sampled, forbid_unknown_fields=True, kw_only=True):
    """The body of a chat completion. Fields typed ``Any`` are refused unless they ask for
    nothing (``REFUSED``)."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None  # its older name
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None
    response_format: TextFormat | ObjectFormat | SchemaFormat | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    metadata: Any = None
    modalities: Any = None
    moderation: Any = None
    prediction: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    reasoning_effort: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    verbosity: Any = None
    web_search_options: Any = None


REFUSED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": ("in_memory",),
    "reasoning_effort": ("none",),
    "safety_identifier": (),
    "service_tier": ("auto", "default", "flex"),
    "store": (False,),
    "user": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Fields of the published API that are not done here, and the values that ask for nothing."""

ANY_OBJECT = '{"type":"object"}'


def request(body: ChatBody, schema_depth: int) -> Chat:
    """
    Raises:
        InvalidRequest: fields that contradict each other.
        PayloadTooLarge: a schema is too deep or too long.
        UnsupportedParameter: something that this server does not do.
    """
    refuse(body, REFUSED)
    known = tools(body.tools, body.tool_choice, schema_depth)
    return Chat(
        messages=messages(body.messages),
        tools=known,
        tool_choice=tool_choice(body.tool_choice, known),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        sampling=sampling(
            body,
            max_tokens=_max_tokens(body),
            logprobs=_logprobs(body),
            json_schema=_json_schema(body, schema_depth),
        ),
        n=1 if body.n is None else body.n,
    )


def _max_tokens(body: ChatBody) -> int | None:
    new, old = body.max_completion_tokens, body.max_tokens
    if new is not None and old is not None and new != old:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens are two names of one limit; give one",
            param="max_tokens",
        )
    return old if new is None else new


def _logprobs(body: ChatBody) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    return None


def _json_schema(body: ChatBody, depth: int) -> str | None:
    form = body.response_format
    if form is None or isinstance(form, TextFormat):
        return None
    if isinstance(form, ObjectFormat):
        return ANY_OBJECT
    schema = form.json_schema.schema
    if form.json_schema.description is not None:
        schema = {"description": form.json_schema.description} | schema
    return schema_text(schema, depth=depth, param="response_format.json_schema.schema")


async def chat_completions(exchange: Exchange) -> None:
    """Answers a conversation, whole or as server-sent events."""
    body = exchange.decode(await exchange.body(), ChatBody)
    usage = include_usage(body)
    neutral = request(body, exchange.limits.schema_depth)
    if body.service_tier == "flex":
        exchange.ticket.priority = "batch"
    call = await exchange.pipeline.submit(exchange.ticket, body.model, neutral)
    id = "chatcmpl-" + secrets.token_hex(12)
    created = int(time.time())
    if body.stream:
        form = ChatStream(id, created, call.model, call.version, include_usage=usage)
        await stream(exchange, call, form)
        return
    events = await exchange.collect(call)
    await exchange.respond_json(answer(events, id, created, call.model, call.version))


def endpoints() -> list[Endpoint]:
    return [
        Endpoint(
            "POST",
            "/v1/chat/completions",
            chat_completions,
            "openai",
            "Continue a conversation",
            body=ChatBody,
            response=ChatCompletion,
            task="chat",
        )
    ]
