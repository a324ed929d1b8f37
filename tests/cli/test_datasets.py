"""``openmaas datasets``: data are sent, shown as they are, and removed, on a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.cli.test_errors import refused, run
from tests.processes import ServerProcess, serving

Run = Callable[..., CompletedProcess[str]]

ROWS = [("good food", "yes"), ("cold food", "no"), ("kind crew", "yes"), ("rude crew", "no")] * 10


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture
def openmaas(house: ServerProcess) -> Run:
    env = {"OPENMAAS_URL": house.url, "OPENMAAS_API_KEY": house.key}
    return lambda *arguments: run(house.data, *map(str, arguments), **env)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    lines = [f"{number},{text},{liked}" for number, (text, liked) in enumerate(ROWS)]
    path = tmp_path / "reviews.csv"
    path.write_text("\n".join(["stars,text,liked", *lines]) + "\n")
    return path


def told(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def id_of(screen: str) -> str:
    (line,) = [line for line in screen.splitlines() if line.startswith("data set ")]
    return line.split()[-1]


def test_what_is_sent_is_shown_listed_and_removed(openmaas: Run, reviews: Path) -> None:
    done = openmaas("datasets", "push", reviews, "--target", "liked", "--name", "my reviews")
    screen = told(done)
    assert "✓ my reviews: 40 rows, 3 columns" in done.stderr
    assert "40 (train 28, validation 4, test 8)" in screen
    assert [line.split()[:3] for line in screen.splitlines() if line.startswith("stars")] == [
        ["stars", "number", "int64"]
    ]
    assert "yes        20   50.0%  ████████████████████" in screen
    id = id_of(screen)
    assert told(openmaas("datasets", "show", id)) == screen

    listed = told(openmaas("datasets", "list")).splitlines()
    (line,) = [line for line in listed if line.startswith(id)]
    assert line.split()[1:7] == ["my", "reviews", "csv", "ready", "40", "liked"]
    (one,) = [one for one in json.loads(told(openmaas("datasets", "list", "--json")))
              if one["id"] == id]  # fmt: skip
    shown = json.loads(told(openmaas("datasets", "show", id, "--rows", "1", "--json")))
    assert shown["description"] == one["description"]
    assert shown["preview"]["columns"] == ["stars", "text", "liked"]

    rows = told(openmaas("datasets", "show", id, "--rows", "2")).split("row 1\n")[1]
    assert rows == '  stars: 0\n  text: "good food"\n  liked: "yes"\n\n' \
                   'row 2\n  stars: 1\n  text: "cold food"\n  liked: "no"\n'  # fmt: skip
    assert told(openmaas("datasets", "remove", id)) == f"{id} is removed\n"
    assert id in refused(openmaas("datasets", "show", id))
    assert id not in told(openmaas("datasets", "list"))


def test_the_options_are_those_of_the_api(openmaas: Run, tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("a\tfold\n" + "1\ttrain\n2\ttest\n3\ttrain\n")
    options = ("--format", "csv", "--delimiter", "tab", "--split", "fold", "--kind", "a=category")
    screen = told(openmaas("datasets", "push", path, *options))
    assert "3 (train 2, validation 0, test 1)" in screen
    assert "category" in screen
    options = ("--format", "csv", "--split", "validation=0.4,test=0.2", "--seed", "3")
    assert "(train 1, validation 1, test 1)" in told(openmaas("datasets", "push", path, *options))


def test_bad_rows_are_told_of_by_their_lines(openmaas: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("a,b\n" + "1,2\n" * 30 + "3\n" + "5,6\n" * 9)
    done = openmaas("datasets", "push", path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    *_, first, second = done.stderr.splitlines()
    assert first == "error: bad.csv: 1 row is bad (bad_rows: skip leaves such out):"
    assert second == "line 32: it has 1 values; the header names 2"
    screen = told(openmaas("datasets", "push", path, "--skip-bad-rows", "0.1"))
    assert "1 left out" in screen
    assert "line 32: it has 1 values" in screen


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("nowhere.csv",), "nowhere.csv"),
        (("{}", "--kind", "stars"), "--kind"),
        (("{}", "--split", "test=much"), "--split"),
        (("{}", "--image-size", "64"), "--image-size"),
    ],
)
def test_what_is_typed_wrong(
    openmaas: Run, reviews: Path, arguments: tuple[str, ...], word: str
) -> None:
    given = [one.format(reviews) for one in arguments]
    assert word in refused(openmaas("datasets", "push", *given))


def test_an_option_of_another_format_is_refused_by_name(openmaas: Run, reviews: Path) -> None:
    done = openmaas("datasets", "push", reviews, "--channels", "3")
    assert done.returncode == 1
    assert "channels is an option of images" in done.stderr.splitlines()[-1]
