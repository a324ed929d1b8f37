"""Neutral events → OpenAI's objects and chunks: what clients read, byte by byte where it counts."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openmaas.errors import EngineFailed
from openmaas.gateway import openai_chat_answer, openai_completions_answer, openai_embeddings
from openmaas.gateway.openai_chat_stream import ChatStream
from openmaas.gateway.openai_completions_answer import CompletionStream
from openmaas.inference import (
    Delta,
    Embedded,
    Event,
    Finished,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

# A busy machine is no failure.
UNTIMED = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

HELLO: list[Event] = [
    Delta(text="Hel"),
    Delta(text='lo "you" 你'),
    Delta(finish="stop"),
    Finished(usage=Usage(input_tokens=5, output_tokens=3, cached_tokens=2)),
]
CALLS: list[Event] = [
    Delta(tool_calls=[ToolCallDelta(index=0, id="c0", name="add", arguments='{"a"')]),
    Delta(tool_calls=[ToolCallDelta(index=0, arguments=":1}")]),
    Delta(tool_calls=[ToolCallDelta(index=1, id="c1", name="sub", arguments="{}")]),
    Delta(finish="tool_calls"),
    Finished(usage=Usage(input_tokens=5, output_tokens=9)),
]
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
}


def token(text: str, logprob: float | None, *others: tuple[str, float]) -> TokenLogprob:
    alternatives = [(other, other.encode(), value) for other, value in others]
    return TokenLogprob(text=text, bytes=text.encode(), logprob=logprob, alternatives=alternatives)


def plain(value: Any) -> Any:
    """What a client decodes."""
    return msgspec.json.decode(msgspec.json.encode(value))


def chat(events: list[Event]) -> dict[str, Any]:
    made: dict[str, Any] = plain(openai_chat_answer.answer(events, "chatcmpl-1", 7, "m", "3"))
    return made


def completion(events: list[Event]) -> dict[str, Any]:
    made: dict[str, Any] = plain(openai_completions_answer.answer(events, "cmpl-1", 7, "m", "3"))
    return made


def chunks(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of server-sent events, each of which is one ``data:`` line and a blank one."""
    *events, end = stream.split(b"\n\n")
    assert end == b""
    assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)
    return [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events]


def chat_chunks(events: list[Event], *, include_usage: bool = False) -> list[dict[str, Any]]:
    form = ChatStream("chatcmpl-1", 7, "m", "3", include_usage=include_usage)
    return chunks(b"".join(form.write([event]) for event in events))


def completion_chunks(events: list[Event], *, include_usage: bool = False) -> list[dict[str, Any]]:
    form = CompletionStream("cmpl-1", 7, "m", "3", include_usage=include_usage)
    return chunks(b"".join(form.write([event]) for event in events))


# --- chat --------------------------------------------------------------------------------


def test_a_chat_answer() -> None:
    assert chat(HELLO) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "system_fingerprint": "fp_3",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": 'Hello "you" 你', "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_a_chat_answer_with_tool_calls() -> None:
    (choice,) = chat(CALLS)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "c0", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
        {"id": "c1", "type": "function", "function": {"name": "sub", "arguments": "{}"}},
    ]


def test_choices_are_in_order_and_apart() -> None:
    events: list[Event] = [
        Delta(index=1, text="b"),
        Delta(index=0, text="a"),
        Delta(index=1, text="B", finish=None),
        Delta(index=1, finish="length"),
        Delta(index=0, finish="stop"),
        Finished(usage=Usage()),
    ]
    for made in (chat(events)["choices"], completion(events)["choices"]):
        assert [choice["index"] for choice in made] == [0, 1]
        assert [choice["finish_reason"] for choice in made] == ["stop", "length"]
    assert [choice["message"]["content"] for choice in chat(events)["choices"]] == ["a", "bB"]
    assert [choice["text"] for choice in completion(events)["choices"]] == ["a", "bB"]


def test_an_answer_of_no_text_is_empty_and_not_null() -> None:
    events: list[Event] = [Delta(finish="stop"), Finished(usage=Usage())]
    assert chat(events)["choices"][0]["message"]["content"] == ""


def test_chat_logprobs() -> None:
    tokens = [token("é", -0.5, ("é", -0.5), ("x", -math.inf)), token("y", math.nan)]
    events: list[Event] = [
        Delta(text="éy", logprobs=tokens),
        Delta(finish="stop"),
        Finished(usage=Usage()),
    ]
    expected = {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [
                    {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
                    {"token": "x", "logprob": -9999.0, "bytes": [120]},
                ],
            },
            {"token": "y", "logprob": -9999.0, "bytes": [121], "top_logprobs": []},
        ],
        "refusal": None,
    }
    assert chat(events)["choices"][0]["logprobs"] == expected
    streamed = [chunk["choices"][0] for chunk in chat_chunks(events)]
    assert [choice["logprobs"] for choice in streamed] == [None, expected, None]
    assert streamed[1]["delta"] == {"content": "éy"}


