"""OpenAI bodies → neutral requests: what is passed on, and what is refused by which name."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openmaas.errors import InvalidRequest, OpenMaaSError, PayloadTooLarge, UnsupportedParameter
from openmaas.gateway import openai_chat, openai_completions, openai_embeddings
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.openai_chat import ChatBody
from openmaas.gateway.openai_completions import CompletionBody
from openmaas.gateway.openai_embeddings import EmbeddingBody
from openmaas.gateway.openai_parameters import include_usage, refuse
from openmaas.inference import Chat, Complete, Message, Sampling, Tool, ToolCall

# A busy machine is no failure.
UNTIMED = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

DEPTH = 8
USER = {"role": "user", "content": "hello"}
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def decode(raw: bytes, kind: Any) -> Any:
    async def never() -> Any:
        raise AssertionError("decoding reads nothing")

    async def nothing(_: object) -> None:
        raise AssertionError("decoding sends nothing")

    return Exchange({"headers": []}, never, nothing, "req_0").decode(raw, kind)


def chat(**fields: Any) -> Chat:
    body = {"model": "m", "messages": [USER]} | fields
    decoded = decode(msgspec.json.encode(body), ChatBody)
    include_usage(decoded)
    return openai_chat.request(decoded, DEPTH)


def complete(**fields: Any) -> Complete:
    body = {"model": "m", "prompt": "hello"} | fields
    return openai_completions.request(decode(msgspec.json.encode(body), CompletionBody))


def test_defaults() -> None:
    left = ["temperature", "top_p", "top_k"]
    sampling = Sampling(left_to_model=left)
    assert chat() == Chat(messages=[Message(role="user", content="hello")], sampling=sampling)
    sampling = Sampling(max_tokens=16, left_to_model=left)
    assert complete() == Complete(prompts=["hello"], sampling=sampling)
    assert chat(top_p=0.5).sampling.left_to_model == ["temperature", "top_k"]
    assert chat(top_k=0, top_p=None).sampling.left_to_model == ["temperature", "top_p"]


def test_every_sampling_parameter_is_passed_on() -> None:
    shared = {
        "n": 3,
        "stop": ["a", "b"],
        "seed": -5,
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 7,
        "presence_penalty": -2,
        "frequency_penalty": 2,
        "logit_bias": {"50256": -100, "7": 1.5},
        "ignore_eos": True,
    }
    expected = Sampling(
        max_tokens=9,
        temperature=0.5,
        top_p=0.25,
        top_k=7,
        seed=-5,
        stop=["a", "b"],
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        logit_bias={50256: -100.0, 7: 1.5},
        logprobs=4,
        ignore_eos=True,
    )
    given = chat(**shared, max_completion_tokens=9, logprobs=True, top_logprobs=4)
    assert (given.n, given.sampling) == (3, expected)
    completion = complete(**shared, max_tokens=9, logprobs=4, echo=True)
    assert (completion.n, completion.sampling, completion.echo) == (3, expected, True)


def test_two_names_of_the_token_limit() -> None:
    assert chat(max_tokens=5).sampling.max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=5).sampling.max_tokens == 5
    with pytest.raises(InvalidRequest) as raised:
        chat(max_tokens=5, max_completion_tokens=6)
    assert raised.value.param == "max_tokens"


def test_stop_is_one_text_or_several() -> None:
    assert chat(stop="x").sampling.stop == ["x"]
    assert chat(stop=["x"]).sampling.stop == ["x"]
    assert chat(stop=None).sampling.stop == []
    with pytest.raises(InvalidRequest):
        chat(stop="")


def test_a_nucleus_of_no_mass_is_greedy() -> None:
    sampling = chat(top_p=0, temperature=1).sampling
    assert (sampling.temperature, sampling.top_p) == (0.0, 1.0)


@pytest.mark.parametrize("all_tokens", [0, -1, None])
def test_top_k_of_all_tokens_asks_for_nothing(all_tokens: int | None) -> None:
    assert chat(top_k=all_tokens).sampling.top_k is None


def test_logprobs_without_alternatives() -> None:
    assert chat(logprobs=True).sampling.logprobs == 0
    assert chat(logprobs=False).sampling.logprobs is None
    assert complete(logprobs=0).sampling.logprobs == 0


def test_messages_of_every_role() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    given = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "system", "content": [{"type": "text", "text": "a"}], "name": "s"},
            {"role": "user", "content": [{"type": "text", "text": t} for t in "bc"]},
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
            {"role": "assistant", "content": "four", "annotations": [], "audio": None},
        ]
    )
    assert given.messages == [
        Message(role="system", content="be brief"),
        Message(role="system", content="a", name="s"),
        Message(role="user", content="b\nc"),
        Message(role="assistant", tool_calls=[ToolCall(id="c1", name="add", arguments="{}")]),
        Message(role="tool", content="4", tool_call_id="c1"),
        Message(role="assistant", content="four"),
    ]


def test_tools_and_their_choice() -> None:
    given = chat(tools=[ADD], parallel_tool_calls=False)
    assert given.tools == [Tool(name="add", parameters={"type": "object"})]
    assert (given.tool_choice, given.parallel_tool_calls) == ("auto", False)
    assert chat(tools=[ADD], tool_choice="required").tool_choice == "required"
    named = {"type": "function", "function": {"name": "add"}}
    assert chat(tools=[ADD], tool_choice=named).tool_choice == "function:add"


def test_strict_tools_where_the_call_is_forced() -> None:
    strict = msgspec.json.decode(msgspec.json.encode(ADD))
    strict["function"]["strict"] = True
    assert chat(tools=[strict], tool_choice="required").tools[0].name == "add"
    with pytest.raises(UnsupportedParameter) as raised:
        chat(tools=[strict])
    assert raised.value.param == "tools[0].function.strict"


def test_response_formats() -> None:
    def schema_of(form: dict[str, Any]) -> str | None:
        return chat(response_format=form).sampling.json_schema

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert schema_of({"type": "text"}) is None
    assert schema_of({"type": "json_object"}) == '{"type":"object"}'
    made = schema_of({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}})
    assert made is not None
    assert msgspec.json.decode(made) == schema


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"not": schema}
    return schema


def test_schemas_are_bounded_in_depth_and_size() -> None:
    def of(schema: dict[str, Any]) -> Chat:
        form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        return chat(response_format=form)

    of(nested(DEPTH))
    with pytest.raises(PayloadTooLarge):
        of(nested(DEPTH + 1))
    with pytest.raises(PayloadTooLarge):
        of({"enum": ["x" * 70_000]})
    with pytest.raises(PayloadTooLarge) as raised:
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": nested(9)}}])
    assert raised.value.param == "tools[0].function.parameters"


ASKS_FOR_NOTHING: dict[str, Any] = {
    "store": False,
    "service_tier": "auto",
    "modalities": ["text"],
    "metadata": {},
    "functions": [],
    "function_call": "none",
    "reasoning_effort": "none",
    "verbosity": "medium",
}


def test_defaults_that_ask_for_nothing_pass() -> None:
    assert chat(**ASKS_FOR_NOTHING) == chat()
    assert complete(best_of=1, suffix="") == complete()
    assert complete(n=2, best_of=2).n == 2


@pytest.mark.parametrize("name", sorted(openai_chat.REFUSED))
def test_null_asks_for_nothing(name: str) -> None:
    assert chat(**{name: None}) == chat()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store", True),
        ("store", 0),  # not false: nothing is guessed
        ("service_tier", "priority"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x", "format": "wav"}),
        ("metadata", {"a": "b"}),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "high"),
        ("verbosity", "low"),
        ("web_search_options", {}),
        ("user", "u"),
        ("safety_identifier", "u"),
        ("prompt_cache_key", "k"),
        ("prompt_cache_retention", "24h"),
        ("moderation", {}),
    ],
)
def test_what_is_not_done_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UnsupportedParameter) as raised:
        chat(**{name: value})
    assert raised.value.param == name
    assert name in raised.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}},
         "stream_options.include_obfuscation"),
        ({"tools": [ADD, ADD]}, "tools[1].function.name"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "x"}}},
         "tool_choice"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant"}]}, "messages[0]"),
        ({"messages": [{"role": "assistant", "content": "a", "refusal": "no"}]},
         "messages[0].refusal"),
        ({"messages": [{"role": "tool", "content": "4", "tool_call_id": "c"}]},
         "messages[0].tool_call_id"),
        ({"messages": [USER | {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[0].role"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"seed": 2**63}, "seed"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"stop": [""]}, "stop[0]"),
        ({"model": ""}, "model"),
    ],
)  # fmt: skip
def test_wrong_chats_name_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        chat(**fields)
    assert raised.value.param == param


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode(b'{"model":"m"}', ChatBody)
    assert raised.value.param == "messages"


def test_prompts_as_texts_and_token_ids() -> None:
    assert complete(prompt="a").prompts == ["a"]
    assert complete(prompt=["a", "b"]).prompts == ["a", "b"]
    assert complete(prompt=[1, 2]).prompts == [[1, 2]]
    assert complete(prompt=[[1, 2], [3]]).prompts == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"user": "x"}, "user"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_wrong_completions_name_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        complete(**fields)
    assert raised.value.param == param


LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
FLAT = LEAF | st.lists(LEAF, max_size=5) | st.dictionaries(st.text(), LEAF, max_size=5)
JSON = FLAT | st.lists(FLAT, max_size=5) | st.dictionaries(st.text(), FLAT, max_size=5)


def bodies(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies with known names and any values, which get deeper than any JSON would."""
    names = st.sampled_from(kind.__struct_encode_fields__)
    return st.dictionaries(names | st.text(), JSON, max_size=12)


def translate(raw: bytes) -> None:
    for kind, request in (
        (ChatBody, lambda body: openai_chat.request(body, DEPTH)),
        (CompletionBody, openai_completions.request),
        (EmbeddingBody, lambda body: refuse(body, openai_embeddings.REFUSED)),
    ):
        with contextlib.suppress(OpenMaaSError):
            request(decode(raw, kind))


@given(bodies(ChatBody) | bodies(CompletionBody) | bodies(EmbeddingBody))
@UNTIMED
def test_any_json_is_translated_or_refused(body: dict[str, Any]) -> None:
    translate(msgspec.json.encode({"model": "m", "messages": [USER], "prompt": "p"} | body))


@given(st.binary())
@UNTIMED
def test_any_bytes_are_refused(raw: bytes) -> None:
    translate(raw)
