"""Tokens of an answer and how likely each was."""

from __future__ import annotations

import pytest

from openmaas.errors import EngineFailed
from openmaas.explaining.surprise import pieces
from openmaas.inference import TokenLogprob


def token(
    text: bytes, logprob: float | None, *alternatives: tuple[str, bytes, float]
) -> TokenLogprob:
    shown = text.decode(errors="replace")
    return TokenLogprob(text=shown, bytes=text, logprob=logprob, alternatives=list(alternatives))


def test_tokens_with_their_places() -> None:
    found = pieces("A cat.", [token(b"A", -0.5), token(b" cat", -1.5), token(b".", 0.0)])
    assert [(one.text, one.start, one.end) for one in found] == [
        ("A", 0, 1), (" cat", 1, 5), (".", 5, 6),
    ]  # fmt: skip
    assert [one.attribution for one in found] == [0.5, 1.5, 0.0]
    assert [one.logprob for one in found] == [-0.5, -1.5, 0.0]


def test_tokens_within_a_character_are_joined() -> None:
    cat = "🐈".encode()
    other = ("dog", b"dog", -2.0)
    found = pieces(
        "a🐈é",
        [token(b"a", -1.0), token(cat[:1], -2.0, other), token(cat[1:3], -3.0),
         token(cat[3:] + b"\xc3", -4.0), token(b"\xa9", -0.5)],
    )  # fmt: skip
    assert [(one.text, one.start, one.end) for one in found] == [("a", 0, 1), ("🐈é", 1, 3)]
    assert found[1].logprob == -9.5
    assert [(one.text, one.logprob) for one in found[1].alternatives] == [("dog", -2.0)]


def test_a_special_token_in_the_answer_has_no_text() -> None:
    found = pieces("a<|end|>b", [token(b"a", -1.0), token(b"", -5.0), token(b"b", -2.0)])
    assert [(one.text, one.start) for one in found] == [("a", 0), ("", 1), ("b", 8)]


def test_a_space_that_the_vocabulary_adds_is_not_in_the_answer() -> None:
    found = pieces("cat sat", [token(b" cat", -1.0), token(b" sat", -1.0)])
    assert [(one.text, one.start, one.end) for one in found] == [("cat", 0, 3), (" sat", 3, 7)]


def test_tokens_of_another_text_or_without_numbers_are_refused() -> None:
    with pytest.raises(EngineFailed, match="not those"):
        pieces("cat", [token(b"dog", -1.0)])
    with pytest.raises(EngineFailed, match="not those"):
        pieces("é", [token(b"\xc3", -1.0)])
    with pytest.raises(EngineFailed, match="left out"):
        pieces("cat", [token(b"cat", None)])