# --- chat chunks -------------------------------------------------------------------------


def test_chat_chunks_begin_with_the_role_and_end_without_text() -> None:
    made = chat_chunks(HELLO)
    deltas = [chunk["choices"][0]["delta"] for chunk in made]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": 'lo "you" 你'},
        {},
    ]
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in made]
    assert finishes == [None, None, None, "stop"]
    for chunk in made:
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["id"], chunk["created"], chunk["model"]) == ("chatcmpl-1", 7, "m")
        assert "usage" not in chunk


@pytest.mark.parametrize("form", [chat_chunks, completion_chunks])
def test_usage_comes_last_and_alone(form: Any) -> None:
    *before, last = form(HELLO, include_usage=True)
    assert all(chunk["usage"] is None for chunk in before)
    assert last["choices"] == []
    assert last["usage"] == USAGE


def test_every_choice_has_its_own_role_chunk() -> None:
    made = chat_chunks([Delta(index=0, text="a"), Delta(index=1, text="b")])
    roles = [c["choices"][0]["index"] for c in made if "role" in c["choices"][0]["delta"]]
    assert roles == [0, 1]


def test_tool_calls_in_chunks() -> None:
    deltas = [chunk["choices"][0]["delta"] for chunk in chat_chunks(CALLS)]
    parts = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert parts == [
        {
            "index": 0,
            "id": "c0",
            "type": "function",
            "function": {"name": "add", "arguments": '{"a"'},
        },
        {"index": 0, "function": {"arguments": ":1}"}},
        {
            "index": 1,
            "id": "c1",
            "type": "function",
            "function": {"name": "sub", "arguments": "{}"},
        },
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.text(st.characters(exclude_categories=["Cs"])))))
@UNTIMED
def test_chunks_say_what_the_whole_answer_says(pieces: list[tuple[int, str]]) -> None:
    events: list[Event] = [Delta(index=index, text=text) for index, text in pieces]
    indexes = sorted({index for index, _ in pieces})
    events += [Delta(index=index, finish="length") for index in indexes]
    events.append(Finished(usage=Usage()))
    streamed = dict.fromkeys(indexes, "")
    for chunk in chat_chunks(events):
        (choice,) = chunk["choices"]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    whole = {c["index"]: c["message"]["content"] for c in chat(events)["choices"]}
    assert streamed == whole
    texts = dict.fromkeys(indexes, "")
    for chunk in completion_chunks(events):
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == whole


# --- completions -------------------------------------------------------------------------

SCORED: list[Event] = [
    Delta(text="ab", logprobs=[token("a", None), token("b", -1.0, ("c", -0.25), ("d", -2.0))]),
    Delta(text="ef", logprobs=[token("ef", -0.5)]),
    Delta(finish="length"),
    Finished(usage=Usage(input_tokens=2, output_tokens=1)),
]


def test_completion_logprobs() -> None:
    (choice,) = completion(SCORED)["choices"]
    assert choice["text"] == "abef"
    assert choice["logprobs"] == {
        "tokens": ["a", "b", "ef"],
        "token_logprobs": [None, -1.0, -0.5],  # nothing comes before a prompt's first token
        # the chosen token is among the alternatives; null where the runtime knows none
        "top_logprobs": [None, {"c": -0.25, "d": -2.0, "b": -1.0}, None],
        "text_offset": [0, 1, 2],
    }


def test_completion_chunks_go_on_counting() -> None:
    made = [chunk["choices"][0] for chunk in completion_chunks(SCORED)]
    assert [choice["text"] for choice in made] == ["ab", "ef", ""]
    assert [choice["finish_reason"] for choice in made] == [None, None, "length"]
    assert made[0]["logprobs"]["text_offset"] == [0, 1]
    assert made[1]["logprobs"]["text_offset"] == [2]
    assert made[2]["logprobs"] is None


# --- embeddings --------------------------------------------------------------------------


def embedded(*numbers: float) -> Embedded:
    data = struct.pack(f"<{len(numbers)}f", *numbers)
    return Embedded(dimensions=2, data=data, usage=Usage(input_tokens=4))


def test_embeddings_as_numbers_and_as_base64() -> None:
    made = plain(openai_embeddings.answer(embedded(1, 0, 0, -1), "m", "float"))
    assert made == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, 0.0]},
            {"object": "embedding", "index": 1, "embedding": [0.0, -1.0]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    encoded = plain(openai_embeddings.answer(embedded(1, 0, 0, -1), "m", "base64"))
    rows = [base64.b64decode(row["embedding"]) for row in encoded["data"]]
    assert [struct.unpack("<2f", row) for row in rows] == [(1, 0), (0, -1)]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_embeddings_that_json_cannot_say_are_a_failure(number: float) -> None:
    with pytest.raises(EngineFailed):
        openai_embeddings.answer(embedded(number, 0), "m", "float")
