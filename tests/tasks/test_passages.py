"""Cutting texts: nothing is lost, nothing is cut in the middle of a character."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmaas.tasks.passages import estimate, passages, sentences

FLAG, FAMILY, ACCENT = "🇵🇹", "👨‍👩‍👧", "e\u0301"
TEXTS = {
    "english": "Dr. Smith paid $3.50. Did he? See https://a.example/b?c=d.e for more!\n\nYes.",
    "chinese": "你好。今天天气很好!是吗?我们去公园吧。",
    "arabic": "مرحبا بالعالم. كيف حالك؟ أنا بخير.",
    "emoji": f"Fun {FAMILY}! {FLAG}{FLAG} wins. {ACCENT}t{ACCENT}.",
    "mixed": "He said: שלום עולם. 然后他走了。 Then ☕️ was cold.",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_sentences_joined_are_the_text(text: str) -> None:
    assert "".join(sentences(text)) == text
    assert len(sentences(text)) > 1


def test_a_title_does_not_end_a_sentence() -> None:
    assert sentences("Dr. Smith left. He ran.") == ["Dr. Smith left. ", "He ran."]


@pytest.mark.parametrize("tokens", [1, 3, 10, 200])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_passages_joined_are_the_text_and_begin_with_whole_characters(
    text: str, tokens: int
) -> None:
    parts = passages(text * 3, tokens)
    assert "".join(parts) == text * 3
    for part in parts:
        assert not unicodedata.combining(part[0])
        assert part[0] not in "\u200d\ufe0f"
        assert part.count("🇵") == part.count("🇹"), "a flag was cut"


def test_passages_fit_and_are_few() -> None:
    text = "A sentence of nine words and of no meaning. " * 200
    parts = passages(text, 100)
    assert all(estimate(part) <= 100 for part in parts)
    assert len(parts) <= 1.2 * estimate(text) / 100 + 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.integers(1, 50))
def test_no_text_loses_anything(text: str, tokens: int) -> None:
    assert "".join(passages(text, tokens)) == text
