"""OpenVINO GenAI with a real model, where it differs from other engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openmaas.errors import ArtifactRefused, ConfigurationError
from openmaas.inference import Chat, Complete, Message, Sampling, Tool
from openmaas.runtimes import openvino_genai, openvino_genai_engine
from openmaas.runtimes.grammar_gate import GrammarGate
from openmaas.runtimes.openvino_genai import OpenVINOGenAI
from openmaas.runtimes.openvino_grammar import grammar_tokenizer
from openmaas.runtimes.vocabulary import Vocabulary
from tests.language import ask, ids, run, text_of, until_idle

GREEDY = Sampling(temperature=0, max_tokens=30)
SLOW_SCHEMA = json.dumps(
    {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(2000)}}
)


@pytest.fixture(scope="module")
def runtime(smollm2_folder: Path) -> Iterator[OpenVINOGenAI]:
    opened = openvino_genai.open(smollm2_folder, {"prompt_lookup": False})
    yield opened
    opened.close()


def chat(text: str, **more: Any) -> Chat:
    return Chat(messages=[Message(role="user", content=text)], **({"sampling": GREEDY} | more))


def test_answers(runtime: OpenVINOGenAI) -> None:
    deltas, usage = ask(runtime, chat("What color is the sky?"))
    assert "blue" in text_of(deltas)
    assert 0 < usage.output_tokens <= 30


def test_a_stop_string_ends_an_answer_early(runtime: OpenVINOGenAI) -> None:
    request = chat(
        "What color is the sky?",
        sampling=Sampling(temperature=0, max_tokens=30, stop=["blue"]),
    )
    deltas, usage = ask(runtime, request)
    assert text_of(deltas).startswith("The sky is")
    assert "blue" not in text_of(deltas)
    assert deltas[-1].finish == "stop"
    assert usage.output_tokens < 30
    assert not runtime.busy()


def test_characters_are_whole(runtime: OpenVINOGenAI) -> None:
    prompt = "🙂🦜🪿🦤\n" * 6
    pieces = [runtime.piece(token) for token in runtime.encode("🪿")]
    assert len(pieces) > 1  # the vocabulary splits it
    request = Complete(prompts=[prompt], sampling=Sampling(temperature=0, max_tokens=40))
    deltas, _ = ask(runtime, request)
    assert "🪿" in text_of(deltas)
    assert "\ufffd" not in "".join(delta.text for delta in deltas[:-2])


def test_a_demanded_tool_call(runtime: OpenVINOGenAI) -> None:
    tool = Tool(
        name="get_weather",
        description="The weather of a city",
        parameters={
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    )
    request = chat("What's the weather in Paris?", tools=[tool], tool_choice="required")
    deltas, _ = ask(runtime, request)
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert calls[0].name == "get_weather"
    assert set(json.loads("".join(call.arguments for call in calls))) >= {"city"}
    assert deltas[-1].finish == "tool_calls"
    assert text_of(deltas) == ""


def test_scores_of_a_prompt_are_those_of_its_generation(runtime: OpenVINOGenAI) -> None:
    prompt = runtime.encode("The capital of France is")
    sampling = Sampling(temperature=0, max_tokens=8, ignore_eos=True, logprobs=0)
    generated = run(runtime, {1: (prompt, sampling)})[1]
    whole = prompt + ids(generated)
    scoring = Sampling(temperature=0, max_tokens=0, logprobs=0)
    scored = run(runtime, {1: (whole, scoring)}, echo=True)[1]
    for one, other in zip(generated, scored[len(prompt) :], strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=0.5)  # 8-bit activations


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ('{"type": "foo"}', "cannot be compiled"),
        ('{"type": "obj', "cannot be compiled"),
        ('{"$ref": "#/$defs/absent"}', "cannot be compiled"),
        (SLOW_SCHEMA, "takes too long"),
    ],
    ids=["type", "syntax", "reference", "slow"],
)
def test_a_bad_schema_harms_no_other(runtime: OpenVINOGenAI, schema: str, reason: str) -> None:
    prompt = runtime.encode("Once upon a time")
    plain = Sampling(temperature=0, max_tokens=16, ignore_eos=True)
    expected = run(runtime, {1: (prompt, plain), 2: (prompt, plain)})
    runtime.add(1, prompt, plain)
    runtime.add(2, prompt, plain)
    runtime.add(3, prompt, Sampling(max_tokens=16, json_schema=schema))
    steps = until_idle(runtime)
    refused = [step for step in steps if step.failed]
    assert [(step.id, step.invalid) for step in refused] == [(3, True)]
    assert reason in (refused[0].finish or "")
    for id in (1, 2):
        tokens = [token for step in steps if step.id == id for token in step.tokens]
        assert ids(tokens) == ids(expected[id])


def test_a_waiting_schema_can_be_cancelled(runtime: OpenVINOGenAI) -> None:
    runtime.add(1, [1], Sampling(max_tokens=4, json_schema='{"type": "null"}'))
    runtime.cancel(1)
    assert not runtime.busy()
    assert runtime.step() == []


def test_a_verdict_is_remembered(smollm2_folder: Path) -> None:
    gate = GrammarGate(smollm2_folder)
    first = gate.ask('{"type": "null"}')
    assert first.known(60)
    assert first.error is None
    assert gate.ask('{"type": "null"}') is first
    assert gate.ask('{"type": "foo"}') is not first
    gate.close()


def test_a_compiler_that_was_killed_is_started_again(smollm2_folder: Path) -> None:
    gate = GrammarGate(smollm2_folder)
    assert gate.ask('{"type": "null"}').known(60)
    process = gate._process
    assert process is not None
    process.kill()
    process.wait()
    again = gate.ask('{"type": "integer"}')
    assert again.known(60)
    assert again.error is None
    gate.close()


def test_a_model_without_a_tokenizer_graph(smollm2_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in smollm2_folder.iterdir():
        if not file.name.startswith(("openvino_tokenizer", "openvino_detokenizer")):
            (folder / file.name).symlink_to(file)
    runtime = openvino_genai.open(folder, {"prompt_lookup": False})
    schema = '{"type": "object", "properties": {"a": {"const": "ü🙂"}}, "required": ["a"]}'
    prompt = runtime.encode('{"a": "ü🙂"}\n' * 3)
    tokens = run(runtime, {1: (prompt, Sampling(temperature=0, max_tokens=60, json_schema=schema))})
    text = b"".join(runtime.piece(token.id) for token in tokens[1]).decode()
    assert json.loads(text)["a"] == "ü🙂"
    runtime.close()


def test_the_vocabularys_bytes_are_those_of_the_engine(smollm2_folder: Path) -> None:
    vocabulary = Vocabulary(smollm2_folder / "tokenizer.json")
    tokenizer = grammar_tokenizer(vocabulary.raw)
    text = "Grüße 🙂 tab\tend"
    assert tokenizer.decode(vocabulary.encode(text), skip_special_tokens=False) == text


@pytest.mark.parametrize("remembers", [True, False])
def test_only_with_the_cache_is_a_prompt_not_read_again(
    smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch, remembers: bool
) -> None:
    """T3 without a clock: the steps that are taken before the first token."""
    monkeypatch.setattr(openvino_genai_engine, "MAX_BATCHED_TOKENS", 32)
    options = {"prefix_cache": remembers, "prompt_lookup": False}
    opened = openvino_genai.open(smollm2_folder, options)
    prompt = opened.encode("The shop sells lamps, chairs, tables and books. " * 20)
    other = opened.encode("Nobody knows where the river begins or why it ends. " * 20)

    def steps(prompt: list[int]) -> int:
        opened.add(1, prompt, Sampling(temperature=0, max_tokens=1))
        count = 0
        while opened.busy():
            opened.step()
            count += 1
        return count

    whole = len(prompt) // 32
    assert whole >= 6
    assert steps(prompt) >= whole
    assert steps(other) >= len(other) // 32
    assert steps(prompt) <= 3 if remembers else steps(prompt) >= whole
    opened.close()


@pytest.mark.parametrize(
    "options",
    [
        {"kv_cache_gib": 0},
        {"kv_cache_gib": 1.5},
        {"prompt_lookup": "often"},
        {"prefix_cache": 1},
        {"threads": 0},
        {"precision": "int3"},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(smollm2_folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        openvino_genai.open(smollm2_folder, options)


@pytest.mark.parametrize("damage", ["no tokenizer", "broken tokenizer", "no eos", "no context"])
def test_an_incomplete_artifact_is_refused(
    smollm2_folder: Path, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("manifest.json", "tokenizer.json"):
        shutil.copyfile(smollm2_folder / name, folder / name)
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (folder / name).symlink_to(smollm2_folder / name)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    if damage == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif damage == "broken tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    elif damage == "no eos":
        manifest["eos_token_ids"] = []
    else:
        manifest["context_tokens"] = 0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactRefused):
        openvino_genai.open(folder, {})


def test_who_was_alone_joins_the_others(smollm2_folder: Path) -> None:
    runtime = openvino_genai.open(smollm2_folder, {})
    runtime._opening.join()
    prompt = runtime.encode("Once upon a time")
    plain = Sampling(temperature=0, max_tokens=40, ignore_eos=True)
    try:
        runtime.add(1, prompt, plain)
        assert runtime._lone is not None
        told: dict[int, list[int]] = {1: [], 2: []}
        while runtime.busy():
            for step in runtime.step():
                assert not step.failed
                told[step.id] += [token.id for token in step.tokens]
            if len(told[1]) >= 10 and not told[2] and runtime._lone is not None:
                runtime.add(2, prompt, plain)
                assert runtime._lone is None
        assert {id: len(found) for id, found in told.items()} == {1: 40, 2: 40}
        again = run(runtime, {3: (prompt, plain)})[3]  # alone once more
        assert ids(again)[:10] == told[1][:10]
        # One that is nearly done stays, and both finish.
        runtime.add(4, prompt, plain)
        lone, left = runtime._lone, 40
        while left > 1 and runtime.busy():
            left -= sum(len(step.tokens) for step in runtime.step())
        if runtime.busy():
            runtime.add(5, prompt, plain)
            assert runtime._lone is lone
            until_idle(runtime)
    finally:
        runtime.close()
