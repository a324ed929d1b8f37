"""Explanations in terminals and as PNG: everything is on the page, and legible."""

from __future__ import annotations

import random
import re
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from rich.cells import cell_len

from openmaas.errors import ConfigurationError, EngineFailed
from openmaas.explaining.rendering import drawing
from openmaas.explaining.rendering.composing import HIGHEST, compose
from openmaas.explaining.rendering.drawing import Drawing
from openmaas.explaining.rendering.html import page
from openmaas.explaining.rendering.passages import Span
from openmaas.explaining.rendering.picture import Job, picture
from openmaas.explaining.rendering.sheet import WIDTH
from openmaas.explaining.rendering.terminal import terminal
from openmaas.explaining.rendering.wrapping import wrap
from tests.explaining.rendered import explained, gauge, hostile, many, pieces

PNG = b"\x89PNG\r\n\x1a\n"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def test_a_terminal_without_colour_has_the_numbers() -> None:
    text = "Good food, slow waiters."
    said = terminal(explained(pieces(text, 0.5, 0.1, -0.25, 0.0)), text, colour=False)
    assert "\x1b" not in said
    assert text in said
    for row in (r"\+0\.500 +│█+ +Good", r"−0\.250 +█+│ +slow", r" 0\.000 +│ +waiters\."):
        assert re.search(row, said), row
    coloured = terminal(explained(pieces(text, 0.5, 0.1, -0.25, 0.0)), text, colour=True)
    assert "\x1b[38;2;255;255;255;48;2;" in coloured or "\x1b[38;2;0;0;0;48;2;" in coloured
    assert terminal(explained(pieces(text, 0.5)), text, dark=False) != terminal(
        explained(pieces(text, 0.5)), text, dark=True
    )


@pytest.mark.parametrize("width", [20, 40, 80, 160])
@pytest.mark.parametrize("colour", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, colour: bool) -> None:
    image = [[0.1 * x for x in range(100)] for _ in range(100)]
    for explanation, given in [*hostile(), (explained(image), image), (many(), None)]:
        said = terminal(explanation, given, width=width, colour=colour)
        widest = max(cell_len(ESCAPE.sub("", line)) for line in said.splitlines())
        assert widest <= width


def test_a_text_commands_no_terminal() -> None:
    text = "a\x1b[2Jb \x9b31m \u202eevil\u2066 c\x07"
    said = terminal(explained(pieces(text, 0.5), label=text, source=text), text, colour=False)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", said)
    assert "\u202e" not in page(explained(pieces(text, 0.5), label=text), text)


def test_a_heat_map_is_read_by_signs() -> None:
    said = terminal(explained([[1.0, -0.5], [0.0, 0.2]]), [[1, 2], [3, 4]], colour=False)
    assert "+9−5\n ·+2\n" in said
    assert re.search(r"−0\.50 +█+│ +\[0, 1\]", said)


@pytest.mark.parametrize(
    "text",
    [
        "one two three four five six seven eight nine ten " * 20,
        "x" * 500,
        "这家酒店非常好我们会再来" * 30,
        "  indented\n\n\tand more\nשלום לכולם hello עולם " * 10,
        "",
    ],
)
def test_no_line_is_wider_than_the_page_and_nothing_is_lost(text: str) -> None:
    cut = random.Random(5).sample(range(len(text) + 1), min(40, len(text)))
    edges = [0, *sorted(cut), len(text)]
    spans = [Span(text[a:b], None) for a, b in pairwise(edges)]
    lines = wrap(spans, 100.0, lambda part: 7.0 * len(part))
    for line in lines:
        assert all(chunk.x >= 0 for chunk in line)
        assert all(chunk.x + chunk.width <= 100.001 for chunk in line)
        ends = [chunk.x + chunk.width for chunk in line]
        assert ends == sorted(ends)
    drawn = "".join(chunk.text for line in lines for chunk in line)
    assert sorted(re.sub(r"\s", "", drawn)) == sorted(re.sub(r"\s", "", text))


