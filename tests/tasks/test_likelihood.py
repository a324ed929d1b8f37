"""How likely answers are, on a real language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from openmaas.errors import InvalidRequest, UnsupportedParameter
from openmaas.inference import Loglikelihood, Loglikelihoods, Message, Sampling
from openmaas.runtimes import openvino_genai
from openmaas.runtimes.base import Scores, TokenRuntime
from openmaas.runtimes.echo import open as open_echo
from openmaas.runtimes.openvino_genai import OpenVINOGenAI
from openmaas.tasks.likelihood import Likelihood, Reading
from tests.language import TEMPLATES, run

QUESTION = [Message(role="user", content="What color is the sky on a clear day?")]
ANSWERS = ["Blue", "The sky is blue.", "Wednesday"]


@pytest.fixture(scope="module")
def runtime(smollm2_folder: Path) -> Iterator[OpenVINOGenAI]:
    opened = openvino_genai.open(smollm2_folder, {"prompt_lookup": False})
    yield opened
    opened.close()


def likely(runtime: TokenRuntime, answers: list[str], **options: Any) -> Loglikelihoods:
    request = Loglikelihood(messages=QUESTION, answers=answers, **options)
    asked = Likelihood(runtime, request, TEMPLATES)
    for id, part in enumerate(asked.sequences, 1):
        if isinstance(part, Reading):
            scores = cast(Scores, runtime)
            scores.score(id, part.prompt, part.start, part.alternatives, part.salt)
        else:
            runtime.add(id, part.prompt, part.sampling, echo=part.echo)
        asked.bind(id, part)
    while not asked.done:
        for step in runtime.step():
            assert asked.advance(step) == []
        for id in asked.dropped():
            runtime.cancel(id)
    while runtime.busy():
        runtime.step()
    assert isinstance(asked.answer, Loglikelihoods)
    return asked.answer


def test_it_is_the_sum_of_the_tokens_log_probabilities(runtime: OpenVINOGenAI) -> None:
    found = likely(runtime, ANSWERS)
    prompt = runtime.encode(
        TEMPLATES.render(runtime.chat_template(), QUESTION, [], runtime.special_tokens())
    )
    for answer, logprob, count in zip(ANSWERS, found.logprobs, found.tokens, strict=True):
        tokens = runtime.encode(answer)
        assert len(tokens) == count
        sampling = Sampling(max_tokens=1, temperature=0.0, logprobs=0)
        read = run(runtime, {1: (prompt + tokens, sampling)}, echo=True)[1]
        own = [token.logprob for token in read[len(prompt) : len(prompt) + count]]
        assert logprob == pytest.approx(sum(value or 0.0 for value in own), abs=0.05)


def test_a_good_answer_is_likelier_than_a_bad_one(runtime: OpenVINOGenAI) -> None:
    good, bad = likely(runtime, ["Blue", "Wednesday"]).logprobs
    assert good > bad + 3


def test_an_empty_label_and_an_endless_one_are_refused(runtime: OpenVINOGenAI) -> None:
    with pytest.raises(InvalidRequest, match="label 1 is empty"):
        likely(runtime, ["a", ""])
    with pytest.raises(InvalidRequest, match="this model takes"):
        likely(runtime, ["word " * 9000])


def test_an_engine_that_remembers_prompts_leaves_them_to_the_reader(smollm2_folder: Path) -> None:
    """What it remembers of a prompt it does not read again, and so gives no numbers of it."""
    opened = openvino_genai.open(smollm2_folder, {"prefix_cache": True, "prompt_lookup": False})
    try:
        assert "echo_logprobs" not in opened.info.options
        good, bad = likely(opened, ["Blue", "Wednesday"]).logprobs
        assert good > bad + 3
    finally:
        opened.close()


def test_tokens_come_with_alternatives(runtime: OpenVINOGenAI) -> None:
    plain = likely(runtime, ANSWERS)
    assert plain.details == []
    found = likely(runtime, ANSWERS, alternatives=5)
    assert found.tokens == plain.tokens
    # Another kernel, with 8-bit activations as the first.
    assert found.logprobs == pytest.approx(plain.logprobs, abs=0.6)
    for answer, logprob, tokens in zip(ANSWERS, found.logprobs, found.details, strict=True):
        assert b"".join(token.bytes for token in tokens).decode() == answer
        assert sum(token.logprob or 0.0 for token in tokens) == pytest.approx(logprob)
        for token in tokens:
            values = [value for _, _, value in token.alternatives]
            assert len(values) == 5
            assert values == sorted(values, reverse=True)
            assert token.logprob is not None
            assert token.logprob <= values[0]
            texts = [other.decode(errors="replace") for _, other, _ in token.alternatives]
            assert texts == [text for text, _, _ in token.alternatives]
    # What the model writes itself is likeliest of all.
    (token, *_) = likely(runtime, ["Wednesday"], alternatives=1).details[0]
    written = run(runtime, {1: (prompt_of(runtime), Sampling(max_tokens=1, temperature=0))})[1]
    assert token.alternatives[0][1] == runtime.piece(written[0].id)


def test_tokens_alone_need_no_second_network(runtime: OpenVINOGenAI) -> None:
    found = likely(runtime, ["Blue"], alternatives=0)
    assert [token.alternatives for token in found.details[0]] == [[]]
    assert found.details[0][0].logprob == pytest.approx(found.logprobs[0])


def test_answers_with_one_salt_share_their_beginnings(runtime: OpenVINOGenAI) -> None:
    length = len(prompt_of(runtime))
    assert likely(runtime, ["Blue"], cache_salt="a").usage.cached_tokens == 0
    assert likely(runtime, ["Red"], cache_salt="a").usage.cached_tokens == length - 1
    assert likely(runtime, ["Red"], cache_salt="b").usage.cached_tokens == 0
    several = likely(runtime, ["Blue", "Blue sky", "Blue sea", "No"], cache_salt="c")
    alone = [likely(runtime, [one], cache_salt=one) for one in ("Blue", "Blue sky", "Blue sea")]
    assert several.logprobs[:3] == pytest.approx([one.logprobs[0] for one in alone], abs=0.6)


def test_alternatives_that_are_too_many_or_unknown_are_refused(
    runtime: OpenVINOGenAI, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="0 to 20"):
        likely(runtime, ["a"], alternatives=21)
    echo = open_echo(tmp_path, {})
    (found,) = likely(echo, ["some words"], alternatives=3).details
    assert [len(token.alternatives) for token in found] == [3] * len(found)
    echo.info = msgspec.structs.replace(echo.info, options=["echo_logprobs"])
    with pytest.raises(UnsupportedParameter, match="no alternatives"):
        likely(echo, ["a"], alternatives=1)
    assert likely(echo, ["a"], alternatives=0).details[0][0].alternatives == []


def prompt_of(runtime: OpenVINOGenAI) -> list[int]:
    template = runtime.chat_template()
    return runtime.encode(TEMPLATES.render(template, QUESTION, [], runtime.special_tokens()))
