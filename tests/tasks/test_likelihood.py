"""How likely answers are, on a real language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openmaas.errors import InvalidRequest
from openmaas.inference import Loglikelihood, Loglikelihoods, Message, Sampling
from openmaas.runtimes import openvino_genai
from openmaas.runtimes.base import TokenRuntime
from openmaas.runtimes.openvino_genai import OpenVINOGenAI
from openmaas.tasks.likelihood import Likelihood
from tests.language import TEMPLATES, run

QUESTION = [Message(role="user", content="What color is the sky on a clear day?")]
ANSWERS = ["Blue", "The sky is blue.", "Wednesday"]


@pytest.fixture(scope="module")
def runtime(smollm2_folder: Path) -> Iterator[OpenVINOGenAI]:
    opened = openvino_genai.open(smollm2_folder, {"prompt_lookup": False})
    yield opened
    opened.close()


def likely(runtime: TokenRuntime, answers: list[str]) -> Loglikelihoods:
    asked = Likelihood(runtime, Loglikelihood(messages=QUESTION, answers=answers), TEMPLATES)
    for id, part in enumerate(asked.sequences, 1):
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


def test_an_engine_that_remembers_prompts_cannot_score_them(smollm2_folder: Path) -> None:
    """What it remembers of a prompt it does not read again, and so gives no numbers of it."""
    opened = openvino_genai.open(smollm2_folder, {"prefix_cache": True})
    try:
        assert "echo_logprobs" not in opened.info.options
        with pytest.raises(InvalidRequest, match="how likely"):
            likely(opened, ["a", "b"])
    finally:
        opened.close()
