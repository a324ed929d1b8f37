"""The language tasks as commands, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ServerProcess

ARTICLE = (
    "The city opened a new bridge over the river on Monday. It took four years to build. "
    "The mayor cut the ribbon before a crowd of thousands. Some people complained of noise. "
    "The bridge carries two lanes for cars and one for bicycles."
)


def ask(
    server: ServerProcess, *words: str, given: str = "", status: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "openmaas.cli", *words],
        input=given,
        env=os.environ | {"OPENMAAS_URL": server.url, "OPENMAAS_API_KEY": server.key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_text_shows_all_labels_with_bars(server: ServerProcess) -> None:
    lines = ask(server, "sentiment", "I love this phone!").stdout.splitlines()
    assert lines[0].startswith("positive")
    assert len(lines) == 3
    assert lines[0].split()[2].startswith("██████")


def test_several_texts_have_a_line_each(server: ServerProcess) -> None:
    lines = ask(server, "sentiment", "I love this phone!", "I hate it.").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["positive", "negative"]
    assert lines[1].endswith("I hate it.")


def test_entities_stand_in_their_text(server: ServerProcess, tmp_path: Path) -> None:
    text = "My name is Emily Watson and I live at 5 Chapel Lane, Leeds."
    done = ask(server, "entities", text)
    assert "Emily Watson [PERSON]" in done.stdout
    assert "5 Chapel Lane, Leeds [ADDRESS]." in done.stdout
    source = tmp_path / "mails.jsonl"
    source.write_text(json.dumps({"id": 7, "body": text}) + "\n")
    (one,) = objects(ask(server, "entities", "-f", str(source), "--field", "body").stdout)
    assert (one["id"], one["body"]) == (7, text)
    assert [entity["label"] for entity in one["entities"]] == ["PERSON", "ADDRESS"]
    first = one["entities"][0]
    assert text[first["start"] : first["end"]] == first["text"] == "Emily Watson"


def test_labels_of_ones_own_from_a_pipe(server: ServerProcess) -> None:
    given = "The striker scored twice.\n\nBoil the eggs for ten minutes.\n"
    done = ask(server, "classify", "--labels", "sport, cooking", "--json", given=given)
    found = objects(done.stdout)
    assert [one["label"] for one in found] == ["sport", "cooking"]
    assert sum(found[0]["scores"].values()) == pytest.approx(1)


def test_json_lines_keep_their_order_and_fields(server: ServerProcess, tmp_path: Path) -> None:
    """More than one call's worth, in several scripts."""
    texts = ["I love it 🙂", "我讨厌它", "أنا أحبه", "This is awful.\nReally."] * 40
    source = tmp_path / "comments.jsonl"
    rows = [{"id": number, "body": text} for number, text in enumerate(texts)]
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows))
    done = ask(server, "sentiment", "--file", str(source), "--field", "body")
    found = objects(done.stdout)
    assert [{"id": one["id"], "body": one["body"]} for one in found] == rows
    assert {one["label"] for one in found} <= {"negative", "neutral", "positive"}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": 1}', "line 2 is no object with a text in 'text'"),
        ("[]", "line 2 is no object"),
        ("{", "line 2 is not JSON"),
        ('{"text": " "}', "line 2 is empty"),
    ],
)
def test_a_bad_line_is_named_before_any_work(
    server: ServerProcess, tmp_path: Path, line: str, says: str
) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text('{"text": "fine"}\n' + line + "\n")
    done = ask(server, "sentiment", "--file", str(source), status=1)
    assert says in done.stderr
    assert done.stdout == ""


def test_a_summary_of_a_file(server: ServerProcess, tmp_path: Path) -> None:
    source = tmp_path / "article.txt"
    source.write_text(ARTICLE)
    short = ask(server, "summarize", "--length", "short", "--file", str(source)).stdout.strip()
    assert short in ARTICLE
    bullets = ask(server, "summarize", "--style", "bullets", given=ARTICLE).stdout
    assert bullets.count("• ") == 3
    told = ask(server, "summarize", "--model", "smollm2-135m", given=ARTICLE).stdout.strip()
    assert 0 < len(told) <= len(ARTICLE)


def test_a_translation(server: ServerProcess, tmp_path: Path) -> None:
    text = "The book is on the table.\n\nSee https://example.org for {name}.\n"
    made = ask(server, "translate", "--to", "pt", "--from", "en", given=text).stdout
    assert "livro" in made
    assert made.count("\n") == text.count("\n")
    assert "https://example.org" in made
    assert "{name}" in made
    source = tmp_path / "strings.jsonl"
    source.write_text('{"key": "a", "text": "Good morning"}\n')
    (one,) = objects(ask(server, "translate", "--to", "pt", "-f", str(source)).stdout)
    assert (one["key"], one["source"]) == ("a", "en")
    assert "dia" in one["translation"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["translate", "--to", "de", "--from", "en", "Hello"], 1, "en → pt (en-pt)"),
        (["translate", "--to", "xx", "Hello"], 1, "no language has the code 'xx'"),
        (["translate", "Hello"], 2, "--to"),
        (["sentiment", " "], 1, "text 1 is empty"),
        (["sentiment"], 1, "standard input is empty"),
        (["sentiment", "--file", "/nowhere"], 1, "cannot read /nowhere"),
        (["sentiment", "a", "--file", "b"], 2, "not both"),
        (["classify", "--labels", "one", "a"], 1, "from 2 to 1000 labels"),
        (["summarize", "--length", "endless", "a"], 2, "short"),
        (["classify", "--model", "digits", "a"], 1, "cannot classify"),
    ],
)
def test_what_cannot_be_done(
    server: ServerProcess, words: list[str], status: int, says: str
) -> None:
    assert says in ask(server, *words, status=status).stderr
