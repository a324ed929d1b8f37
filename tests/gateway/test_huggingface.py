"""``huggingface_hub.InferenceClient`` against a real server."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tests.processes import ServerProcess

EMBEDDER = "minilm-l6-v2"
SPORT = "The striker scored twice in the cup final."


def client(server: ServerProcess, model: str) -> InferenceClient:
    return InferenceClient(model=f"{server.url}/models/{model}", token=server.key, timeout=60)


def test_zero_shot_classification(server: ServerProcess) -> None:
    labels = ["politics", "sport", "cooking"]
    found = client(server, EMBEDDER).zero_shot_classification(SPORT, labels)
    assert found[0].label == "sport"
    assert sum(one.score for one in found) == pytest.approx(1)
    several = client(server, EMBEDDER).zero_shot_classification(SPORT, labels, multi_label=True)
    assert {one.label for one in several} == set(labels)


def test_feature_extraction(server: ServerProcess) -> None:
    vectors = client(server, EMBEDDER).feature_extraction(SPORT)
    assert vectors.shape == (1, 384)
    assert np.linalg.norm(vectors) == pytest.approx(1, abs=1e-5)
    with pytest.raises(HfHubHTTPError, match="the limit is 256"):
        client(server, EMBEDDER).feature_extraction("word " * 2000)
    cut = client(server, EMBEDDER).feature_extraction("word " * 2000, truncate=True)
    assert cut.shape == (1, 384)


def test_text_classification(server: ServerProcess) -> None:
    found = client(server, "sentiment").text_classification("I love this phone, it is fantastic!")
    assert found[0].label == "positive"
    assert sum(one.score for one in found) == pytest.approx(1)
    first = client(server, "sentiment").text_classification("Great job, team!", top_k=1)
    assert [one.label for one in first] == ["positive"]


def test_token_classification(server: ServerProcess) -> None:
    text = "My name is Emily Watson and I live at 5 Chapel Lane, Leeds."
    asked = client(server, "entities").token_classification
    for how in (None, "simple", "first", "average", "max"):
        spans = asked(text, aggregation_strategy=how)  # type: ignore[arg-type]
        assert [(one.word, one.entity_group) for one in spans] == [
            ("Emily Watson", "PERSON"),
            ("5 Chapel Lane, Leeds", "ADDRESS"),
        ]
        assert all(text[one.start : one.end] == one.word for one in spans)
        assert all(0.5 < one.score <= 1 for one in spans)
    tokens = asked(text, aggregation_strategy="none")  # type: ignore[arg-type]
    assert [one.entity for one in tokens[:2]] == ["B-PERSON", "I-PERSON"]
    kept = asked(text, ignore_labels=["O", "PERSON"])
    assert [one.entity_group for one in kept] == ["ADDRESS"]
    with pytest.raises(HfHubHTTPError, match="keep O among them"):
        asked(text, ignore_labels=["PERSON"])
    with pytest.raises(HfHubHTTPError, match="stride"):
        asked(text, stride=4)


def test_several_texts_have_a_list_each(server: ServerProcess) -> None:
    response = httpx.post(
        f"{server.url}/models/entities/pipeline/token-classification",
        json={"inputs": ["Dear Mr Watson,", "It rains."]},
        headers={"Authorization": f"Bearer {server.key}"},
    )
    first, second = response.json()
    assert [one["word"] for one in first] == ["Watson"]
    assert second == []


@pytest.mark.parametrize("path", ["smollm2-135m", f"{EMBEDDER}/pipeline/summarization"])
def test_summarization(server: ServerProcess, path: str) -> None:
    text = (
        "The city opened a new bridge over the river on Monday. It took four years to build. "
        "The mayor cut the ribbon before a crowd of thousands. Some people complained of noise."
    )
    found = client(server, path).summarization(text)
    assert 20 < len(found.summary_text) <= len(text)


def test_translation(server: ServerProcess) -> None:
    found = client(server, "en-pt").translation("The book is on the table.")
    assert "livro" in found.translation_text
    found = client(server, "pt-en").translation("O livro.", src_lang="pt", tgt_lang="en")
    assert "book" in found.translation_text
    with pytest.raises(HfHubHTTPError, match="en → pt"):
        client(server, "en-pt").translation("Hello", src_lang="en", tgt_lang="de")


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        (EMBEDDER, {"inputs": ""}, 400, "inputs 0 is empty"),
        (EMBEDDER, {"inputs": "x", "parameters": {"candidate_labels": ["a"]}}, 400, "got 1"),
        (f"{EMBEDDER}/pipeline/nonsense", {"inputs": "x"}, 404, "no task 'nonsense'"),
        (f"{EMBEDDER}/pipeline/text-classification", {"inputs": "x"}, 400, "no labels"),
        (f"{EMBEDDER}/pipeline/zero-shot-classification", {"inputs": "x"}, 400, "candidate"),
        (EMBEDDER, {"inputs": "x", "nonsense": 1}, 400, "nonsense"),
        ("en-pt/pipeline/summarization", {"inputs": "x"}, 400, "cannot summarize"),
        ("smollm2-135m/pipeline/translation", {"inputs": "x"}, 400, "tgt_lang is needed"),
        ("en-pt", {"inputs": "x", "parameters": {"generate_parameters": {}}}, 400, "generate_"),
        (f"{EMBEDDER}/pipeline/token-classification", {"inputs": "x"}, 400, "no entities"),
        (EMBEDDER, {"inputs": "x", "parameters": {"ignore_labels": ["O"]}}, 400, "ignore_labels"),
        ("digits", {"inputs": "x"}, 400, "cannot"),
        ("nobody", {"inputs": "x"}, 404, "no model 'nobody'"),
    ],
)
def test_errors_in_the_protocols_own_form(
    server: ServerProcess, path: str, body: object, status: int, says: str
) -> None:
    response = httpx.post(
        f"{server.url}/models/{path}",
        json=body,
        headers={"Authorization": f"Bearer {server.key}"},
    )
    assert response.status_code == status
    assert says in response.json()["error"]
