"""What all pictures of explanations share: colours, numbers, and bounds."""

from __future__ import annotations

import re
from typing import Any

import pytest

from openmaas.errors import EngineFailed
from openmaas.explaining.explanation import (
    Explanation,
    Feature,
    Piece,
)
from openmaas.explaining.rendering import colours, html_style, layout, words
from openmaas.explaining.rendering.composing import compose
from openmaas.explaining.rendering.html import page
from openmaas.explaining.rendering.layout import Coloured, arrange
from openmaas.explaining.rendering.terminal import terminal
from tests.explaining.rendered import Parsed, explained, gauge, pieces


@pytest.mark.parametrize("dark", [False, True])
def test_whatever_is_written_is_legible(dark: bool) -> None:
    look = colours.look(dark)
    assert colours.contrast(look.ink, look.page) >= 4.5
    assert colours.contrast(look.faint, look.page) >= 4.5
    for step in range(-colours.LEVELS, colours.LEVELS + 1):
        behind = colours.background(step, dark)
        assert colours.contrast(colours.ink(behind), behind) >= 4.5, step
    assert colours.background(0, dark) == look.page  # what weighs nothing looks like nothing
    strong = {colours.background(step, dark) for step in range(-colours.LEVELS, 11)}
    assert len(strong) == 2 * colours.LEVELS + 1


def test_the_style_sheet_has_no_other_colours_behind_letters() -> None:
    pairs = re.findall(r"background:(#\w{6});color:(#\w{6})", html_style.STYLE)
    assert len(pairs) == 4 * colours.LEVELS  # both signs, light and dark
    assert all(colours.contrast(behind, ink) >= 4.5 for behind, ink in pairs)


def test_contrast_is_that_of_the_guidelines() -> None:
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert colours.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(
    ("value", "greatest", "step"),
    [
        (0.0, 0.0, 0),
        (-0.0, 1.0, 0),
        (1.0, 1.0, 10),
        (-2.0, 1.0, -10),
        (0.26, 1.0, 3),
        (1.0, 0.0, 0),
    ],
)
def test_levels(value: float, greatest: float, step: int) -> None:
    assert colours.level(value, greatest) == step


@pytest.mark.parametrize(
    ("value", "greatest", "said"),
    [
        (0.5, 0.5, "+0.500"),
        (-0.5, 0.5, "−0.500"),
        (-0.0, 0.5, "0.000"),
        (-0.0001, 0.5, "0.000"),
        (0.0, 0.0, "0.00"),
        (-12.3, 123.0, "−12"),
        (1e-9, 1e-9, "+1.00e-09"),
        (-2e7, 2e7, "−2.00e+07"),
        (float("nan"), 1.0, "—"),
    ],
)
def test_numbers_have_signs_and_nothing_has_none(value: float, greatest: float, said: str) -> None:
    assert words.signed(value, greatest) == said


def test_short_numbers_fit_into_cells() -> None:
    assert [words.short(at, 0.0563) for at in (0.0563, -0.03, -0.0001)] == ["+.056", "−.030", "0"]
    assert words.short(-0.0, 0.0) == "0"
    assert all(len(words.short(-one, one)) <= 6 for one in (1e-9, 0.001, 0.5, 7.0, 420.0, 99_999.0))


def everywhere(explanation: Explanation, given: Any) -> str:
    """All that is said of it, in any picture."""
    sheet = compose(explanation, given, False, gauge, [])
    drawn = " ".join(one.text for one in sheet.words)
    shown = Parsed(page(explanation, given)).text
    return "\n".join([shown, terminal(explanation, given, colour=False), drawn])


@pytest.mark.parametrize(
    "found",
    [
        [],
        [0.0, -0.0],
        [[0.0, 0.0], [0.0, -0.0]],
        [float("nan"), float("inf"), 1.0],
        [[float("nan"), 1.0], [None, 2.0]],
        [Feature(name="age", value=float("nan"), attribution=float("nan"), high=1)],
        [Piece(text="good", start=0, end=4, attribution=-0.0, low=float("nan"), high=1.0)],
        [Piece(text="good", start=0, end=4, attribution=float("inf"), logprob=float("nan"))],
        [Piece(text="", start=0, end=0, attribution=0.0)],
        [{"text": "good", "start": 0, "end": 4, "attribution": None}],
        {},
        5.0,
    ],
)  # fmt: skip
def test_nothing_zero_and_no_numbers(found: Any) -> None:
    said = everywhere(explained(found, unit="feature"), "good food")
    assert not re.search(r"\b(nan|inf|infinity)\b", said, re.IGNORECASE)
    assert not re.search(r"[-−+]0(\.0+)?\b(?!\.)", said)


def test_no_attributions_at_all() -> None:
    assert "sentiment@3" in everywhere(explained(), "good food")


def test_what_is_huge_is_bounded_and_the_rest_is_named() -> None:
    text = "word " * 40_000
    document = page(explained(*[pieces(text, 0.5, -0.2)] * 30), text)
    assert len(document) < 2_000_000
    parsed = Parsed(document)
    assert "20 more answers are not shown" in parsed.text
    assert "198,000 characters at the end are not drawn" in parsed.text
    one = page(explained(pieces(text, 0.5, -0.2)), text)
    assert one.count("<span class=") <= layout.PIECES + 100
    image = [[1.0] * 1000] * 1000
    assert len(page(explained(image), image)) < 1_000_000
    assert len(terminal(explained(image), image)) < 200_000


def test_pieces_that_lie_nowhere_stand_for_the_text() -> None:
    found = [
        Piece(text="good", start=50, end=54, attribution=0.5),
        Piece(text="bad", start=40, end=43, attribution=-0.5),
        Piece(text="!", start=54, end=55, attribution=0.1),
    ]
    assert "bad … good!" in terminal(explained(found), "short", colour=False)


def test_pieces_that_overlap_are_drawn_once() -> None:
    found = [
        Piece(text="🎉", start=2, end=3, attribution=0.5),
        Piece(text="🎉", start=2, end=3, attribution=0.2),
        Piece(text="🎉 b", start=2, end=5, attribution=-0.1),
    ]
    body = arrange(explained(found), "a 🎉 b", 1).sections[0].parts[0].body
    assert isinstance(body, Coloured)
    assert [span.text for span in body.passages[0].spans] == ["a ", "🎉", " b"]
    assert len(body.ranked) == 3


def test_shapes_that_no_explanation_has_are_refused() -> None:
    for found in ([[1.0], [1.0, 2.0]], ["a"], [{"name": 3}], [Piece("a", 0, 1, 1.0), 5]):
        with pytest.raises(EngineFailed):
            page(explained(found), "a")
