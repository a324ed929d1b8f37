"""Entities of texts over HTTP, by the starter ``entities``."""

from __future__ import annotations

import unicodedata
from typing import Any

import httpx
import pytest
from tests.processes import ServerProcess

MODEL = "entities"
ADDRESS = "14 Marlborough Road, Sheffield S10 1DA"
LETTER = f"My name is Emily Watson and I live at {ADDRESS}."


def post(server: ServerProcess, body: Any) -> httpx.Response:
    return httpx.post(
        f"{server.url}/v1/entities",
        json=body,
        headers={"Authorization": f"Bearer {server.key}"},
        timeout=120,
    )


def answer(server: ServerProcess, body: Any) -> Any:
    response = post(server, body)
    assert response.status_code == 200, response.text
    return response.json()


def found(server: ServerProcess, text: str, **more: Any) -> dict[str, str]:
    """Label of each span, whose offsets must be those of its text."""
    (one,) = answer(server, {"input": text} | more)["data"]
    for entity in one["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert 0 < entity["score"] <= 1
    return {entity["text"]: entity["label"] for entity in one["entities"]}


@pytest.mark.parametrize("model", [None, MODEL])
def test_people_and_addresses(server: ServerProcess, model: str | None) -> None:
    texts = [LETTER, "The meeting was moved to Tuesday."]
    made = answer(server, {"model": model, "input": texts})
    told = [[(one["text"], one["label"]) for one in each["entities"]] for each in made["data"]]
    assert told == [[("Emily Watson", "PERSON"), (ADDRESS, "ADDRESS")], []]
    assert [each["index"] for each in made["data"]] == [0, 1]
    assert (made["model"], made["version"]) == (MODEL, "1")
    assert made["usage"]["prompt_tokens"] == made["usage"]["total_tokens"] > 20


@pytest.mark.parametrize(
    "before",
    ["🙂👩🏽\u200d🚀 ", "e\u0301a\u0308 ", "السلام عليكم. ", "\u200bé\u00a0", "𝔄𝔅 ℌ ﷺ ", "你好，"],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_offsets_are_code_points_of_the_callers_text(
    server: ServerProcess, before: str, form: Any
) -> None:
    name = unicodedata.normalize(form, "José Müller")
    assert found(server, f"{before}My name is {name}. 🙂").get(name) == "PERSON"


def test_a_mark_on_the_last_letter_is_of_the_name(server: ServerProcess) -> None:
    name = unicodedata.normalize("NFD", "Andreé")
    assert found(server, f"Dear {name}, thanks for your message.") == {name: "PERSON"}


def test_nothing_goes_unread_beyond_the_context(server: ServerProcess) -> None:
    """Names at the beginning, in the middle and at the end of thousands of tokens."""
    rest = "The committee read the report and decided to wait until spring. " * 60
    text = f"{LETTER} {rest} {LETTER} {rest} {LETTER}"
    (one,) = answer(server, {"input": text})["data"]
    people = [each["start"] for each in one["entities"] if each["text"] == "Emily Watson"]
    assert people == [text.index("Emily"), text.index("Emily", 1000), text.rindex("Emily")]
    places = [each["text"] for each in one["entities"] if each["label"] == "ADDRESS"]
    assert sum(ADDRESS in place for place in places) == 3


def test_texts_of_one_call_are_answered_as_alone(server: ServerProcess) -> None:
    texts = [LETTER, "Hi Bob!", LETTER * 30, "no names here", "Ms Okafor called Tom Baker."]
    together = answer(server, {"input": texts})["data"]
    for text, mine in zip(texts, together, strict=True):
        (alone,) = answer(server, {"input": text})["data"]
        spans = [
            [(one["start"], one["end"], one["label"]) for one in each["entities"]]
            for each in (mine, alone)
        ]
        assert spans[0] == spans[1]


def test_ways_to_aggregate(server: ServerProcess) -> None:
    whole = found(server, LETTER, aggregation="first")
    assert whole == found(server, LETTER)
    tokens = found(server, LETTER, aggregation="none")
    assert tokens["Emily"] == "B-PERSON"
    assert tokens["Watson"] == "I-PERSON"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"input": ""}, 400, "input 0 is empty"),
        ({"input": "x", "model": "minilm-l6-v2"}, 400, "cannot find entities"),
        ({"input": "x", "model": "nobody"}, 404, "no model 'nobody'"),
        ({"input": "x", "aggregation": "best"}, 400, "aggregation"),
        ({"input": "x", "labels": ["PERSON"]}, 400, "labels"),
        ({"input": "x" * 2_000_000}, 413, "2000000 characters"),
    ],
)
def test_what_cannot_be_read(server: ServerProcess, body: Any, status: int, says: str) -> None:
    response = post(server, body)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]


def test_other_tasks_refuse_a_token_classifier(server: ServerProcess) -> None:
    response = httpx.post(
        f"{server.url}/v1/classify",
        json={"input": "x", "model": MODEL, "labels": ["a", "b"]},
        headers={"Authorization": f"Bearer {server.key}"},
    )
    assert response.status_code == 400
    assert "does tag" in response.json()["error"]["message"]
