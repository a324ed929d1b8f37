"""What every ``TokenRuntime`` keeps, on each engine that is one and on the echo runtime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from openmaas.errors import ConfigurationError, InvalidRequest
from openmaas.inference import Sampling
from openmaas.runtimes import open_runtime
from openmaas.runtimes.base import Scores, TokenRuntime
from tests.language import ids, run, until_idle


@dataclass(frozen=True)
class Case:
    """A runtime, the fixture of its artifact, and options that keep tests small."""

    name: str
    folder: str | None
    options: dict[str, Any]
    exact: bool = True  # rounds the same whatever runs beside a sequence


CASES = [
    Case("echo", None, {"context_tokens": 512}),
    Case("openvino_genai", "smollm2_folder", {"prompt_lookup": False}),
    Case("openvino_genai", "smollm2_folder", {"prompt_lookup": True}),
    # Its kernels depend on the number of sequences in a step, by CPU.
    Case(
        "llamacpp",
        "gemma_folder",
        # Threads of llama.cpp that wait for each other take the cores from all that runs beside.
        {"parallel": 4, "context_tokens": 512, "threads": 1},
        exact=False,
    ),
]
NAMES = ["echo", "openvino_genai", "openvino_genai-lookup", "llamacpp"]

GREEDY = Sampling(temperature=0, max_tokens=8, ignore_eos=True)
TEXT = "The capital of France is"


@pytest.fixture(scope="module", params=CASES, ids=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    return cast(Case, request.param)


@pytest.fixture(scope="module")
def folder(
    case: Case, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if case.folder is None:
        return tmp_path_factory.mktemp("nothing")
    return cast(Path, request.getfixturevalue(case.folder))


@pytest.fixture(scope="module")
def opened(case: Case, folder: Path) -> Iterator[TokenRuntime]:
    runtime = cast(TokenRuntime, open_runtime(case.name, folder, dict(case.options)))
    yield runtime
    runtime.close()


@pytest.fixture
def runtime(opened: TokenRuntime) -> Iterator[TokenRuntime]:
    """The runtime, idle before and after each test."""
    assert not opened.busy()
    yield opened
    assert not opened.busy()


def but(**changes: Any) -> Sampling:
    return msgspec.structs.replace(GREEDY, **changes)


# --- what it says of itself ------------------------------------------------------------


def test_says_what_it_is(case: Case, runtime: TokenRuntime) -> None:
    assert runtime.info.runtime == case.name
    assert runtime.info.task == "chat"
    assert runtime.info.context_tokens >= 512
    known = {
        "seed", "top_k", "penalties", "logit_bias", "logprobs", "top_logprobs", "echo_logprobs",
        "top_echo_logprobs", "json_schema", "tools", "ignore_eos",
    }  # fmt: skip
    assert set(runtime.info.options) <= known


def test_unknown_options_are_refused(case: Case, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no_such_option"):
        open_runtime(case.name, folder, {"no_such_option": 1})


def test_its_files_may_go_once_it_is_open(
    case: Case, folder: Path, runtime: TokenRuntime, tmp_path: Path
) -> None:
    """A tenant's model lies unsealed for as long as it is loaded, and no longer."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    opened = cast(TokenRuntime, open_runtime(case.name, copy, dict(case.options)))
    shutil.rmtree(copy)
    prompt = runtime.encode(TEXT)
    assert opened.encode(TEXT) == prompt
    asked = {1: (prompt, but(max_tokens=16)), 2: (prompt * 20, but(max_tokens=4))}
    said, expected = run(opened, asked), run(runtime, asked)
    if case.exact:
        assert {id: ids(one) for id, one in said.items()} == {
            id: ids(one) for id, one in expected.items()
        }
    assert len(said[1]) == 16
    opened.close()


def test_text_survives_its_tokens(runtime: TokenRuntime) -> None:
    text = "Hello  wörld,\n\t12345 你好 🙂🪿!"
    tokens = runtime.encode(text)
    assert b"".join(map(runtime.piece, tokens)).decode() == text
    assert runtime.encode("") == []


