"""``/v1/translate`` on the starters, English ↔ Portuguese."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.gateway.test_tasks import CHAT, answer, post
from tests.processes import ServerProcess

KEPT = (
    "https://example.org/a?b=c",
    "me@example.org",
    "{name}",
    "{{total}}",
    "%(count)d",
    "<b>",
    "</b>",
    "`make serve`",
)


def translated(server: ServerProcess, text: str, **more: Any) -> str:
    made = answer(server, "/v1/translate", {"input": text, "target": "pt", "source": "en"} | more)
    (one,) = made["data"]
    return str(one["translation"])


def test_a_list_in_two_languages_goes_two_ways(server: ServerProcess) -> None:
    """The source of each text is detected; the model of its pair answers."""
    texts = [
        "The weather is beautiful today and the children are playing in the garden.",
        "O tempo está bonito hoje e as crianças brincam no jardim.",
    ]
    to_portuguese = answer(server, "/v1/translate", {"input": texts[0], "target": "pt"})
    (one,) = to_portuguese["data"]
    assert (one["source"], one["target"], one["model"]) == ("en", "pt", "en-pt")
    assert "crianças" in one["translation"]
    assert 0 < one["score"] <= 1
    assert to_portuguese["usage"]["prompt_tokens"] > 10
    (one,) = answer(server, "/v1/translate", {"input": texts[1], "target": "en"})["data"]
    assert (one["model"], one["version"]) == ("pt-en", "1")
    assert "children" in one["translation"]


@pytest.mark.parametrize("kept", KEPT)
def test_what_is_no_language_is_kept(server: ServerProcess, kept: str) -> None:
    text = f"Please read {kept} before you leave the house. It is important."
    assert translated(server, text).count(kept) == 1


def test_numbers_are_kept(server: ServerProcess) -> None:
    text = "In 1987 she sold 42 houses at 10:30 for 1250 euros; flight TP1234 left gate 7."
    made = translated(server, text)
    for number in ("1987", "42", "10:30", "1234", "7"):
        assert number in made
    assert "".join(sorted(filter(str.isdigit, made))) == "".join(sorted(filter(str.isdigit, text)))


def test_paragraphs_are_kept(server: ServerProcess) -> None:
    text = "# Title\n\n  The first part. It is short.\n\n\n- The second.\r\n- The third.\n"
    made = translated(server, text)
    assert [line == "" for line in made.splitlines()] == [line == "" for line in text.splitlines()]
    assert made.endswith("\n")
    assert made.splitlines()[2].startswith("  ")


@pytest.mark.parametrize("text", ["🙂🙂", "1234", "---", "https://example.org"])
def test_what_has_no_words_stays_as_it_is(server: ServerProcess, text: str) -> None:
    assert translated(server, text) == text


@pytest.mark.parametrize(
    "text", ["你好世界。" * 40, "مرحبا بالعالم. " * 30, "👩‍👩‍👧‍👦 hello " * 20]
)
def test_foreign_scripts_break_nothing(server: ServerProcess, text: str) -> None:
    assert "\ufffd" not in translated(server, text)


def test_a_long_text(server: ServerProcess) -> None:
    text = "\n".join(f"This is line {number} of the book." for number in range(300))
    lines = translated(server, text).splitlines()
    assert len(lines) == 300
    assert all(str(number) in line for number, line in enumerate(lines))


def test_a_stream_says_what_the_whole_says(server: ServerProcess) -> None:
    text = "The book is on the table. The cat sleeps.\n\nIt is late."
    response = post(
        server, "/v1/translate", {"input": text, "target": "pt", "source": "en", "stream": True}
    )
    *events, done = [line for line in response.text.split("\n\n") if line]
    assert done == "data: [DONE]"
    found = [json.loads(event.removeprefix("data: ")) for event in events]
    whole = translated(server, text)
    assert "".join(event["delta"] for event in found[:-1]) == whole
    assert found[-1]["data"][0]["translation"] == ""
    assert found[-1]["data"][0]["model"] == "en-pt"


def test_a_chat_model_translates_if_it_is_named(server: ServerProcess) -> None:
    text = "The book is on the table. See https://example.org now."
    body = {"model": CHAT, "input": text, "target": "fr", "source": "en"}
    (one,) = answer(server, "/v1/translate", body)["data"]
    assert (one["model"], one["target"], one["score"]) == (CHAT, "fr", None)
    assert one["translation"].count("https://example.org") == 1


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"input": ""}, 400, "input 0 is empty"),
        ({"input": "x" * 2_000_000}, 413, "2000000 characters"),
        ({"target": "xx"}, 400, "no language has the code 'xx'"),
        ({"target": "qqq-nonsense"}, 400, "target"),
        ({"source": "zz"}, 400, "no language has the code 'zz'"),
        ({"target": "?"}, 400, "target"),
        ({"target": "de"}, 400, "en → pt (en-pt); pt → en (pt-en)"),
        ({"source": "pt"}, 400, "the same language"),
        ({"source": "ja"}, 400, "no deployed model translates ja → pt"),
        ({"model": "pt-en"}, 400, "pt → en (pt-en)"),
        ({"model": "minilm-l6-v2"}, 400, "cannot translate"),
        ({"model": "nobody"}, 404, "no model 'nobody'"),
        ({"nonsense": 1}, 400, "nonsense"),
    ],
)
def test_what_cannot_be_translated(
    server: ServerProcess, body: Any, status: int, says: str
) -> None:
    given = {"input": "Hello there.", "target": "pt", "source": "en"} | body
    response = post(server, "/v1/translate", given)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]
