"""What every ``BatchRuntime`` keeps, on each engine that is one and on the echo runtime."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from openmaas.errors import ConfigurationError, InvalidRequest
from openmaas.inference import (
    Chat,
    Complete,
    Embed,
    Embedded,
    Message,
    Predict,
    Predicted,
    Request,
    Score,
    Scored,
    Tag,
    Tagged,
    Translate,
    Translated,
)
from openmaas.runtimes import open_runtime
from openmaas.runtimes.base import BatchRuntime
from tests.registry import small_translators
from tests.runtimes.small_networks import (
    classifier,
    dense,
    embed,
    encoder,
    predict,
    tagger,
    without_mask,
)


@dataclass(frozen=True)
class Case:
    """A runtime, and how to make its n-th request of a size."""

    name: str
    artifact: Callable[[Path], Path]
    options: dict[str, Any]
    request: Callable[[int, int], Request]
    answer: type[Predicted | Embedded | Scored | Tagged | Translated]
    foreign: Request


def _rows(number: int, size: int) -> Predict:
    return predict(np.random.default_rng(number).standard_normal((size, 6)).astype(np.float32))


def _texts(number: int, size: int) -> Embed:
    return embed(
        *(f"w{number % 60} " + "w5 " * (number % 7) for number in range(number, number + size))
    )


def _scores(number: int, size: int) -> Score:
    return Score(inputs=[text for text in _texts(number, size).inputs if isinstance(text, str)])


def _tags(number: int, size: int) -> Tag:
    return Tag(inputs=[text for text in _texts(number, size).inputs if isinstance(text, str)])


def _pairs(number: int, size: int) -> Score:
    return Score(inputs=[(f"w{number % 60}", f"w5 w{at % 60}") for at in range(size)])


def _sentences(number: int, size: int) -> Translate:
    texts = [" ".join(f"w{at * k % 30}" for k in range(1, 2 + at % 6)) for at in range(size)]
    return Translate(inputs=[f"w{number % 30} {text}" for text in texts])


def _marian(folder: Path) -> Path:
    return small_translators.artifact(folder, "marian")


def _student(folder: Path) -> Path:
    return small_translators.artifact(folder, "student")


def _reader(folder: Path) -> Path:
    return classifier(folder, pairs=True)


def _nothing(folder: Path) -> Path:
    return folder


CASES = [
    Case("openvino_tensors", dense, {}, _rows, Predicted, embed("w1")),
    Case("openvino_embeddings", encoder, {}, _texts, Embedded, _rows(0, 1)),
    Case("openvino_classifier", classifier, {}, _scores, Scored, embed("w1")),
    Case("openvino_classifier", without_mask, {}, _scores, Scored, embed("w1")),
    Case("openvino_classifier", _reader, {}, _pairs, Scored, _rows(0, 1)),
    Case("openvino_tagger", tagger, {}, _tags, Tagged, embed("w1")),
    Case("ctranslate2_translation", _marian, {}, _sentences, Translated, embed("w1")),
    # In bfloat16 a batch's size can turn the near ties of random weights.
    Case(
        "openvino_translation",
        _student,
        {"precision": "f32"},
        _sentences,
        Translated,
        _rows(0, 1),
    ),
    Case("echo", _nothing, {"task": "predict"}, _rows, Predicted, embed("w1")),
    Case("echo", _nothing, {"task": "embed"}, _texts, Embedded, _rows(0, 1)),
]


TASKS = {
    Predicted: "predict",
    Embedded: "embed",
    Scored: "classify",
    Tagged: "tag",
    Translated: "translate",
}


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case.name}-{case.answer.__name__}"
)
def case(request: pytest.FixtureRequest) -> Case:
    return cast(Case, request.param)


@pytest.fixture(scope="module")
def runtime(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchRuntime]:
    folder = case.artifact(tmp_path_factory.mktemp("artifact"))
    opened = cast(BatchRuntime, open_runtime(case.name, folder, dict(case.options)))
    yield opened
    opened.close()


def test_says_what_it_is(case: Case, runtime: BatchRuntime) -> None:
    assert runtime.info.runtime == case.name
    assert runtime.info.task == TASKS[case.answer]


def test_size_counts_what_is_billed(case: Case, runtime: BatchRuntime) -> None:
    asked = [case.request(number, 1 + number % 4) for number in range(6)]
    sizes = [runtime.size(one) for one in asked]
    for size, answer in zip(sizes, runtime.run(asked), strict=True):
        assert isinstance(answer, case.answer)
        billed = answer.usage.rows if case.answer is Predicted else answer.usage.input_tokens
        assert size == billed > 0


def test_a_request_is_answered_beside_others_as_alone(case: Case, runtime: BatchRuntime) -> None:
    asked = [case.request(number, 1 + number % 5) for number in range(12)]
    alone = [runtime.run([one])[0] for one in asked]
    for _ in range(2):
        for one, single in zip(runtime.run(asked), alone, strict=True):
            np.testing.assert_allclose(_numbers(one), _numbers(single), atol=1e-5)
    backwards = runtime.run(asked[::-1])[::-1]
    for one, single in zip(backwards, alone, strict=True):
        np.testing.assert_allclose(_numbers(one), _numbers(single), atol=1e-5)


def test_measured_or_not_a_request_is_answered_the_same(case: Case, runtime: BatchRuntime) -> None:
    measured, other = case.request(3, 2), case.request(3, 2)
    assert runtime.size(measured) == runtime.size(measured)  # asked again after waiting
    first, second = runtime.run([measured])[0], runtime.run([other])[0]
    np.testing.assert_array_equal(_numbers(first), _numbers(second))


def test_its_files_may_go_once_it_is_open(case: Case, tmp_path: Path) -> None:
    """A tenant's model lies unsealed for as long as it is loaded, and no longer."""
    folder = case.artifact(tmp_path)
    runtime = cast(BatchRuntime, open_runtime(case.name, folder, dict(case.options)))
    shutil.rmtree(tmp_path)
    for size in (1, 5, 40):  # shapes that are compiled only now
        (answer,) = runtime.run([case.request(size, size)])
        assert isinstance(answer, case.answer)
    runtime.close()


