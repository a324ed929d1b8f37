"""Tool calls as models write them, read from streams."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmaas.errors import InvalidRequest
from openmaas.inference import Tool, ToolCallDelta
from openmaas.tasks.choice import Calls
from openmaas.tasks.forced import ForcedCall, schema_for
from openmaas.tasks.schema import check
from openmaas.tasks.tools import (
    HermesParser,
    LlamaParser,
    MistralParser,
    ToolParser,
    parser_for,
)

NAMES = {"weather", "time"}
HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
MISTRAL = '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]'
LLAMA = '{"name": "weather", "parameters": {"city": "Paris"}}'


def read(parser: Calls, pieces: list[str]) -> tuple[str, list[tuple[str, Any]]]:
    """The text, and the calls as (name, arguments)."""
    found = [parser.feed(piece) for piece in pieces] + [parser.finish()]
    calls: dict[int, list[ToolCallDelta]] = {}
    for delta in itertools.chain.from_iterable(deltas for _, deltas in found):
        calls.setdefault(delta.index, []).append(delta)
    assert list(calls) == list(range(parser.count))
    for parts in calls.values():
        assert parts[0].id
        assert parts[0].name
        assert all(part.id is None and part.name is None for part in parts[1:])
    read_calls = [
        (parts[0].name or "", json.loads("".join(part.arguments for part in parts)))
        for parts in calls.values()
    ]
    return "".join(text for text, _ in found), read_calls


PARIS = ("weather", {"city": "Paris"})


@pytest.mark.parametrize(
    ("kind", "text", "said", "calls"),
    [
        (HermesParser, "just text", "just text", []),
        (HermesParser, "text \n", "text \n", []),
        (HermesParser, HERMES, "", [PARIS]),
        (HermesParser, f"Let me see.\n{HERMES}\n{HERMES}\n", "Let me see.", [PARIS, PARIS]),
        (HermesParser, f"{HERMES} Done.", " Done.", [PARIS]),
        (HermesParser, HERMES.removesuffix("</tool_call>"), "", [PARIS]),  # ended unclosed
        (
            HermesParser,
            "a <tool_call>{broken</tool_call> b",
            "a <tool_call>{broken</tool_call> b",
            [],
        ),
        (HermesParser, HERMES.replace("weather", "rm"), HERMES.replace("weather", "rm"), []),
        (HermesParser, "a < b <tool", "a < b <tool", []),
        (
            HermesParser,
            '<tool_call>{"name": "time", "arguments": "{\\"zone\\": 1}"}</tool_call>',
            "",
            [("time", {"zone": 1})],
        ),
        (MistralParser, "just text", "just text", []),
        (MistralParser, MISTRAL, "", [PARIS]),
        (MistralParser, f"Wait {MISTRAL}", "Wait ", [PARIS]),
        (MistralParser, '[TOOL_CALLS]weather{"city": "Paris"}', "", [PARIS]),
        (
            MistralParser,
            '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]time[ARGS]{}',
            "",
            [PARIS, ("time", {})],
        ),
        (MistralParser, "[TOOL_CALLS]nonsense", "[TOOL_CALLS]nonsense", []),
        (LlamaParser, "just text", "just text", []),
        (LlamaParser, LLAMA, "", [PARIS]),
        (LlamaParser, f"<|python_tag|>{LLAMA}; {LLAMA}", "", [PARIS, PARIS]),
        (LlamaParser, '{"a": 1}', '{"a": 1}', []),
        (LlamaParser, "<|python", "<|python", []),
        (LlamaParser, "  {oh", "  {oh", []),
    ],
)
def test_reads(kind: type[ToolParser], text: str, said: str, calls: list[Any]) -> None:
    assert read(kind(NAMES), [text]) == (said, calls)
    assert read(kind(NAMES), list(text)) == (said, calls)


FRAGMENTS = st.sampled_from(
    [
        "text", " ", "\n", "<", "<tool_call>", "</tool_call>", "<tool_", "{", "}", "[TOOL_CALLS]",
        "[ARGS]", "<|python_tag|>", HERMES, MISTRAL, LLAMA, '{"name": "time", "arguments": {}}',
        ";", "weather", '"', "\\", "[", "]",
    ]
)  # fmt: skip


def cut(text: str, sizes: list[int]) -> list[str]:
    """The text in pieces of these sizes, again and again."""
    pieces, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(text):
            break
        pieces.append(text[at : at + size])
        at += size
    return pieces


@pytest.mark.parametrize("kind", [HermesParser, MistralParser, LlamaParser])
@given(parts=st.lists(FRAGMENTS, max_size=8), sizes=st.lists(st.integers(1, 9), min_size=1))
def test_any_cut_gives_the_same(kind: type[ToolParser], parts: list[str], sizes: list[int]) -> None:
    text = "".join(parts)
    assert read(kind(NAMES), cut(text, sizes)) == read(kind(NAMES), [text])


@given(parts=st.lists(FRAGMENTS, max_size=8))
def test_what_is_no_call_is_text(parts: list[str]) -> None:
    text = "".join(parts)
    for kind in (HermesParser, MistralParser, LlamaParser):
        said, calls = read(kind(()), [text])
        assert (said, calls) == (text, [])


def test_text_is_not_held_back_longer_than_needed() -> None:
    parser = HermesParser(NAMES)
    assert parser.feed("Hello wor")[0] == "Hello wor"
    assert parser.feed("ld <tool")[0] == "ld"
    assert parser.feed("box>")[0] == " <toolbox>"


def test_the_template_tells_the_form() -> None:
    assert isinstance(parser_for("… <tool_call> …", NAMES), HermesParser)
    assert isinstance(parser_for("… [TOOL_CALLS] …", NAMES), MistralParser)
    assert isinstance(parser_for("… <|python_tag|> …", NAMES), LlamaParser)
    assert isinstance(parser_for(None, NAMES), HermesParser)


# --- calls that are demanded -----------------------------------------------------------

CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}},
    "required": ["city"],
    "$defs": {"city": {"type": "string"}},
}
WEATHER = Tool(name="weather", parameters=CITY)
TIME = Tool(name="time", parameters={})


def test_schema_of_a_demanded_call() -> None:
    call = {
        "type": "object",
        "properties": {
            "name": {"const": "weather"},
            "arguments": {
                "type": "object",
                "properties": {"city": {"$ref": "#/$defs/tool0_city"}},
                "required": ["city"],
            },
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    definitions = {"tool0_city": {"type": "string"}}
    assert json.loads(schema_for([WEATHER])) == call | {"$defs": definitions}
    both = json.loads(schema_for([WEATHER, TIME]))
    assert both["$defs"] == definitions
    assert both["anyOf"][0] == call
    assert both["anyOf"][1]["properties"]["name"] == {"const": "time"}
    check(json.dumps(both))


def test_definitions_of_one_name_do_not_meet() -> None:
    other = Tool(name="other", parameters=CITY | {"$defs": {"city": {"type": "integer"}}})
    definitions = json.loads(schema_for([WEATHER, other]))["$defs"]
    assert definitions == {"tool0_city": {"type": "string"}, "tool1_city": {"type": "integer"}}


def test_references_outside_a_tool_are_refused() -> None:
    tool = Tool(name="f", parameters={"properties": {"a": {"$ref": "https://example.org/s"}}})
    with pytest.raises(InvalidRequest):
        schema_for([tool])


ARGUMENTS = st.recursive(
    st.none() | st.integers() | st.text(max_size=6) | st.sampled_from(['"}', "\\", "]{"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    arguments=st.dictionaries(st.text(max_size=4), ARGUMENTS, max_size=3),
    sizes=st.lists(st.integers(1, 7), min_size=1),
    indent=st.sampled_from([None, 1]),
)
def test_a_demanded_call_streams(
    arguments: dict[str, Any], sizes: list[int], indent: int | None
) -> None:
    text = json.dumps({"name": "weather", "arguments": arguments}, indent=indent) + "\n"
    assert read(ForcedCall(), cut(text, sizes)) == ("", [("weather", arguments)])


def test_a_demanded_call_that_is_cut_off_keeps_what_there_is() -> None:
    call = ForcedCall()
    parts = [call.feed(piece)[1] for piece in ('{"name": "weather", "argu', 'ments": {"city": "Pa')]
    assert [part.arguments for parts in parts for part in parts] == ['{"city": "Pa']
    assert call.finish() == ("", [])
    early = ForcedCall()
    assert early.feed('{"name": "wea') == ("", [])
    assert early.finish() == ('{"name": "wea', [])
