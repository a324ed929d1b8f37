"""Explanations in browsers: nothing of a stranger's text runs."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from openmaas.explaining.explanation import (
    Alternative,
    Piece,
)
from openmaas.explaining.rendering import html_style
from openmaas.explaining.rendering.html import fragment, page
from openmaas.explaining.rendering.layout import Coloured, Heat, Ranked, arrange
from tests.explaining.rendered import HOSTILE, Parsed, explained, hostile, pieces


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