def test_no_requests_no_answers(runtime: BatchRuntime) -> None:
    assert runtime.run([]) == []


def test_other_tasks_are_refused(case: Case, runtime: BatchRuntime) -> None:
    chat = Chat(messages=[Message(role="user", content="hello")])
    for foreign in (case.foreign, chat, Complete(prompts=["hello"])):
        with pytest.raises(InvalidRequest):
            runtime.size(foreign)


def test_unknown_options_are_refused(case: Case, tmp_path: Path) -> None:
    options = {**case.options, "no_such_option": 1}
    with pytest.raises(ConfigurationError, match="no_such_option"):
        open_runtime(case.name, case.artifact(tmp_path), options)


def _numbers(answer: Any) -> Any:
    if isinstance(answer, Embedded):
        return np.frombuffer(answer.data, "<f4").reshape(-1, answer.dimensions)
    if isinstance(answer, Scored):
        return np.frombuffer(answer.data, "<f4").reshape(-1, answer.labels)
    if isinstance(answer, Tagged):
        spans = [(at, span) for at, of_one in enumerate(answer.outputs) for span in of_one]
        return np.array([(at, span.start, span.end, span.score) for at, span in spans])
    if isinstance(answer, Translated):  # every character, and how likely all are
        logprobs = [one for one in answer.logprobs if one is not None]
        assert len(logprobs) == len(answer.outputs)
        return np.array([*map(ord, "\n".join(answer.outputs)), *logprobs])
    assert isinstance(answer, Predicted)
    return np.concatenate([np.frombuffer(one.data, "<f4") for one in answer.outputs])
