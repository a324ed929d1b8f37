"""Explanations as people read them: nothing of a stranger's text runs, everything is legible."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len

from openmaas.errors import ConfigurationError, EngineFailed
from openmaas.explaining.explanation import (
    Alternative,
    Attribution,
    Cost,
    Explanation,
    Feature,
    Piece,
    Trust,
)
from openmaas.explaining.rendering import colours, drawing, html_style, layout, words
from openmaas.explaining.rendering.composing import HIGHEST, compose
from openmaas.explaining.rendering.drawing import Drawing
from openmaas.explaining.rendering.html import fragment, page
from openmaas.explaining.rendering.layout import Coloured, Heat, Ranked, arrange
from openmaas.explaining.rendering.passages import Span
from openmaas.explaining.rendering.picture import Job, picture
from openmaas.explaining.rendering.sheet import WIDTH
from openmaas.explaining.rendering.terminal import terminal
from openmaas.explaining.rendering.wrapping import wrap

HOSTILE = "<script>alert('\"1&')</script>"
PNG = b"\x89PNG\r\n\x1a\n"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def explained(*found: Any, label: str = "positive", **fields: Any) -> Explanation:
    given: dict[str, Any] = {
        "id": "expl_1",
        "model": "sentiment",
        "version": "3",
        "task": "sentiment",
        "method": "occlusion",
        "source": "Zeiler and Fergus (2014), arXiv:1311.2901",
        "unit": "word",
        "seed": 7,
        "trust": Trust(
            completeness_error=0.0123, converged=True, notes=["Words are left out one by one."]
        ),
        "cost": Cost(forward_passes=412, seconds=1.73),
    }
    attributions = [
        Attribution(
            baselineOutputValue=0.5,
            instanceOutputValue=0.934,
            featureAttributions=one,
            outputIndex=[0],
            outputDisplayName=label,
            approximationError=None,
        )
        for one in found
    ]
    return Explanation(**(given | fields), attributions=attributions)


def pieces(text: str, *shares: float, message: int | None = None) -> list[Piece]:
    """Of its words; the shares are used again when they end."""
    return [
        Piece(
            text=word.group(),
            start=word.start(),
            end=word.end(),
            attribution=shares[at % len(shares)],
            message=message,
        )
        for at, word in enumerate(re.finditer(r"\S+", text))
    ]


def gauge(text: str, size: float, bold: bool) -> float:
    """Letters of one width, as a typewriter's."""
    return len(text) * size * 0.6


