"""Classifiers in OpenVINO: logits in order, pairs with their token types, limits by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConfigurationError, InvalidRequest, PayloadTooLarge
from openmaas.inference import Score, Scored, Tokenize, Tokenized
from openmaas.runtimes import openvino_classifier
from openmaas.runtimes.openvino_classifier import OpenVinoClassifier
from tests.runtimes.small_networks import (
    CONTEXT,
    LABELS,
    WORDS,
    classifier,
    classifier_tables,
    embed,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def runtime(folder: Path) -> OpenVinoClassifier:
    return openvino_classifier.open(folder, {})


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoClassifier:
    return openvino_classifier.open(classifier(tmp_path_factory.mktemp("pairs"), pairs=True), {})


def logits(answer: Any) -> NDArray[np.float32]:
    assert isinstance(answer, Scored)
    return np.frombuffer(answer.data, "<f4").reshape(-1, answer.labels)


def text(words: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(WORDS[4:], k=words))


def expected(ids: list[int], types: list[int]) -> NDArray[np.float32]:
    words, kinds = classifier_tables()
    found: NDArray[np.float32] = (words[ids] + kinds[types]).mean(0)
    return found


def tokens(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def test_says_what_it_is(runtime: OpenVinoClassifier, reader: OpenVinoClassifier) -> None:
    assert runtime.info.task == "classify"
    assert runtime.info.labels == LABELS
    assert (runtime.info.context_tokens, runtime.info.multi_label) == (CONTEXT, True)
    assert (runtime.info.pairs, reader.info.pairs) == (False, True)


def test_logits_are_the_networks_in_the_order_of_the_inputs(runtime: OpenVinoClassifier) -> None:
    texts = [text(length, seed) for seed, length in enumerate([1, 14, 3, 9, 1])]
    asked = [Score(inputs=list(texts[:4])), Score(inputs=[texts[4]])]
    assert [runtime.size(one) for one in asked] == [27 + 8, 1 + 2]
    answers = runtime.run(asked)
    together = np.concatenate([logits(answer) for answer in answers])
    ids = [[2, *tokens(one), 3] for one in texts]
    wanted = [expected(row, [0] * len(row)) for row in ids]
    np.testing.assert_allclose(together, wanted, atol=1e-5)
    assert [answer.usage.input_tokens for answer in answers if isinstance(answer, Scored)] == [
        35,
        3,
    ]


def test_pairs_have_their_token_types(reader: OpenVinoClassifier) -> None:
    pairs = [("w1 w2", "w3"), ("w4", "w5 w6 w7")]
    (answer,) = reader.run([Score(inputs=[*pairs, "w8"])])
    wanted = []
    for first, second in pairs:
        head, tail = [2, *tokens(first), 3], [*tokens(second), 3]
        wanted.append(expected(head + tail, [0] * len(head) + [1] * len(tail)))
    wanted.append(expected([2, *tokens("w8"), 3], [0, 0, 0]))
    np.testing.assert_allclose(logits(answer), wanted, atol=1e-5)
    assert isinstance(answer, Scored)
    assert answer.usage.input_tokens == 6 + 7 + 3


def test_pairs_are_refused_by_a_model_of_texts(runtime: OpenVinoClassifier) -> None:
    with pytest.raises(InvalidRequest, match="not pairs"):
        runtime.size(Score(inputs=["w1", ("w1", "w2")]))


def test_splits_texts_into_tokens_beside_scores(runtime: OpenVinoClassifier) -> None:
    split, scored = runtime.run([Tokenize(inputs=["w1 w2"]), Score(inputs=["w1 w2"])])
    assert isinstance(split, Tokenized)
    assert split.outputs == [[(2, b""), (5, b"w1"), (6, b"w2"), (3, b"")]]
    assert logits(scored).shape == (1, len(LABELS))


@pytest.mark.parametrize(
    ("asked", "message"),
    [(Score(inputs=[]), "nothing to classify"), (embed("w1"), "classifies texts only")],
)
def test_refuses_what_it_cannot_classify(
    runtime: OpenVinoClassifier, asked: Any, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        runtime.size(asked)


def test_more_than_the_context_is_refused(
    runtime: OpenVinoClassifier, reader: OpenVinoClassifier
) -> None:
    assert runtime.size(Score(inputs=[text(CONTEXT - 2)])) == CONTEXT
    with pytest.raises(InvalidRequest, match=f"input 1 has {CONTEXT + 1} tokens"):
        runtime.size(Score(inputs=["w1", text(CONTEXT - 1)]))
    with pytest.raises(InvalidRequest, match=f"input 0 has {CONTEXT + 1} tokens"):
        reader.size(Score(inputs=[(text(4), text(CONTEXT - 6))]))
    with pytest.raises(PayloadTooLarge):
        reader.size(Score(inputs=[("w1", "w1" + " " * 1_000_000)]))


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(40, 3, (10, 3)), (2, 40, (2, 11)), (40, 41, (6, 7)), (6, 8, (6, 7)), (5, 8, (5, 8))],
)
def test_cuts_the_longer_of_a_pair(
    tmp_path: Path, first: int, second: int, kept: tuple[int, int]
) -> None:
    cutting = openvino_classifier.open(classifier(tmp_path / "c", pairs=True), {"truncate": True})
    texts = text(first, 1), text(second, 2)
    short = [" ".join(one.split()[:most]) for one, most in zip(texts, kept, strict=True)]
    assert cutting.size(Score(inputs=[texts])) == sum(kept) + 3 == CONTEXT
    answers = [cutting.run([Score(inputs=[one])])[0] for one in (texts, (short[0], short[1]))]
    np.testing.assert_array_equal(logits(answers[0]), logits(answers[1]))


@pytest.mark.parametrize("labels", [None, ["a"], [1, 2, 3], "abc"])
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: Any) -> None:
    folder = classifier(tmp_path / "c")
    manifest = json.loads((folder / "manifest.json").read_text()) | {"labels": labels}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactRefused, match="label"):
        openvino_classifier.open(folder, {})


@pytest.mark.parametrize("options", [{"truncate": "yes"}, {"labels": 1}])
def test_options_are_known_and_in_range(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        openvino_classifier.open(folder, options)
