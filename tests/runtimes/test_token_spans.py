"""Labels of tokens become spans: every scheme, every way to aggregate, any character."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from openmaas.inference import Aggregation, Span
from openmaas.runtimes.token_spans import Scheme, Token

TEXT = "Ann Lee met Bob"
WORDS = [(0, 3), (4, 7), (8, 11), (12, 15)]


def told(
    labels: list[str],
    chosen: list[str],
    *,
    text: str = TEXT,
    places: Any = WORDS,
    aggregation: Aggregation = "first",
) -> list[tuple[str, str]]:
    found = spans(labels, chosen, text, places, None, aggregation)
    return [(text[span.start : span.end], span.label) for span in found]


def spans(
    labels: list[str],
    chosen: list[str],
    text: str,
    places: Any,
    words: list[int | None] | None,
    aggregation: Aggregation,
    sure: Any = 0.9,
) -> list[Span]:
    shares = np.full((len(chosen), len(labels)), 0.0, np.float32)
    for row, (label, share) in enumerate(
        zip(chosen, np.broadcast_to(sure, len(chosen)), strict=True)
    ):
        shares[row] = (1 - share) / (len(labels) - 1)
        shares[row, labels.index(label)] = share
    numbers = words or list(range(len(chosen)))
    tokens = [Token(*place, word) for place, word in zip(places, numbers, strict=True)]
    return Scheme(labels).spans(text, tokens, shares, aggregation)


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        (["O", "B-PER", "I-PER"], ["B-PER", "I-PER", "O", "B-PER"]),
        (["O", "I-PER", "B-PER"], ["I-PER", "I-PER", "O", "I-PER"]),
        (["O", *(f"{m}-PER" for m in "BILU")], ["B-PER", "L-PER", "O", "U-PER"]),
        (["O", *(f"{m}_PER" for m in "BIES")], ["B_PER", "E_PER", "O", "S_PER"]),
        (["PER", "O"], ["PER", "PER", "O", "PER"]),
    ],
)
def test_every_scheme_gives_the_same_spans(labels: list[str], chosen: list[str]) -> None:
    assert told(labels, chosen) == [("Ann Lee", "PER"), ("Bob", "PER")]


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (["B-P", "B-P", "O", "O"], ["Ann", "Lee"]),
        (["U-P", "I-P", "O", "O"], ["Ann", "Lee"]),
        (["B-P", "I-Q", "O", "O"], ["Ann", "Lee"]),
        (["I-P", "I-P", "I-P", "I-P"], ["Ann Lee met Bob"]),
        (["O", "O", "O", "O"], []),
    ],
)
def test_where_a_span_begins(chosen: list[str], wanted: list[str]) -> None:
    labels = ["O", *(f"{mark}-{kind}" for kind in "PQ" for mark in "BILU")]
    assert [text for text, _ in told(labels, chosen)] == wanted


def test_a_label_with_a_dash_is_no_mark_where_others_have_none() -> None:
    assert told(["O", "S-corp", "name"], ["S-corp", "S-corp", "O", "name"]) == [
        ("Ann Lee", "S-corp"),
        ("Bob", "name"),
    ]


def test_without_an_outside_label_every_word_is_in_a_span() -> None:
    assert told(["noun", "verb"], ["noun", "noun", "verb", "noun"]) == [
        ("Ann Lee", "noun"),
        ("met", "verb"),
        ("Bob", "noun"),
    ]


@pytest.mark.parametrize(
    ("aggregation", "wanted"),
    [
        ("none", {"An": 0.6, "Le": 0.7}),
        ("simple", {"An": 0.6, "Le": 0.7}),
        ("first", {"Ann Lee": 0.65}),
        ("average", {"Lee": 0.55}),
        ("max", {"Lee": 0.7}),
    ],
)
def test_ways_to_aggregate(aggregation: Aggregation, wanted: dict[str, float]) -> None:
    """Two words of two tokens, whose first are told to be a name and whose last are not."""
    text = "Ann Lee"
    places, words = [(0, 2), (2, 3), (4, 6), (6, 7)], [0, 0, 1, 1]
    chosen, sure = ["P", "O", "P", "O"], [0.6, 0.8, 0.7, 0.6]
    found = spans(["O", "P"], chosen, text, places, words, aggregation, sure)
    assert [text[one.start : one.end] for one in found] == list(wanted)
    assert [one.score for one in found] == pytest.approx(list(wanted.values()))


@pytest.mark.parametrize(
    ("aggregation", "labels"), [("none", ["B-P", "I-P"]), ("simple", ["P"]), ("first", ["P"])]
)
def test_labels_lose_their_marks_with_their_tokens(
    aggregation: Aggregation, labels: list[str]
) -> None:
    names = ["O", "B-P", "I-P"]
    found = told(names, ["B-P", "I-P", "O", "O"], aggregation=aggregation)
    assert [label for _, label in found] == labels


@pytest.mark.parametrize(
    ("text", "places", "wanted"),
    [
        (" Ann\n", [(0, 5)], "Ann"),  # white space that a tokenizer counts in
        ("Jose\u0301 met", [(0, 4)], "Jose\u0301"),  # an accent that it dropped
        ("👩🏽\u200d🚀 met", [(0, 2)], "👩🏽\u200d"),
        ("مُحَمَّدٌ قال", [(0, 8)], "مُحَمَّدٌ"),
        ("राम् ने", [(0, 3)], "राम्"),
    ],
)
def test_ends_fall_on_whole_characters(text: str, places: Any, wanted: str) -> None:
    labels = ["O", "PER"]
    assert told(labels, ["PER"], text=text, places=places) == [(wanted, "PER")]


def test_tokens_of_one_characters_bytes_do_not_overlap() -> None:
    found = told(["O", "P", "Q"], ["P", "Q", "O"], text="🙂 x", places=[(0, 1), (0, 1), (2, 3)])
    assert found == [("🙂", "P")]


def test_tokens_that_stand_for_nothing_are_left_out() -> None:
    assert told(["O", "P"], ["P", "P"], text="ab", places=[(0, 0), (0, 2)]) == [("ab", "P")]
    assert told(["O", "P"], ["P"], text="  ", places=[(0, 2)]) == []
    assert told(["O", "P"], [], places=[]) == []
