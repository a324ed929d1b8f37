"""OpenAI's own client against a server: the echo runtime where the exact answer matters, the
starter models where a real engine does."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.processes import ServerProcess

CHAT = "smollm2-135m"
EMBEDDER = "minilm-l6-v2"
SAID = "one two three 你好 four"


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as made:
        yield made


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


# --- chat --------------------------------------------------------------------------------


def test_a_chat(client: OpenAI) -> None:
    made = client.chat.completions.create(model="echo", messages=user(SAID), max_tokens=12)
    (choice,) = made.choices
    assert choice.message.role == "assistant"
    assert choice.message.content is not None
    assert choice.message.content.startswith("one two")
    assert choice.finish_reason == "length"
    assert made.id.startswith("chatcmpl-")
    assert made.model == "echo"
    assert made.system_fingerprint
    assert made.usage is not None
    assert made.usage.completion_tokens == 12
    assert made.usage.total_tokens == made.usage.prompt_tokens + 12


def test_a_stream_says_the_same(client: OpenAI) -> None:
    asked: Any = {"model": "echo", "messages": user(SAID), "max_tokens": 40, "n": 2}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks[:-1] if c.choices[0].index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(one.delta.content or "" for one in mine) == choice.message.content
        assert mine[-1].finish_reason == choice.finish_reason
        assert not mine[-1].delta.content
        assert all(one.finish_reason is None for one in mine[:-1])


def test_the_bytes_of_a_stream(server: ServerProcess) -> None:
    body = {"model": "echo", "messages": user("hi"), "max_tokens": 2, "stream": True}
    answer = server.client.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"]
    *events, end = answer.text.split("\n\n")
    assert end == ""
    assert events[-1] == "data: [DONE]"
    for event in events[:-1]:
        assert "usage" not in json.loads(event.removeprefix("data: "))


def test_a_failure_before_the_first_event_is_a_status(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model="echo", messages=user("x"), presence_penalty=1, stream=True
        )


def test_stop_strings_end_the_answer(client: OpenAI) -> None:
    made = client.chat.completions.create(model="echo", messages=user(SAID), stop=[" three"])
    assert made.choices[0].message.content == "one two"
    assert made.choices[0].finish_reason == "stop"


def test_logprobs_of_every_token(client: OpenAI) -> None:
    asked: Any = {"model": "echo", "messages": user("a bc d"), "max_tokens": 6}
    made = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    (choice,) = made.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    tokens = choice.logprobs.content
    assert len(tokens) == 6
    assert all(token.logprob < 0 and len(token.top_logprobs) == 3 for token in tokens)
    said = b"".join(bytes(token.bytes or []) for token in tokens)
    assert said.decode() == choice.message.content
    streamed = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3, stream=True)
    of = [chunk.choices[0].logprobs for chunk in streamed]
    again = [token for one in of if one is not None for token in one.content or []]
    assert again == tokens


def test_numbers_that_json_cannot_say_do_not_get_out(client: OpenAI) -> None:
    asked = user("a b c <<nan:1>>")
    made = client.chat.completions.create(model="echo", messages=asked, max_tokens=3, logprobs=True)
    assert made.choices[0].logprobs is not None
    logprobs = [token.logprob for token in made.choices[0].logprobs.content or []]
    assert logprobs[1:] == [-9999.0, -9999.0]


def test_an_answer_can_be_sent_back(client: OpenAI) -> None:
    made = client.chat.completions.create(model="echo", messages=user("x"), max_tokens=2)
    for back in (made.choices[0].message, made.choices[0].message.model_dump()):
        messages: list[Any] = [*user("x"), back, *user("y")]
        again = client.chat.completions.create(model="echo", messages=messages, max_tokens=1)
        assert again.choices[0].message.content == "y"


# --- errors ------------------------------------------------------------------------------


def test_errors_are_those_that_the_client_knows(server: ServerProcess, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no-such-model", messages=user("x"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="echo", messages=user("x"), temperature=3)
    assert (wrong.value.type, wrong.value.param) == ("invalid_request_error", "temperature")
    with pytest.raises(openai.BadRequestError) as unknown:
        client.chat.completions.create(
            model="echo", messages=user("x"), extra_body={"unheard_of": 1}
        )
    assert unknown.value.param == "unheard_of"
    with pytest.raises(openai.BadRequestError) as task:
        client.chat.completions.create(model=EMBEDDER, messages=user("x"))
    assert "does embed, not chat" in str(task.value)
    stranger = OpenAI(base_url=f"{server.url}/v1", api_key="om-wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"store": True}, "store"),
    ],
)
def test_what_a_runtime_cannot_honour_is_refused_by_name(
    client: OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="echo", messages=user("x"), **fields)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", param)


# --- completions -------------------------------------------------------------------------


def test_completions_of_several_prompts(client: OpenAI) -> None:
    made = client.completions.create(model="echo", prompt=["a b", "c d"], n=2, max_tokens=3)
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in made.choices]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    assert made.id.startswith("cmpl-")
    streamed = ["", "", "", ""]
    for chunk in client.completions.create(
        model="echo", prompt=["a b", "c d"], n=2, max_tokens=3, stream=True
    ):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == texts


def test_sixteen_tokens_unless_said_otherwise(client: OpenAI) -> None:
    made = client.completions.create(model="echo", prompt="a")
    assert made.usage is not None
    assert made.usage.completion_tokens == 16


@pytest.mark.parametrize("model", ["echo", CHAT])
def test_scoring_as_evaluation_harnesses_do(client: OpenAI, model: str) -> None:
    """lm-evaluation-harness: ``echo: true, logprobs: 1, max_tokens: 1`` with token ids."""
    prompt = [260, 359, 288, 411, 260]
    made = client.completions.create(
        model=model, prompt=prompt, echo=True, logprobs=1, max_tokens=1, temperature=0
    )
    (choice,) = made.choices
    assert choice.logprobs is not None
    scores = choice.logprobs.token_logprobs or []
    assert len(scores) == len(prompt) + 1
    assert scores[0] is None
    assert all(score is not None and -50 < score <= 0 for score in scores[1:])
    assert choice.logprobs.tokens is not None
    assert len(choice.logprobs.tokens) == len(choice.logprobs.top_logprobs or []) == len(scores)
    offsets = choice.logprobs.text_offset or []
    assert offsets[0] == 0
    assert all(low <= high for low, high in itertools.pairwise(offsets))


# --- a real language model ---------------------------------------------------------------


def test_a_real_model_answers(client: OpenAI) -> None:
    asked: Any = {
        "model": CHAT,
        "messages": user("What color is the sky?"),
        "temperature": 0,
        "max_tokens": 24,
    }
    made = client.chat.completions.create(**asked)
    assert "blue" in (made.choices[0].message.content or "")
    chunks = client.chat.completions.create(**asked, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == made.choices[0].message.content


def test_a_seed_repeats_the_answer(client: OpenAI) -> None:
    said = {
        client.chat.completions.create(
            model=CHAT, messages=user("Tell me a story."), seed=7, max_tokens=16
        )
        .choices[0]
        .message.content
        for _ in range(2)
    }
    assert len(said) == 1


def test_json_that_follows_a_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "big": {"type": "boolean"},
        },
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    made = client.chat.completions.create(
        model=CHAT,
        messages=user("Describe Paris as JSON."),
        temperature=0,
        max_tokens=80,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": schema, "strict": True},
        },
    )
    said = json.loads(made.choices[0].message.content or "")
    assert set(said) == {"city", "big"}
    assert isinstance(said["city"], str)
    assert isinstance(said["big"], bool)


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def test_a_demanded_tool_call(client: OpenAI) -> None:
    asked: Any = {
        "model": CHAT,
        "messages": user("What is the weather in Paris?"),
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "temperature": 0,
        "max_tokens": 80,
    }
    made = client.chat.completions.create(**asked)
    (call,) = made.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    with client.chat.completions.stream(**asked) as events:
        final = events.get_final_completion()
    (streamed,) = final.choices[0].message.tool_calls or []
    assert streamed.function.name == "weather"
    assert streamed.function.arguments == call.function.arguments
    answered: list[Any] = [
        *asked["messages"],
        made.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    again = client.chat.completions.create(
        model=CHAT, messages=answered, tools=[WEATHER], max_tokens=8
    )
    assert again.choices


# --- embeddings --------------------------------------------------------------------------


def test_embeddings(client: OpenAI) -> None:
    texts = ["A cat sleeps.", "A kitten naps.", "Stocks fell sharply."]
    made = client.embeddings.create(model=EMBEDDER, input=texts)  # base64 on the wire
    vectors = [row.embedding for row in made.data]
    assert [row.index for row in made.data] == [0, 1, 2]
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-4) for vector in vectors)
    likeness = [sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:]]
    assert likeness[0] > likeness[1] + 0.2
    assert made.usage.prompt_tokens == made.usage.total_tokens > 0
    plain = client.embeddings.create(model=EMBEDDER, input=texts[0], encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(vectors[0], abs=1e-4)


def test_shortened_embeddings(client: OpenAI) -> None:
    full = client.embeddings.create(model=EMBEDDER, input="A cat.", encoding_format="float")
    short = client.embeddings.create(
        model=EMBEDDER, input="A cat.", dimensions=8, encoding_format="float"
    )
    head = full.data[0].embedding[:8]
    norm = math.hypot(*head)
    assert short.data[0].embedding == pytest.approx([x / norm for x in head], abs=1e-4)


def test_base64_is_float32(server: ServerProcess) -> None:
    body = {"model": EMBEDDER, "input": "x", "encoding_format": "base64"}
    row = server.client.post("/v1/embeddings", json=body).json()["data"][0]
    assert len(base64.b64decode(row["embedding"], validate=True)) == 384 * 4


# --- models ------------------------------------------------------------------------------


def test_models(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"echo", CHAT, EMBEDDER, "digits"} <= listed.keys()
    assert client.models.retrieve(CHAT) == listed[CHAT]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")
