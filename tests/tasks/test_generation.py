"""Requests over the echo runtime: what a caller sees of the tokens of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openmaas.errors import InvalidRequest
from openmaas.inference import (
    Chat,
    Complete,
    Delta,
    Message,
    Sampling,
    TokenLogprob,
    Tool,
    Usage,
)
from openmaas.runtimes.base import SampledToken, Step
from openmaas.runtimes.echo import Echo, tokenize
from openmaas.runtimes.echo_options import read
from tests.language import ask, generate, text_of

HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
WEATHER = Tool(name="weather", parameters={"type": "object"})


@pytest.fixture
def echo() -> Iterator[Echo]:
    runtime = Echo(read({}))
    yield runtime
    runtime.close()


def chat(text: str, n: int = 1, **sampling: Any) -> Chat:
    sampling = {"max_tokens": 50} | sampling
    return Chat(messages=[Message(role="user", content=text)], sampling=Sampling(**sampling), n=n)


def finishes(deltas: list[Delta]) -> list[str]:
    return [delta.finish for delta in deltas if delta.finish is not None]


def test_the_finishing_delta_carries_nothing_else(echo: Echo) -> None:
    deltas, usage = ask(echo, chat("one two", max_tokens=3))
    assert text_of(deltas) == "one two"
    assert deltas[-1] == Delta(finish="length")
    assert all(delta.finish is None for delta in deltas[:-1])
    assert usage.output_tokens == 3


def test_an_answer_that_ends_by_itself_stops() -> None:
    runtime = Echo(read({"answer_tokens": 3}))
    deltas, _ = ask(runtime, chat("a b c d"))
    assert (text_of(deltas), finishes(deltas)) == ("a b c", ["stop"])


def test_characters_split_over_tokens_arrive_whole(echo: Echo) -> None:
    deltas, _ = ask(echo, chat("🙂🎉", max_tokens=3))  # of 3, 3 and 2 bytes
    assert [delta.text for delta in deltas[:-1]] == ["🙂", "🎉"]


def test_an_answer_cut_within_a_character_says_so(echo: Echo) -> None:
    deltas, usage = ask(echo, chat("🙂", max_tokens=1))
    assert (text_of(deltas), finishes(deltas), usage.output_tokens) == ("\ufffd", ["length"], 1)


def test_stop_strings_across_tokens(echo: Echo) -> None:
    for stops in (["three"], [" th"], ["nothing", "o three"]):
        deltas, usage = ask(echo, chat("one two three four", stop=stops))
        assert text_of(deltas) == "one two three".partition(stops[-1])[0]
        assert finishes(deltas) == ["stop"]
        assert usage.output_tokens < 50
        assert not echo.busy()


def test_a_stop_string_that_never_completes_is_not_lost(echo: Echo) -> None:
    deltas, _ = ask(echo, chat("one two", stop=["two three"], max_tokens=3))
    assert (text_of(deltas), finishes(deltas)) == ("one two", ["length"])


def test_samples_and_prompts_are_numbered(echo: Echo) -> None:
    request = Complete(prompts=["aa", "bb"], n=2, sampling=Sampling(max_tokens=1))
    deltas, usage = ask(echo, request)
    assert {index: text_of(deltas, index) for index in range(4)} == {
        0: "aa", 1: "aa", 2: "bb", 3: "bb"
    }  # fmt: skip
    assert usage == Usage(input_tokens=2, output_tokens=4)  # a prompt counts once


def test_samples_have_seeds_of_their_own(echo: Echo) -> None:
    request = Complete(prompts=["a", "b"], n=2, sampling=Sampling(seed=7, stop=["x"]))
    parts = generate(echo, request).sequences
    assert [(part.index, part.sampling.seed) for part in parts] == [(0, 7), (1, 8), (2, 7), (3, 8)]
    assert all(part.sampling.stop == [] for part in parts)
    negative = generate(echo, chat("a", seed=-1)).sequences[0].sampling.seed
    assert negative is not None
    assert negative >= 0


def test_logprobs_are_aligned_with_the_text(echo: Echo) -> None:
    deltas, usage = ask(echo, chat("é🙂 word", logprobs=2, max_tokens=8))
    entries = [entry for delta in deltas for entry in delta.logprobs or ()]
    assert len(entries) == usage.output_tokens == 8
    assert "".join(entry.text for entry in entries) == text_of(deltas)
    assert b"".join(entry.bytes for entry in entries).startswith("é🙂 word".encode())
    for entry in entries:
        assert entry.logprob is not None
        assert len(entry.alternatives) == 2
        assert entry.alternatives[0][1] == entry.bytes


def test_logprobs_behind_a_stop_string_are_not_told(echo: Echo) -> None:
    deltas, _ = ask(echo, chat("aa bb cc dd", logprobs=0, stop=["cc"]))
    entries = [entry for delta in deltas for entry in delta.logprobs or ()]
    assert [entry.text for entry in entries] == ["aa", " bb", " cc"]  # the last one is cut
    assert text_of(deltas) == "aa bb "


def test_echo_is_the_prompts_text(echo: Echo) -> None:
    request = Complete(prompts=["one two"], echo=True, sampling=Sampling(max_tokens=1))
    deltas, usage = ask(echo, request)
    assert text_of(deltas) == "one twoone"
    assert usage == Usage(input_tokens=3, output_tokens=1)
    ids = Complete(prompts=[echo.encode("aa 🙂")], echo=True, sampling=Sampling(max_tokens=1))
    assert text_of(ask(echo, ids)[0]) == "aa 🙂aa"


def test_echo_with_logprobs_scores_the_prompt(echo: Echo) -> None:
    sampling = Sampling(max_tokens=1, logprobs=1, stop=["one"])
    request = Complete(prompts=["one two"], echo=True, sampling=sampling)
    deltas, usage = ask(echo, request)
    entries = [entry for delta in deltas for entry in delta.logprobs or ()]
    # Stop strings look at the answer only; the answer "one" is one.
    assert text_of(deltas) == "one two"
    assert finishes(deltas) == ["stop"]
    assert entries[0].logprob is None
    assert entries[0].alternatives == []
    assert all(entry.logprob is not None for entry in entries[1:])
    assert [entry.text for entry in entries[:3]] == ["one", " tw", "o"]
    assert usage.output_tokens == 1


def test_prompts_that_do_not_fit_are_refused() -> None:
    runtime = Echo(read({"context_tokens": 20}))
    for request in (chat("word " * 30), Complete(prompts=[[20] * 20])):
        with pytest.raises(InvalidRequest, match="this model takes 20"):
            generate(runtime, request)
    with pytest.raises(InvalidRequest, match="empty"):
        generate(runtime, Complete(prompts=[""]))
    with pytest.raises(InvalidRequest, match="empty"):
        generate(runtime, Complete(prompts=[[]]))


def test_max_tokens_ends_at_the_context() -> None:
    runtime = Echo(read({"context_tokens": 20}))
    request = Complete(prompts=[[20] * 15], sampling=Sampling(max_tokens=1000))
    deltas, usage = ask(runtime, request)
    assert (usage.output_tokens, finishes(deltas)) == (5, ["length"])
    without = Complete(prompts=[[20] * 15])
    assert ask(runtime, without)[1].output_tokens == 5


def test_tool_calls_are_told_apart_from_text() -> None:
    said = f"Look: {HERMES}"
    length = len(tokenize(said))
    request = Chat(messages=[Message(role="user", content=said)], tools=[WEATHER])
    deltas, _ = ask(Echo(read({"answer_tokens": length})), request)
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert text_of(deltas) == "Look:"
    assert [(call.name, call.arguments) for call in calls] == [("weather", '{"city": "Paris"}')]
    assert finishes(deltas) == ["tool_calls"]
    cut = msgspec.structs.replace(request, sampling=Sampling(max_tokens=length - 20))
    deltas, _ = ask(Echo(read({})), cut)
    assert finishes(deltas) == ["length"]


def test_tool_choice_none_hides_the_tools(echo: Echo) -> None:
    request = Chat(
        messages=[Message(role="user", content=HERMES)],
        tools=[WEATHER],
        tool_choice="none",
        sampling=Sampling(max_tokens=len(echo.encode(HERMES))),
    )
    generation = generate(echo, request)
    assert b"# Tools" not in b"".join(map(echo.piece, generation.sequences[0].prompt))
    assert text_of(ask(echo, request)[0]) == HERMES


@pytest.mark.parametrize(
    "more", [{"tool_choice": "function:rm"}, {"sampling": Sampling(json_schema="{}")}]
)
def test_tool_choices_that_make_no_sense_are_refused(echo: Echo, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        generate(echo, Chat(messages=[Message(role="user", content="a")], tools=[WEATHER], **more))


def test_a_demanded_call_holds_the_engine_to_a_schema(echo: Echo) -> None:
    for choice in ("required", "function:weather"):
        request = Chat(
            messages=[Message(role="user", content="a")], tools=[WEATHER], tool_choice=choice
        )
        generation = generate(echo, request)
        part = generation.sequences[0]
        assert '"weather"' in (part.sampling.json_schema or "")
        generation.bind(1, part)
        answer = '{"name": "weather", "arguments": {"city": "Paris"}}'
        tokens = [SampledToken(id) for id in echo.encode(answer)]
        deltas = [d for token in tokens for d in generation.advance(Step(id=1, tokens=[token]))]
        deltas += generation.advance(Step(id=1, tokens=[], finish="stop"))
        calls = [call for delta in deltas for call in delta.tool_calls or ()]
        assert calls[0].name == "weather"
        assert "".join(call.arguments for call in calls) == '{"city": "Paris"}'
        assert finishes(deltas) == ["tool_calls"]
        assert text_of(deltas) == ""


def test_several_tokens_a_step_make_one_delta(echo: Echo) -> None:
    generation = generate(echo, chat("a"))
    generation.bind(1, generation.sequences[0])
    tokens = [SampledToken(id) for id in echo.encode("one two three")]
    prompt = len(generation.sequences[0].prompt)
    assert generation.advance(Step(id=1, tokens=tokens)) == [
        Delta(text="one two three", tokens=5, input_tokens=prompt)
    ]
    assert generation.advance(Step(id=1, tokens=tokens[:1], finish="stop")) == [
        Delta(text="one", tokens=1),
        Delta(finish="stop"),
    ]
    assert generation.done
    assert generation.advance(Step(id=1, tokens=tokens)) == []


def test_the_cut_of_a_stop_string_is_told_to_the_engine_once(echo: Echo) -> None:
    generation = generate(echo, chat("a", stop=["two"]))
    generation.bind(1, generation.sequences[0])
    tokens = [SampledToken(id) for id in echo.encode("one two three")]
    assert generation.advance(Step(id=1, tokens=tokens)) == [
        Delta(text="one ", tokens=3, input_tokens=len(generation.sequences[0].prompt)),
        Delta(finish="stop"),
    ]
    assert generation.dropped() == [1]
    assert generation.dropped() == []
    assert generation.usage.output_tokens == 3  # those behind the cut are not the caller's


def test_text_and_logprobs_of_invalid_bytes(echo: Echo) -> None:
    generation = generate(echo, chat("a", logprobs=0))
    generation.bind(1, generation.sequences[0])
    tokens = [SampledToken(16 + byte, -0.5) for byte in b"\xff\xf0\x9fa"]
    deltas = generation.advance(Step(id=1, tokens=tokens, finish="length"))
    entries = deltas[0].logprobs or []
    assert deltas[0].text == "\ufffd\ufffda"
    assert "".join(entry.text for entry in entries) == deltas[0].text
    assert [entry.bytes for entry in entries] == [b"\xff", b"\xf0", b"\x9f", b"a"]
    assert all(isinstance(entry, TokenLogprob) for entry in entries)


@pytest.mark.parametrize("stop", [[], ["three"], ["wo th"]])
@pytest.mark.parametrize("logprobs", [None, 0])
def test_what_deltas_cover_adds_up_to_the_usage(
    echo: Echo, stop: list[str], logprobs: int | None
) -> None:
    sampling = Sampling(stop=stop, logprobs=logprobs)
    request = Complete(prompts=["one two", "😀 three"], n=2, sampling=sampling, echo=True)
    generation = generate(echo, request)
    for id, part in enumerate(generation.sequences):
        generation.bind(id, part)
    deltas = []
    tokens = [SampledToken(id, -0.5) for id in echo.encode("one two three 😀 four")]
    for at, token in enumerate(tokens):
        for id, part in enumerate(generation.sequences):
            echoed = (
                [SampledToken(one, -0.5) for one in part.prompt] if part.echo and not at else []
            )
            finish = "length" if token is tokens[-1] else None
            deltas += generation.advance(Step(id=id, tokens=[*echoed, token], finish=finish))
    assert generation.done
    assert sum(delta.tokens for delta in deltas) == generation.usage.output_tokens
    assert sum(delta.input_tokens for delta in deltas) == generation.usage.input_tokens


def test_unknown_folder_is_not_looked_at(tmp_path: Path) -> None:
    """The echo runtime ignores its artifact, so that tests need none."""
    from openmaas.runtimes.echo import open as open_echo

    assert open_echo(tmp_path / "absent", {}).info.runtime == "echo"