def test_special_tokens_are_recognised_and_have_no_text(runtime: TokenRuntime) -> None:
    for text in runtime.special_tokens().values():
        tokens = runtime.encode(text)
        assert len(tokens) == 1
        assert runtime.piece(tokens[0]) == b""
    start = runtime.start()
    assert runtime.encode("word")[: len(start)] != start or not start  # encode adds none


# --- sequences -------------------------------------------------------------------------


def test_idle_steps_are_empty(runtime: TokenRuntime) -> None:
    assert runtime.step() == []
    assert not runtime.busy()


def test_a_sequence_is_as_long_as_asked(runtime: TokenRuntime) -> None:
    for length in (1, 2, 9):
        runtime.add(1, runtime.encode(TEXT), but(max_tokens=length))
        assert runtime.busy()
        steps = until_idle(runtime)
        assert sum(len(step.tokens) for step in steps) == length
        assert [step.finish for step in steps if step.finish is not None] == ["length"]
        assert steps[-1].finish == "length"
        assert not any(step.failed for step in steps)


def test_max_tokens_none_fills_the_context(runtime: TokenRuntime) -> None:
    context = runtime.info.context_tokens
    if context > 512:
        pytest.skip("a context that takes minutes to fill")
    prompt = (runtime.encode(TEXT) * context)[: context - 5]
    runtime.add(1, prompt, but(max_tokens=None))
    assert sum(len(step.tokens) for step in until_idle(runtime)) == 5


