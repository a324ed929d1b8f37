"""Texts and rows in parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmaas.errors import InvalidRequest
from openmaas.explaining.rows import Row, empty, laid_out, picture, squares
from openmaas.explaining.texts import NOTHING, Text, whole_sentences, words
from openmaas.inference import ModelInfo, Predict, Tensor, TensorSpec


def text_of(text: str, spans) -> list[str]:
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It's great, really! :)", ["It's", "great,", "really!", ":)"]),
        ("  two\n\tlines  ", ["two", "lines"]),
        ("我喜欢 Python 3。", ["我", "喜", "欢", "Python", "3。"]),
        ("рад тебя видеть", ["рад", "тебя", "видеть"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("good 👍🏽!", ["good", "👍🏽!"]),
    ],
)
def test_words_are_what_stands_between_spaces_or_a_character(text: str, parts: list[str]) -> None:
    assert text_of(text, words(text)) == parts


def test_sentences_are_without_the_space_around_them() -> None:
    text = " One is here.  Is two?\n\nThree "
    assert text_of(text, whole_sentences(text)) == ["One is here.", "Is two?", "Three"]


@given(st.text(min_size=1, max_size=80).filter(str.strip))
def test_parts_are_in_order_and_leave_out_white_space_alone(text: str) -> None:
    for cut in (words, whole_sentences):
        spans = cut(text)
        at = 0
        for span in spans:
            assert not text[at : span.start].strip()
            assert span.end > span.start >= at
            at = span.end
        assert not text[at:].strip()


def test_a_text_closes_up_or_has_something_in_the_gap() -> None:
    text = Text("The film was great!", None)
    assert (text.unit, len(text.parts)) == ("word", 4)
    some = np.array([True, False, False, True])
    assert text.rendered(np.ones(4, bool)) == "The film was great!"
    assert text.rendered(some).split() == ["The", "great!"]
    assert text.rendered(np.zeros(4, bool)) == NOTHING
    masked = Text("The film was great!", "word", "[MASK]")
    assert masked.rendered(some) == "The [MASK] [MASK] great!"


def test_a_long_text_is_explained_by_sentences() -> None:
    assert Text("A word or two. " * 60, None).unit == "sentence"
    with pytest.raises(InvalidRequest, match="2000 words; from 1 to 1024"):
        Text("word " * 2000, "word")
    with pytest.raises(InvalidRequest, match="0 words"):
        Text(" ", None)


# --- rows --------------------------------------------------------------------------------------


def tensor(name: str, values, datatype: str = "FP32") -> Tensor:
    kinds = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1"}
    array = np.asarray(values, kinds[datatype])[None]
    return Tensor(name=name, datatype=datatype, shape=[*array.shape], data=array.tobytes())


def info(*specs: tuple[str, str, list[int]], tabular: bool = False) -> ModelInfo:
    inputs = [TensorSpec(name=n, datatype=d, shape=[-1, *s]) for n, d, s in specs]
    return ModelInfo(task="predict", runtime="x", inputs=inputs, tabular=tabular)


def row(values, unit=None, image=None, datatype: str = "FP32", baseline=None) -> Row:
    given_ = Predict(inputs=[tensor("x", values, datatype)])
    about = info(("x", datatype, [*np.shape(values)]))
    instead = empty(about.inputs, given_, tabular=False)
    if baseline is not None:
        instead = Predict(inputs=[tensor("x", baseline, datatype)])
    return Row(given_, instead, about, unit, image=image)


def batch(one: Row, masks) -> np.ndarray:
    (made,) = one.batch(np.asarray(masks, bool))
    return np.frombuffer(made.data, "<f4").reshape(made.shape)


def test_each_number_is_a_part_and_the_baseline_stands_where_it_is_not() -> None:
    one = row([1.0, 2.0, 3.0], baseline=[9.0, 8.0, 7.0])
    assert (one.unit, one.parts) == ("feature", 3)
    assert batch(one, [[1, 0, 1], [0, 0, 0]]).tolist() == [[1, 8, 3], [9, 8, 7]]
    assert one.told(one.spread(np.array([0.5, -1.0, 0.25]))) == [0.5, -1.0, 0.25]


def test_a_picture_falls_into_squares_whose_share_its_pixels_have() -> None:
    pixels = np.arange(28 * 28, dtype=np.float32).reshape(28, 28)
    one = row(pixels)
    assert one.unit == "superpixel"
    assert 40 <= one.parts <= 64
    shares = np.zeros(one.parts)
    shares[0] = 16.0
    told = np.array(one.told(one.spread(shares)))
    assert told.shape == (28, 28)
    assert told.sum() == pytest.approx(16)
    side = int((told > 0).sum() ** 0.5)
    assert (told[:side, :side] == 16 / side**2).all()
    masks = np.ones((1, one.parts), bool)
    masks[0, 0] = False
    without = batch(one, masks)[0]
    assert (without[:side, :side] == 0).all()
    assert (without[side:] == pixels[side:]).all()


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((8, 8), (8, 8, -1)),
        ((28, 28, 1), (28, 28, 2)),
        ((3, 32, 24), (32, 24, 0)),
        ((64,), None),
        ((2, 100), None),
        ((5, 6, 7), None),
    ],
)
def test_which_rows_are_pictures(shape, found) -> None:
    assert picture(shape) == found


def test_a_picture_that_lies_flat_is_one_where_its_sides_are_said() -> None:
    flat = np.arange(48, dtype=np.float32)
    one = row(flat, "superpixel", image=(4, 4))
    assert one.shape == (4, 4, 3)
    assert np.shape(one.told(one.spread(np.zeros(one.parts)))) == (4, 4, 3)
    with pytest.raises(InvalidRequest, match="no height and width"):
        row(flat, "superpixel")
    with pytest.raises(InvalidRequest, match="no picture of 5 × 7"):
        row(flat, image=(5, 7))
    assert laid_out([1, 2, 3, 4], (2, 2)) == [[1, 2], [3, 4]]


def test_squares_cover_all_and_are_numbered_without_gaps() -> None:
    for sides in ((4, 4), (8, 8), (28, 28), (33, 70), (500, 20)):
        found = squares(*sides)
        assert found.shape == sides
        assert sorted(set(found.flat)) == list(range(found.max() + 1))


def test_columns_keep_their_values_and_missing_ones_are_the_baseline() -> None:
    about = info(("age", "FP32", [1]), ("town", "BYTES", [1]), tabular=True)
    town = b"\x05\0\0\0Paris"
    given_ = Predict(
        inputs=[
            tensor("age", [41.0]),
            Tensor(name="town", datatype="BYTES", shape=[1, 1], data=town),
        ]
    )
    one = Row(
        given_, empty(about.inputs, given_, tabular=True), about, None,
        values={"age": 41, "town": "Paris"},
    )  # fmt: skip
    assert one.parts == 2
    age, towns = one.batch(np.array([[True, False], [False, True]]))
    assert np.frombuffer(age.data, "<f4").tolist()[0] == 41
    assert np.isnan(np.frombuffer(age.data, "<f4")[1])
    assert towns.data == b"\0\0\0\0" + town
    assert towns.shape == [2, 1]


def test_too_many_numbers_are_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match="or take the unit superpixel"):
        row(np.zeros((64, 64)), "feature")
    with pytest.raises(InvalidRequest, match="the baseline of 'x' has the shape"):
        row([1.0, 2.0], baseline=[0.0])
