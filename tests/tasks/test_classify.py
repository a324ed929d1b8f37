"""The arithmetic of classifying and reranking, on models whose numbers are known."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest

from openmaas.errors import EngineFailed, InvalidRequest
from openmaas.inference import ModelInfo
from openmaas.tasks.classify import SHARPNESS, classify
from openmaas.tasks.rerank import rerank
from tests.tasks.exact_model import ExactModel

OWN = ModelInfo(task="classify", runtime="exact", context_tokens=256, labels=["no", "yes"])
ENCODER = ModelInfo(task="embed", runtime="exact", context_tokens=256, dimensions=2)
CHAT = ModelInfo(task="chat", runtime="exact", context_tokens=2048)


def scores(model: ExactModel, texts: list[str], labels: list[str] | None, **more: Any) -> Any:
    return asyncio.run(classify(model, texts, labels, **more))[1]


def test_own_labels_share_one() -> None:
    model = ExactModel(OWN, numbers=lambda text: [0.0, math.log(3) if text == "a" else 0.0])
    assert scores(model, ["a", "b"], None) == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]))


def test_own_labels_that_are_independent() -> None:
    model = ExactModel(OWN, numbers=lambda _: [0.0, math.log(3)])
    assert scores(model, ["a"], None, multi_label=True) == pytest.approx(np.array([[0.5, 0.75]]))


def test_a_long_text_is_the_mean_of_its_passages_by_their_length() -> None:
    model = ExactModel(OWN, numbers=lambda text: [0.0, 8.0 if "good" in text else -8.0])
    rows = scores(model, ["A bad one here. " * 300 + "A good one here. " * 100], None)
    assert rows[0][1] < 0.05  # a quarter is good: 8/4 − 8·3/4 = −4
    assert rows[0][1] > 0.005


def test_likeness_is_a_softmax_of_cosines() -> None:
    places = {"text": [1.0, 0.0], "a": [0.6, 0.8], "b": [0.0, 1.0]}
    model = ExactModel(ENCODER, numbers=lambda text: places.get(text, [0.0, 1.0]))
    rows = scores(model, ["text"], ["a", "b"], template="{}")
    assert rows[0][0] == pytest.approx(1 / (1 + math.exp(-SHARPNESS * 0.6)))
    assert rows.sum() == pytest.approx(1)


def test_a_label_is_one_of_several_if_it_is_more_like_than_nothing() -> None:
    places = {"text": [1.0, 0.0], "a": [0.6, 0.8], "b": [0.0, 1.0], "something": [0.28, 0.96]}
    model = ExactModel(ENCODER, numbers=places.__getitem__)
    rows = scores(model, ["text"], ["a", "b"], template="{}", multi_label=True)
    assert rows[0][0] > 0.5 > rows[0][1]


def test_what_a_language_model_thinks_without_a_text_is_taken_off() -> None:
    """It says "a" whatever it reads; that a text makes "b" likelier is what counts."""
    known = {("N/A", "a"): -1.0, ("N/A", "b"): -5.0, ("text", "a"): -1.0, ("text", "b"): -3.0}
    model = ExactModel(CHAT, likelihood=lambda asked, answer: known[asked.split("\n")[0], answer])
    rows = scores(model, ["text"], ["a", "b"])
    assert rows[0][1] == pytest.approx(math.exp(2) / (1 + math.exp(2)))


def test_a_number_that_is_not_finite_fails_the_request() -> None:
    model = ExactModel(OWN, numbers=lambda _: [0.0, float("nan")])
    with pytest.raises(EngineFailed, match="not finite"):
        scores(model, ["a"], None)


def test_labels_for_a_model_that_has_its_own_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no, yes"):
        scores(ExactModel(OWN, numbers=lambda _: [0.0, 0.0]), ["a"], ["x", "y"])


def test_a_cross_encoder_reads_pairs() -> None:
    info = ModelInfo(
        task="classify", runtime="exact", context_tokens=256, labels=["relevant"], pairs=True
    )
    model = ExactModel(info, numbers=lambda pair: [math.log(3) if pair == "q|good" else 0.0])
    rows = asyncio.run(rerank(model, "q", ["bad", "good"]))
    assert rows == pytest.approx(np.array([0.5, 0.75]))
    with pytest.raises(InvalidRequest, match="/v1/rerank"):
        scores(model, ["a"], None)


def test_relevance_by_an_encoder_is_between_0_and_1() -> None:
    places = {"q": [1.0, 0.0], "same": [1.0, 0.0], "contrary": [-1.0, 0.0]}
    model = ExactModel(ENCODER, numbers=places.__getitem__)
    rows = asyncio.run(rerank(model, "q", ["contrary", "same"]))
    assert rows == pytest.approx(np.array([0.0, 1.0]))