def test_sequences_join_and_leave_between_steps(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    runtime.add(1, prompt, but(max_tokens=24))
    seen: dict[int, int] = {}
    while runtime.busy():
        for step in runtime.step():
            assert not step.failed
            seen[step.id] = seen.get(step.id, 0) + len(step.tokens)
            if step.id == 1 and 2 not in seen:
                seen[2] = 0
                runtime.add(2, prompt, but(max_tokens=4))
            if step.id == 2 and step.finish is not None:
                runtime.add(3, prompt, but(max_tokens=4))
    assert seen == {1: 24, 2: 4, 3: 4}


def test_more_sequences_than_places_all_finish(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    tokens = run(runtime, {id: (prompt, but(max_tokens=3)) for id in range(1, 71)})
    assert {len(found) for found in tokens.values()} == {3}


def test_a_cancelled_sequence_is_heard_of_no_more(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    for id in (1, 2, 3):
        runtime.add(id, prompt, but(max_tokens=40))
    while not runtime.step():
        pass
    runtime.cancel(2)
    runtime.cancel(2)
    runtime.cancel(99)
    steps = until_idle(runtime)
    assert {step.id for step in steps} == {1, 3}
    runtime.add(2, prompt, but(max_tokens=40))  # the id is free again
    runtime.cancel(2)
    assert not runtime.busy()
    tokens = run(runtime, {2: (prompt, GREEDY)})
    assert len(tokens[2]) == 8


def test_ids_are_free_once_finished(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    answers = [ids(run(runtime, {5: (prompt, GREEDY)})[5]) for _ in range(4)]
    assert all(answer == answers[0] for answer in answers)


# --- the same again --------------------------------------------------------------------


def test_greedy_answers_repeat(runtime: TokenRuntime) -> None:
    for at in range(3):
        prompt = runtime.encode(f"{TEXT} number {at}")
        first, second = (ids(run(runtime, {1: (prompt, GREEDY)})[1]) for _ in range(2))
        assert first == second


def test_a_sequence_beside_others_is_as_alone(case: Case, runtime: TokenRuntime) -> None:
    """For the first block of the KV cache: beyond, one engine rounds differently alone."""
    if not case.exact:
        pytest.skip("an engine that rounds differently beside others")
    prompts = [runtime.encode(f"{at}: Once upon a time") for at in range(4)]
    for sampling in (GREEDY, but(temperature=0.9, seed=11)):
        together = run(runtime, {at: (prompt, sampling) for at, prompt in enumerate(prompts)})
        for at, prompt in enumerate(prompts):
            alone = run(runtime, {at: (prompt, sampling)})
            assert ids(alone[at]) == ids(together[at])


def test_a_seed_repeats_and_no_seed_varies(case: Case, runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    drawn = but(temperature=1.0, max_tokens=12)
    seeded = msgspec.structs.replace(drawn, seed=3)
    first, second = (ids(run(runtime, {1: (prompt, seeded)})[1]) for _ in range(2))
    assert first == second
    others = run(runtime, dict.fromkeys(range(3, 7), (prompt, drawn)))
    if case.name != "echo":
        assert len({tuple(ids(found)) for found in others.values()}) > 1
        seeds = {id: (prompt, msgspec.structs.replace(drawn, seed=id)) for id in range(3, 7)}
        assert len({tuple(ids(found)) for found in run(runtime, seeds).values()}) > 1


def test_extreme_seeds_are_seeds(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    for seed in (0, (1 << 32) - 1, (1 << 63) - 1):
        sampling = but(temperature=1.0, seed=seed)
        first, second = (ids(run(runtime, {1: (prompt, sampling)})[1]) for _ in range(2))
        assert first == second


# --- what is honoured ------------------------------------------------------------------


def test_top_k_of_one_is_greedy(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    drawn = but(temperature=1.5, top_k=1)
    first, second = (ids(run(runtime, {1: (prompt, one)})[1]) for one in (drawn, GREEDY))
    assert first == second


def test_logprobs_only_when_asked(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    asked, plain = (run(runtime, {1: (prompt, one)})[1] for one in (but(logprobs=0), GREEDY))
    assert ids(asked) == ids(plain)
    assert all(token.logprob is not None and token.logprob <= 0 for token in asked)
    assert all(token.alternatives == [] for token in asked)


def test_alternatives_or_a_refusal(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    if "top_logprobs" not in runtime.info.options:
        with pytest.raises(InvalidRequest):
            runtime.add(1, prompt, but(logprobs=3))
        return
    for token in run(runtime, {1: (prompt, but(logprobs=3))})[1]:
        likely = [logprob for _, logprob in token.alternatives]
        assert len(likely) == 3
        assert likely == sorted(likely, reverse=True)
        assert token.alternatives[0] == (token.id, token.logprob)  # greedy


def test_the_prompts_logprobs_or_a_refusal(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    if "echo_logprobs" not in runtime.info.options:
        with pytest.raises(InvalidRequest):
            runtime.add(1, prompt, but(logprobs=0), echo=True)
        return
    scored = run(runtime, {1: (prompt, but(logprobs=0, max_tokens=2))}, echo=True)[1]
    assert ids(scored)[: len(prompt)] == prompt
    assert scored[0].logprob is None
    assert all(token.logprob is not None and token.logprob <= 0 for token in scored[1:])
    assert len(scored) == len(prompt) + 2
    only = run(runtime, {1: (prompt, but(logprobs=0, max_tokens=0))}, echo=True)[1]
    assert ids(only) == prompt


def test_it_reads_without_continuing_or_has_alternatives_of_an_echo(runtime: TokenRuntime) -> None:
    if "top_echo_logprobs" not in runtime.info.options:
        assert not hasattr(runtime, "score") or runtime.info.runtime == "openvino_genai"
        return
    prompt = runtime.encode(TEXT + " Paris, a city that nobody would want to miss.")
    if not hasattr(runtime, "score"):
        asked = but(logprobs=3, max_tokens=1)
        read = run(runtime, {1: (prompt, asked)}, echo=True)[1][5 : len(prompt)]
        assert ids(read) == prompt[5:]
        assert {len(token.alternatives) for token in read} == {3}
        return
    scores = cast(Scores, runtime)
    for id, salt in ((1, "a"), (2, "a"), (3, "b")):
        scores.score(id, prompt, 5, 3, salt)
    scores.score(4, prompt, 5, 0, "a")
    scores.cancel(4)
    (one, two, three) = sorted(until_idle(runtime), key=lambda step: step.id)
    assert (one.finish, two.finish, three.finish) == ("length",) * 3
    for step in (one, two, three):
        assert ids(step.tokens) == prompt[5:]
        for token in step.tokens:
            likely = [logprob for _, logprob in token.alternatives]
            assert likely == sorted(likely, reverse=True)
            assert len(likely) == 3
            assert token.logprob is not None
            assert token.logprob <= likely[0]
    assert one.tokens == two.tokens


def test_logit_bias_or_a_refusal(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    first = run(runtime, {1: (prompt, GREEDY)})[1][0].id
    biased = but(logit_bias={first: -100.0})
    if "logit_bias" not in runtime.info.options:
        with pytest.raises(InvalidRequest):
            runtime.add(1, prompt, biased)
        return
    assert first not in ids(run(runtime, {1: (prompt, biased)})[1])


def test_penalties_or_a_refusal(runtime: TokenRuntime) -> None:
    prompt = runtime.encode("a a a a a a a a")
    strict = but(presence_penalty=2.0, frequency_penalty=2.0, max_tokens=20)
    if "penalties" not in runtime.info.options:
        with pytest.raises(InvalidRequest):
            runtime.add(1, prompt, strict)
        return
    tokens = run(runtime, {1: (prompt, strict), 2: (prompt, but(max_tokens=20))})
    assert len(set(ids(tokens[1]))) > len(set(ids(tokens[2])))


SCHEMA = {
    "type": "object",
    "properties": {"yes": {"type": "boolean"}, "n": {"enum": [1, 2, 3]}},
    "required": ["yes", "n"],
    "additionalProperties": False,
}


def test_json_by_schema_or_a_refusal(runtime: TokenRuntime) -> None:
    prompt = runtime.encode('Write JSON like {"yes": true, "n": 1}:\n')
    schema = json.dumps(SCHEMA)
    asked = Sampling(temperature=0, max_tokens=120, json_schema=schema)
    if "json_schema" not in runtime.info.options:
        with pytest.raises(InvalidRequest):
            runtime.add(1, prompt, asked)
        return
    tokens = run(runtime, {1: (prompt, asked), 2: (prompt, but(max_tokens=20))})
    value = json.loads(b"".join(runtime.piece(token.id) for token in tokens[1]))
    assert set(value) == {"yes", "n"}
    assert isinstance(value["yes"], bool)
    assert value["n"] in (1, 2, 3)
    assert len(tokens[2]) == 20


# --- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [[], [-1], [1 << 31], [1, 1 << 40]])
def test_token_ids_out_of_the_vocabulary_are_refused(
    runtime: TokenRuntime, prompt: list[int]
) -> None:
    with pytest.raises(InvalidRequest):
        runtime.add(1, prompt, GREEDY)


def test_more_than_the_context_is_refused(runtime: TokenRuntime) -> None:
    context = runtime.info.context_tokens
    prompt = runtime.encode(TEXT)
    for tokens, length in ((prompt, context), (prompt * context, 1), (prompt, 0)):
        with pytest.raises(InvalidRequest):
            runtime.add(1, tokens, but(max_tokens=length))
    assert run(runtime, {1: (prompt, GREEDY)})[1]


def test_a_refused_sequence_harms_no_other(runtime: TokenRuntime) -> None:
    prompt = runtime.encode(TEXT)
    expected = ids(run(runtime, {1: (prompt, GREEDY)})[1])
    runtime.add(1, prompt, GREEDY)
    with pytest.raises(InvalidRequest):
        runtime.add(2, [-1], GREEDY)
    found = [token for step in until_idle(runtime) for token in step.tokens]
    assert ids(found) == expected