class Parsed(HTMLParser):
    """Tags with their attributes, and the text outside of style sheets."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "rect", "line", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "rect":
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


# --- Colours --------------------------------------------------------------------------------


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


# --- Words ----------------------------------------------------------------------------------


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


# --- HTML -----------------------------------------------------------------------------------


def hostile() -> list[tuple[Explanation, Any]]:
    text = f"good {HOSTILE} bad"
    found = [
        Piece(
            text=HOSTILE,
            start=5,
            end=5 + len(HOSTILE),
            attribution=0.5,
            logprob=-1.0,
            alternatives=[Alternative(text=HOSTILE, logprob=-2.0)],
        )
    ]
    fields: dict[str, Any] = dict.fromkeys(("label", "model", "version", "task", "source"), HOSTILE)
    trust = Trust(completeness_error=None, converged=None, notes=[HOSTILE])
    row = {HOSTILE: HOSTILE}
    column = [Feature(name=HOSTILE, value=HOSTILE, attribution=-0.5, low=-0.6, high=-0.4)]
    conversation = [{"role": HOSTILE, "content": text}]
    said = [msgspec.structs.replace(found[0], message=0)]
    return [
        (explained(found, trust=trust, **fields), text),
        (explained(said, trust=trust, **fields), conversation),
        (explained(column, trust=trust, **fields), row),
        (explained(column, trust=trust, **fields), [[HOSTILE]]),
        (explained({HOSTILE: [[1.0, 2.0], [0.0, -1.0]]}, **fields), {HOSTILE: [[1, 2], [3, 4]]}),
        (explained(found, method="surprise", **fields), None),
    ]


@pytest.mark.parametrize("at", range(6))
def test_nothing_of_a_text_is_markup(at: int) -> None:
    document = page(*hostile()[at])
    parsed = Parsed(document)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert HOSTILE not in document
    assert HOSTILE in parsed.text  # it is shown as it is
    allowed = {
        "class", "title", "dir", "viewbox", "x", "y", "width", "height", "x1", "x2", "y1", "y2",
        "d", "fill", "preserveaspectratio", "shape-rendering", "aria-hidden", "aria-label", "role",
        "lang", "charset", "content", "name", "http-equiv",
    }  # fmt: skip
    assert {name for _, attributes in parsed.tags for name in attributes} <= allowed
    assert not parsed.open


def test_a_page_loads_nothing_and_its_policy_allows_its_style_alone() -> None:
    document = page(explained(pieces("so good", 0.5, -0.2)), "so good")
    metas = [attributes for tag, attributes in Parsed(document).tags if tag == "meta"]
    policy = next(one for one in metas if one.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == html_style.POLICY
    assert html_style.POLICY.startswith("default-src 'none'; style-src 'sha256-")
    style = re.search(r"<style>(.*?)</style>", document, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html_style.POLICY
    assert "url(" not in document
    assert "://" not in document
    assert "prefers-color-scheme:dark" in style[1]


def test_a_text_s_pieces_say_their_share_and_the_rest_is_plain() -> None:
    text = "Good food, slow waiters."
    found = [
        *pieces("Good", 0.5),
        Piece(text="slow", start=11, end=15, attribution=-0.25, low=-0.3, high=-0.2),
    ]
    parsed = Parsed(page(explained(found), text))
    spans = {
        attributes["title"]: attributes["class"]
        for tag, attributes in parsed.tags
        if tag == "span" and "title" in attributes
    }
    assert spans == {"+0.500": "p10", "−0.250, 95 % interval [−0.300, −0.200]": "n5"}
    assert text in parsed.text
    for fact in ("sentiment@3", "arXiv:1311.2901", "0.0123, within the tolerance", "412 forward"):
        assert fact in parsed.text
    assert "output 0.934, from a baseline of 0.5" in parsed.text
    assert "Words are left out one by one." in parsed.text


def test_surprise_shows_the_answer_with_what_could_have_been() -> None:
    token = Piece(
        text="Bern", start=0, end=4, attribution=2.3, logprob=-2.3,
        alternatives=[Alternative(text="Zürich", logprob=-0.4)],
    )  # fmt: skip
    asked = [{"role": "user", "content": "The capital?"}]
    parsed = Parsed(page(explained([token], method="surprise", unit="token"), asked))
    assert any(
        "logprob −2.3 (10.0%); instead of it: “Zürich” −0.4" in (attributes.get("title") or "")
        for _, attributes in parsed.tags
    )
    assert "Bern" in parsed.text
    assert "surprised the model" in parsed.text


def test_a_conversation_is_shown_message_by_message() -> None:
    asked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Where is Bern?"}]},
    ]
    found = pieces("Where is Bern?", 0.1, 0.2, 0.9, message=1)
    section = arrange(explained(found, unit="message"), asked, 5).sections[0]
    body = section.parts[0].body
    assert isinstance(body, Coloured)
    assert [(one.role, "".join(span.text for span in one.spans)) for one in body.passages] == [
        ("system", "Be brief."),
        ("user", "Where is Bern?"),
    ]
    parsed = Parsed(fragment(explained(found), asked))
    assert [one["class"] for tag, one in parsed.tags if one.get("class") == "message"] == [
        "message",
        "message",
    ]
    assert "in message 2" in parsed.text


def test_images_are_grids_of_at_most_64_cells() -> None:
    values = [[[0.001 * (x - y)] * 3 for x in range(200)] for y in range(130)]
    image = [[[x, y, 0] for x in range(200)] for y in range(130)]
    document = page(explained(values, unit="superpixel"), image)
    parsed = Parsed(document)
    boxes = [one["viewbox"] for tag, one in parsed.tags if tag == "svg" and one.get("role")]
    assert boxes == ["0 0 50 33", "0 0 50 33"]
    assert "a cell is 4 × 4 values added up" in parsed.text
    section = arrange(explained(values), image, 1).sections[0]
    assert isinstance(section.parts[0].body, Heat)


def test_channels_first_are_an_image_too_and_vectors_are_ranked() -> None:
    strip = arrange(explained([[1.0] * 2] * 500), None, 1).sections[0].parts[0].body
    assert isinstance(strip, Ranked)
    assert (strip.others, strip.rest) == (980, 980.0)
    first = [[[1.0] * 6] * 5] * 3
    body = arrange(explained(first), [first], 1).sections[0].parts[0].body
    assert isinstance(body, Heat)
    assert body.values.shape == (5, 6)
    assert body.values[0, 0] == 3
    assert body.image is not None
    row = arrange(explained([[0.5, -1.0, 0.0]]), [[7.0, 8.0, 9.0]], 1).sections[0].parts[0].body
    assert isinstance(row, Ranked)
    assert [(one.name, one.value, one.attribution) for one in row.rows][:2] == [
        ("[0, 1]", 8.0, -1.0),
        ("[0, 0]", 7.0, 0.5),
    ]


# --- The terminal ---------------------------------------------------------------------------


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


# --- Wrapping and pictures ------------------------------------------------------------------


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


def many() -> Explanation:
    columns = [
        Feature(
            name=f"column {at} {'long ' * 20}", value=at, attribution=at - 20.0, low=-30.0, high=2.0
        )
        for at in range(50)
    ]
    return explained(columns, unit="feature")


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


# --- Bounds ---------------------------------------------------------------------------------


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
