"""Neutral events → OpenAI's chat completion object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from openmaas.inference import Delta, Event, Finished, FinishReason, TokenLogprob, Usage

LEAST_LOGPROB = -9999.0  # stands for −∞, which JSON does not have; OpenAI's own convention


class TopLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct):
    content: list[ChatTokenLogprob]
    refusal: None = None


class AnsweredFunction(Struct):
    name: str
    arguments: str


class AnsweredToolCall(Struct):
    id: str
    function: AnsweredFunction
    type: Literal["function"] = "function"


class AnsweredMessage(Struct, omit_defaults=True):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[AnsweredToolCall] | None = None


class ChatChoice(Struct):
    index: int
    message: AnsweredMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class PromptTokensDetails(Struct):
    cached_tokens: int


class TokenUsage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ChatCompletion(Struct):
    id: str
    created: int  # Unix seconds
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: TokenUsage
    object: Literal["chat.completion"] = "chat.completion"


def usage(used: Usage) -> TokenUsage:
    return TokenUsage(
        prompt_tokens=used.input_tokens,
        completion_tokens=used.output_tokens,
        total_tokens=used.input_tokens + used.output_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=used.cached_tokens),
    )


def fingerprint(version: str) -> str:
    """What ``system_fingerprint`` says: two answers with one fingerprint came from one version.
    A digest is shortened to twelve digits."""
    return "fp_" + version.removeprefix("sha256:")[:12]


def finite(logprob: float | None) -> float:
    """The log-probability as JSON can say it."""
    # NaN fails the comparison, and so becomes the least one too.
    return logprob if logprob is not None and logprob > LEAST_LOGPROB else LEAST_LOGPROB


def chat_logprob(token: TokenLogprob) -> ChatTokenLogprob:
    return ChatTokenLogprob(
        token=token.text,
        logprob=finite(token.logprob),
        bytes=list(token.bytes),
        top_logprobs=[
            TopLogprob(token=text, logprob=finite(logprob), bytes=list(raw))
            for text, raw, logprob in token.alternatives
        ],
    )


class _Choice:
    """What the deltas of one choice add up to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.logprobs: list[ChatTokenLogprob] | None = None
        self.tool_calls: dict[int, AnsweredToolCall] = {}
        self.finish: FinishReason = "stop"

    def add(self, delta: Delta) -> None:
        if delta.text:
            self.texts.append(delta.text)
        if delta.logprobs is not None:
            self.logprobs = (self.logprobs or []) + [chat_logprob(t) for t in delta.logprobs]
        for part in delta.tool_calls or ():
            call = self.tool_calls.get(part.index)
            if call is None:
                call = AnsweredToolCall(id="", function=AnsweredFunction(name="", arguments=""))
                self.tool_calls[part.index] = call
            call.id = part.id or call.id
            call.function.name = part.name or call.function.name
            call.function.arguments += part.arguments
        if delta.finish is not None:
            self.finish = delta.finish

    def made(self, index: int) -> ChatChoice:
        calls = [call for _, call in sorted(self.tool_calls.items())]
        text = "".join(self.texts)
        return ChatChoice(
            index=index,
            message=AnsweredMessage(
                role="assistant",
                content=text if text or not calls else None,
                refusal=None,
                tool_calls=calls or None,
            ),
            logprobs=None if self.logprobs is None else ChatLogprobs(content=self.logprobs),
            finish_reason=self.finish,
        )


def answer(
    events: Sequence[Event], id: str, created: int, model: str, version: str
) -> ChatCompletion:
    """The whole answer from all events of a call, the last of which is ``Finished``."""
    choices: dict[int, _Choice] = {}
    used = Usage()
    for event in events:
        if isinstance(event, Delta):
            choice = choices.get(event.index)
            if choice is None:
                choice = choices[event.index] = _Choice()
            choice.add(event)
        elif isinstance(event, Finished):
            used = event.usage
    return ChatCompletion(
        id=id,
        created=created,
        model=model,
        system_fingerprint=fingerprint(version),
        choices=[choice.made(index) for index, choice in sorted(choices.items())],
        usage=usage(used),
    )