def test_text_from_right_to_left_begins_at_the_right() -> None:
    line = wrap([Span("שלום hello עולם", None)], 200.0, lambda part: 10.0 * len(part))[0]
    assert line[-1].x + line[-1].width == 200
    first, second = Span("שלום", None), Span(" עולם", None)
    placed = wrap([first, second], 200.0, lambda part: 10.0 * len(part))[0]
    assert [chunk.text.strip() for chunk in placed] == ["עולם", "שלום"]


@pytest.mark.parametrize("dark", [False, True])
def test_everything_on_a_sheet_is_on_the_page(dark: bool) -> None:
    long = "wonderful food and a terribly slow waiter " * 800
    image = [[0.1 * x for x in range(100)] for _ in range(30)]
    for explanation, given in [
        *hostile(),
        (many(), None),
        (explained(pieces(long, 0.5, -0.3)), long),
        (explained(*[pieces(long, 0.5, -0.3)] * 8), long),
        (explained(image), image),
        (explained({str(at): image for at in range(12)}), None),
    ]:
        sheet = compose(explanation, given, dark, gauge, [])
        assert 100 < sheet.y <= HIGHEST
        assert all(box.x >= 0 and box.x + box.width <= WIDTH for box in sheet.boxes)
        assert all(box.y >= 0 and box.y + box.height <= sheet.y for box in sheet.boxes)
        for one in sheet.words:
            wide = gauge(one.text, one.size, one.bold)
            left = one.x - {"left": 0.0, "center": wide / 2, "right": wide}[one.align]
            assert left >= 0
            assert left + wide <= WIDTH, one
            assert 0 < one.y < sheet.y


def test_a_picture_says_what_has_no_room() -> None:
    long = "wonderful food and a terribly slow waiter " * 800
    sheet = compose(explained(*[pieces(long, 0.5)] * 8), long, False, gauge, [])
    said = " ".join(one.text for one in sheet.words)
    assert "3 more answers are not shown" in said
    assert "more lines have no room here" in said
    assert "29,600 characters at the end are not drawn" in said


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(PNG)
    wide, tall = struct.unpack(">II", png[16:24])
    return wide, tall


async def test_a_child_draws_in_light_and_dark() -> None:
    text = "Good food, <b>$slow_1$</b> waiters. "
    explanation = explained(pieces(text, 0.5, 0.1, -0.25, 0.0), label="$x_$ \\frac")
    draw = Drawing()
    light = await draw.drawn(explanation, text, dark=False)
    dark = await draw.drawn(explanation, text, dark=True)
    assert size(light) == size(dark)
    assert size(light)[0] == WIDTH
    assert 300 < size(light)[1] < 1000
    assert light != dark


def test_who_asks_for_a_picture_imports_no_matplotlib() -> None:
    script = (
        "import openmaas.explaining.rendering.drawing, openmaas.explaining.rendering.html, sys;"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_pictures_grow_with_their_text_and_take_images() -> None:
    pytest.importorskip("matplotlib")
    short, long = ("wonderful food and a slow waiter " * times for times in (3, 60))
    heights = [
        size(picture(Job(explanation=explained(pieces(text, 0.5, -0.3)), input=text)))[1]
        for text in (short, long)
    ]
    assert heights[0] + 200 < heights[1] <= HIGHEST
    image = [[0.1 * x - 0.3 for x in range(8)] for _ in range(8)]
    assert size(picture(Job(explanation=explained(image), input=image, dark=True)))[0] == WIDTH


async def test_a_child_that_cannot_draw_says_why() -> None:
    with pytest.raises(EngineFailed, match="no known shape"):
        await Drawing().drawn(explained([[1.0], [1.0, 2.0]]), None, dark=False)
    with pytest.raises(EngineFailed, match="no JSON"):
        await Drawing().drawn(explained([1.0]), object(), dark=False)
    with pytest.raises(EngineFailed, match=r"within 0\.01 s"):
        await Drawing().drawn(explained([1.0]), None, dark=False, seconds=0.01)


async def test_a_missing_matplotlib_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('matplotlib')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"openmaas\[train\]"):
        await Drawing().drawn(explained([1.0]), None, dark=False)


def test_a_child_is_told_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENMAAS_API_KEY", "secret")
    assert "secret" not in drawing._environment().values()
