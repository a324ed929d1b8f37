"""The language tasks over HTTP, on the starter models."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.processes import ServerProcess

EMBEDDER, CHAT = "minilm-l6-v2", "smollm2-135m"
SPORT = "The striker scored twice in the cup final and the crowd cheered."
POLITICS = "Parliament passed the budget after the minister's speech."
ARTICLE = (
    "The city opened a new bridge over the river on Monday. "
    "It took four years to build and cost ninety million euros. "
    "The mayor cut the ribbon before a crowd of thousands. "
    "Some residents complained about the noise of the works. "
    "The bridge carries two lanes for cars and one for bicycles. "
    "Engineers expect it to halve the time of the way to the airport."
)
ARABIC = "افتتحت المدينة جسرا جديدا. استغرق بناؤه أربع سنوات. قص العمدة الشريط أمام الآلاف."
CHINESE = "城市周一开通了一座新桥。建造花了四年时间。市长在数千人面前剪彩。"


def post(server: ServerProcess, path: str, body: Any) -> httpx.Response:
    return httpx.post(
        server.url + path,
        json=body,
        headers={"Authorization": f"Bearer {server.key}"},
        timeout=120,
    )


def answer(server: ServerProcess, path: str, body: Any) -> Any:
    response = post(server, path, body)
    assert response.status_code == 200, response.text
    return response.json()


# --- tokenize --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [EMBEDDER, CHAT])
def test_tokens_are_the_text(server: ServerProcess, model: str) -> None:
    text = "hello 你好 🙂 مرحبا friend"
    (found,) = answer(server, "/v1/tokenize", {"model": model, "input": text})["data"]
    assert found["count"] == len(found["tokens"]) > 4
    joined = b"".join(bytes(token["bytes"]) for token in found["tokens"]).decode()
    assert joined.replace(" ", "") == text.replace(" ", "")


# --- classify --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, EMBEDDER])
def test_labels_of_ones_own(server: ServerProcess, model: str | None) -> None:
    body = {"model": model, "input": [SPORT, POLITICS], "labels": ["sport", "politics", "cooking"]}
    made = answer(server, "/v1/classify", body)
    assert [one["label"] for one in made["data"]] == ["sport", "politics"]
    for one in made["data"]:
        scores = [each["score"] for each in one["scores"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)
    assert made["model"] == EMBEDDER
    assert made["version"] == "1"
    assert made["usage"]["prompt_tokens"] > 20


def test_a_language_model_weighs_labels_by_their_likelihood(server: ServerProcess) -> None:
    body = {"model": CHAT, "input": SPORT, "labels": ["sport", "politics", "cooking"]}
    made = answer(server, "/v1/classify", body)
    assert made["method"] == "zero-shot by log-probabilities"
    (one,) = made["data"]
    assert one["label"] == "sport"
    assert sum(each["score"] for each in one["scores"]) == pytest.approx(1)
    assert answer(server, "/v1/classify", body)["data"] == made["data"]


@pytest.mark.parametrize("model", [EMBEDDER, CHAT])
def test_several_labels_at_once_share_nothing(server: ServerProcess, model: str) -> None:
    labels = ["sport", "football", "cooking"]
    body = {"model": model, "input": SPORT, "labels": labels, "multi_label": True}
    (one,) = answer(server, "/v1/classify", body)["data"]
    assert {each["label"] for each in one["scores"]} == set(labels)
    assert all(0 <= each["score"] <= 1 for each in one["scores"])
    assert sum(each["score"] for each in one["scores"]) != pytest.approx(1)


def test_a_long_text_is_read_to_its_end(server: ServerProcess) -> None:
    labels = ["sport", "politics"]
    early = POLITICS + (" " + SPORT) * 200
    (one,) = answer(server, "/v1/classify", {"input": early, "labels": labels})["data"]
    assert one["label"] == "sport"


@pytest.mark.parametrize("text", [ARABIC, CHINESE, "🙂🙃" * 50, "שלום עולם hello 世界"])
def test_every_script_is_classified(server: ServerProcess, text: str) -> None:
    (one,) = answer(server, "/v1/classify", {"input": text, "labels": ["news", "poem"]})["data"]
    assert one["label"] in ("news", "poem")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"input": "", "labels": ["a", "b"]}, 400, "input 0 is empty"),
        ({"input": ["x", " "], "labels": ["a", "b"]}, 400, "input 1 is empty"),
        ({"input": "x" * 2_000_000, "labels": ["a", "b"]}, 413, "2000000 characters"),
        ({"input": "x", "labels": ["a"]}, 400, "from 2 to 1000 labels, got 1"),
        ({"input": "x", "labels": [str(n) for n in range(10_000)]}, 400, "got 10000"),
        ({"input": "x", "labels": ["a", "a"]}, 400, "twice"),
        ({"input": "x", "labels": ["a", " "]}, 400, "empty label"),
        ({"input": "x", "model": EMBEDDER}, 400, "send labels"),
        ({"input": "x", "labels": ["a", "b"], "model": "digits"}, 400, "cannot classify"),
        ({"input": "x", "labels": ["a", "b"], "model": "no"}, 404, "no model 'no'"),
        ({"input": "x", "labels": ["a", "b"], "hypothesis_template": "This."}, 400, "no {}"),
        ({"input": "x", "labels": ["a", "b"], "nonsense": 1}, 400, "nonsense"),
    ],
)
def test_what_cannot_be_classified(
    server: ServerProcess, body: Any, status: int, says: str
) -> None:
    response = post(server, "/v1/classify", body)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]


# --- rerank ----------------------------------------------------------------------------------


def test_documents_by_relevance(server: ServerProcess) -> None:
    documents = ["Paris is in France.", {"text": "Shakespeare wrote Hamlet."}, "Boil the eggs."]
    body = {"query": "Who is the author of Hamlet?", "documents": documents}
    made = answer(server, "/v1/rerank", body | {"top_n": 2, "return_documents": True})
    assert len(made["results"]) == 2
    assert made["results"][0]["index"] == 1
    assert made["results"][0]["document"] == {"text": "Shakespeare wrote Hamlet."}
    scores = [one["relevance_score"] for one in answer(server, "/v1/rerank", body)["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"query": "", "documents": ["a"]}, "query 0 is empty"),
        ({"query": "a", "documents": []}, "documents"),
        ({"query": "a", "documents": ["b", ""]}, "documents 1 is empty"),
        ({"query": "a", "documents": ["b"], "model": CHAT}, "cannot rerank"),
    ],
)
def test_what_cannot_be_reranked(server: ServerProcess, body: Any, says: str) -> None:
    response = post(server, "/v1/rerank", body)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]


# --- summarize -------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "count"), [("short", 1), ("medium", 3)])
def test_an_extract_is_sentences_of_the_text_in_order(
    server: ServerProcess, length: str, count: int
) -> None:
    made = answer(server, "/v1/summarize", {"input": ARTICLE, "length": length})
    assert made["method"] == "extractive"
    (one,) = made["data"]
    found = [part.strip(". ") for part in one["summary"].split(". ")]
    assert len(found) == len(one["scores"]) == count
    places = [ARTICLE.index(part) for part in found]
    assert places == sorted(places)
    assert all(0 <= score <= 1 for score in one["scores"])


@pytest.mark.parametrize("model", [EMBEDDER, CHAT])
@pytest.mark.parametrize("text", ["Short.", "One here. Two.", ARABIC, CHINESE, "🙂" * 30])
@pytest.mark.parametrize("style", ["paragraph", "bullets"])
def test_a_summary_is_never_longer_than_its_source(
    server: ServerProcess, model: str, text: str, style: str
) -> None:
    body = {"model": model, "input": text, "length": "long", "style": style}
    (one,) = answer(server, "/v1/summarize", body)["data"]
    assert 0 < len(one["summary"]) <= len(text)
    assert "\ufffd" not in one["summary"]


@pytest.mark.slow
def test_a_text_longer_than_the_context_is_summarized(server: ServerProcess) -> None:
    text = "\n".join(f"{ARTICLE} That was report {number}." for number in range(105))
    made = answer(server, "/v1/summarize", {"model": CHAT, "input": text, "length": "short"})
    assert made["method"] == "abstractive"
    assert 10 < len(made["data"][0]["summary"]) < 1000
    assert made["usage"]["prompt_tokens"] > 8192


def test_bullets(server: ServerProcess) -> None:
    (one,) = answer(server, "/v1/summarize", {"input": ARTICLE, "style": "bullets"})["data"]
    lines = one["summary"].splitlines()
    assert len(lines) == 3
    assert all(line.startswith("• ") for line in lines)


def test_a_stream_says_what_the_whole_says(server: ServerProcess) -> None:
    body = {"model": CHAT, "input": ARTICLE, "length": "medium"}
    whole = answer(server, "/v1/summarize", body)
    response = post(server, "/v1/summarize", body | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done = [line for line in response.text.split("\n\n") if line]
    assert done == "data: [DONE]"
    found = [json.loads(event.removeprefix("data: ")) for event in events]
    told = "".join(event["delta"] for event in found[:-1])
    assert told.strip() == whole["data"][0]["summary"]
    assert found[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"input": ""}, 400, "input 0 is empty"),
        ({"input": "x " * 1_000_000}, 413, "2000000 characters"),
        ({"input": ARTICLE, "language": "fr"}, 400, "name a chat model"),
        ({"input": ARTICLE, "language": "?"}, 400, "language"),
        ({"input": ARTICLE, "length": "endless"}, 400, "length"),
    ],
)
def test_what_cannot_be_summarized(
    server: ServerProcess, body: Any, status: int, says: str
) -> None:
    response = post(server, "/v1/summarize", body)
    assert response.status_code == status
    assert says in response.text
