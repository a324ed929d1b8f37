"""Characters from token bytes, and stop strings, however the pieces are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmaas.tasks.text import Detokenizer, StopScanner


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.text(), st.lists(st.integers(0, 10_000), max_size=20))
def test_text_is_whole_however_its_bytes_are_cut(text: str, places: list[int]) -> None:
    text = text.encode(errors="ignore").decode()
    detokenizer = Detokenizer()
    pieces = [detokenizer.feed(part) for part in cut(text.encode(), places)]
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + detokenizer.finish() == text


@given(st.binary(max_size=40), st.lists(st.integers(0, 10_000), max_size=20))
def test_invalid_bytes_read_as_python_reads_them(data: bytes, places: list[int]) -> None:
    detokenizer = Detokenizer()
    pieces = [detokenizer.feed(part) for part in cut(data, places)]
    assert "".join(pieces) + detokenizer.finish() == data.decode(errors="replace")


def test_half_a_character_waits_for_the_other_half() -> None:
    detokenizer = Detokenizer()
    raw = "🙂".encode()
    assert [detokenizer.feed(raw[at : at + 1]) for at in range(4)] == ["", "", "", "🙂"]
    assert detokenizer.feed(raw[:2]) == ""
    assert detokenizer.finish() == "\ufffd"


def scan(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    text = "".join([scanner.feed(piece) for piece in pieces])
    return text + scanner.finish(), scanner.stopped


@pytest.mark.parametrize(
    ("stops", "text", "kept"),
    [
        (["stop"], "go on", "go on"),
        (["stop"], "go stop on", "go "),
        (["\n\n"], "one\ntwo\n\nthree", "one\ntwo"),
        (["abc", "b"], "xabc", "xa"),  # "b" is complete before "abc"
        (["aab"], "aaab", "a"),
        (["ab", "b"], "ab", ""),  # of two that end together the longer
        (["🙂"], "ok 🙂 no", "ok "),
        (["END"], "the EN", "the EN"),
        ([""], "empty never stops", "empty never stops"),
    ],
)
def test_cut_before_the_stop_string(stops: list[str], text: str, kept: str) -> None:
    expected = (kept, kept != text)
    assert scan(stops, [text]) == expected
    assert scan(stops, list(text)) == expected


@given(
    st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.text(alphabet="abc", max_size=30),
    st.lists(st.integers(0, 10_000), max_size=10),
)
def test_cut_does_not_depend_on_the_pieces(stops: list[str], text: str, places: list[int]) -> None:
    pieces = [part.decode() for part in cut(text.encode(), places)]
    assert scan(stops, pieces) == scan(stops, [text])


@given(
    st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.text(alphabet="abc", max_size=30),
)
def test_only_what_may_begin_a_stop_string_is_held_back(stops: list[str], text: str) -> None:
    scanner = StopScanner(stops)
    sent = ""
    for end, char in enumerate(text, 1):
        sent += scanner.feed(char)
        if scanner.stopped:
            return
        held = text[len(sent) : end]
        assert sent + held == text[:end]
        assert not held or any(stop.startswith(held) for stop in stops)
