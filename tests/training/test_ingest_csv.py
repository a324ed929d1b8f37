"""CSV: what RFC 4180 lets be written, read; what it does not, told of with its line."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.training.reading import Read

from openmaas.errors import InvalidRequest
from openmaas.training.formats import bounds

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# all that a text may have: separators, quotes, every kind of newline, emoji
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def written(rows: list[list[str]], delimiter: str, newline: str, *, quote_all: bool) -> str:
    file = io.StringIO()
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    writer = csv.writer(file, delimiter=delimiter, lineterminator=newline, quoting=quoting)
    for row in rows:
        # Python's writer leaves a lone CR unquoted, where it is a newline to everybody.
        writer.writerow(row if quote_all else [cell.replace("\r", "") for cell in row])
    return file.getvalue()


@QUICK
@given(
    rows=st.lists(st.tuples(TEXT.map(lambda text: "t" + text), TEXT), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t"),
    newline=st.sampled_from(["\n", "\r\n"]),
    quote_all=st.booleans(),
    bom=st.booleans(),
)
@example(rows=[("t\n\r\n\r", ',;\t"')], delimiter=";", newline="\r\n", quote_all=False, bom=True)
def test_texts_come_back_whatever_the_form(
    rows: list[tuple[str, str]], delimiter: str, newline: str, quote_all: bool, bom: bool
) -> None:
    """And the fingerprint says nothing of the form."""
    table = [["one", "two"], *map(list, rows)]
    kinds = {"one": "text", "two": "text"}
    with tempfile.TemporaryDirectory() as folder:
        text = written(table, delimiter, newline, quote_all=quote_all)
        given_ = Read("csv", (b"\xef\xbb\xbf" * bom) + text.encode(), Path(folder), kinds=kinds,
                      delimiter=delimiter)  # fmt: skip
        if not quote_all:
            rows = [(one.replace("\r", ""), two.replace("\r", "")) for one, two in rows]
        plain = Read("csv", written([["one", "two"], *map(list, rows)], ",", "\n",
                                    quote_all=True).encode(),
                     Path(folder), kinds=kinds, delimiter=",")  # fmt: skip
        assert given_.data.texts("one") == [one for one, _ in rows]
        assert given_.data.texts("two") == [two for _, two in rows]
        assert given_.description.fingerprint == plain.description.fingerprint


@QUICK
@given(
    rows=st.lists(
        st.tuples(st.booleans(), TEXT.map(lambda text: text.replace("\r", ""))),
        min_size=1,
        max_size=15,
    )
)
def test_bad_rows_are_told_of_by_the_lines_of_an_editor(rows: list[tuple[bool, str]]) -> None:
    text, bad, good = "a,b\n", [], 0
    for is_bad, cell in rows:
        quoted = '"' + cell.replace('"', '""') + '"'
        if is_bad:
            bad.append(text.count("\n") + 1)
        good += not is_bad
        text += f"x,{quoted},3\n" if is_bad else f"x,{quoted}\n"
    with tempfile.TemporaryDirectory() as folder:
        if good:
            chosen = {"bad_rows": "skip", "max_bad_fraction": 0.99}
            read = Read("csv", text.encode(), Path(folder), delimiter=",", **chosen)
            assert read.description.rows == good
            assert [row.line for row in read.description.bad] == bad[: bounds.SHOWN]
            assert read.description.bad_rows == len(bad)
        if bad:
            with pytest.raises(InvalidRequest) as caught:
                Read("csv", text.encode(), Path(folder), delimiter=",")
            told = caught.value.message.splitlines()[1:]
            assert [int(line.split()[1].strip(":")) for line in told] == bad[: bounds.SHOWN]


def test_kinds_are_inferred(tmp_path: Path) -> None:
    rows = ["int,float,zip,flag,colour,text,empty,label"]
    for number in range(12):
        flag, colour = "true" if number % 2 else "False", "red" if number % 3 else "blue"
        rows.append(
            f"{number},{number / 3},0{number},{flag},{colour},some text {number},,{number % 3}"
        )
    read = Read("csv", "\n".join(rows).encode(), tmp_path)
    assert read.kinds == {
        "int": "number int64", "float": "number float64", "zip": "text string",
        "flag": "category bool", "colour": "category string", "text": "text string",
        "empty": "text string", "label": "category int64",
    }  # fmt: skip
    columns = {one.name: one for one in read.description.columns}
    assert (columns["int"].minimum, columns["int"].maximum, columns["int"].mean) == (0, 11, 5.5)
    assert [(one.value, one.rows) for one in columns["colour"].values] == [("red", 8), ("blue", 4)]
    assert columns["empty"].missing == 12
    assert read.description.target == "label"
    assert read.data.texts("flag")[:2] == ["false", "true"]
    assert read.data.array("int").tolist() == list(range(12))
    assert len(read.preview.rows) == 12


def test_kinds_that_are_given(tmp_path: Path) -> None:
    text = b"a,b,c\n1,2.5,x\n2,NA,y\n3,,x\n"
    kinds = {"a": "category", "b": "text", "c": "text"}
    assert Read("csv", text, tmp_path, kinds=kinds).kinds == {
        "a": "category int64", "b": "text string", "c": "text string"}  # fmt: skip
    read = Read("csv", text, tmp_path)
    assert np.isnan(read.data.array("b")).tolist() == [False, True, True]
    with pytest.raises(InvalidRequest, match=r"line 2: 'c' is 'x', which is no number"):
        Read("csv", text, tmp_path, kinds={"c": "number"})


NUMBERS = [
    "1",
    "-1",
    "+1",
    " 1 ",
    "1.",
    ".5",
    "1e5",
    "-2.5E-3",
    "123456789012345678901",
    "0",
    "nan",
]
TEXTS = ["007", "1,5", "1_000", "0x1F", "inf", "Infinity", "1e", "e5", ".", "--1", "1 2", "١", "1d"]


@pytest.mark.parametrize("value", NUMBERS)
def test_numbers(value: str, tmp_path: Path) -> None:
    read = Read("csv", f'a,b\n"{value}",x\n2,y\n3,z\n'.encode(), tmp_path)
    assert read.kinds["a"].startswith("number")
    found = read.data.array("a")[0]
    assert (np.isnan(found) and value == "nan") or found == float(value)


@pytest.mark.parametrize("value", TEXTS)
def test_texts_that_look_like_numbers(value: str, tmp_path: Path) -> None:
    read = Read("csv", f'a,b\n"{value}",x\n2,y\n3,z\n'.encode(), tmp_path)
    assert read.kinds["a"] == "text string"
    assert read.data.texts("a")[0] == value


REFUSED = {
    b"": "empty",
    b"\n\n\n": "empty",
    b"\xef\xbb\xbf": "empty",
    b"a,b\n": "no rows",
    b"a,b\n\n\n": "no rows",
    b"a,a\n1,2\n": "two columns are called 'a'",
    b"a,\n1,2\n": "column 2 has no name",
    b",a\n0,2\n": "index=False",
    b"1,2\n3,4\n": "is to name the columns",
    b"a,b\n1,2\n1\n": "line 3: it has 1 values; the header names 2",
    b"a,b\n1,2\n1,2,3\n": "line 3: it has 3 values",
    b'a,b\n1,2\n"x"y,2\n': "line 3: ",
    b'a,b\n1,2\n"x,2\n3,4\n': "line 3: a quote is not closed",
    b"a,b\n1,\0\n": "line 2: it has a NUL byte",
    b"a,b\n1,\xff\n": "line 2: it is not UTF-8",
    b"a,\xff\n1,2\n": "line 1, which names the columns: it is not UTF-8",
    "a,b\n1,2\n".encode("utf-16"): "UTF-16",
    b",".join(b"c%d" % n for n in range(10_001)) + b"\n": "10000 is the most",
    b"a" * 201 + b",b\n1,2\n": "200 characters",
    b"a\x1b[2J,b\n1,2\n": "odd ones",
    b"a,b\n1," + b"x" * (bounds.FIELD + 1) + b"\n": "line 2: .*over 1048576 characters",
    b"a,label\n1,x\n2,x\n": "nothing to learn",
    b"a,target\n1,2.5\n2,2.5\n": "nothing to learn",
    b"\x89PNG\r\n\x1a\n\0\0": "names the columns",
}


@pytest.mark.parametrize("content", REFUSED, ids=lambda content: repr(content[:20]))
def test_what_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=REFUSED[content]):
        Read("csv", content, tmp_path)


def test_the_limit_of_a_value(tmp_path: Path) -> None:
    content = b"a,b\n1," + b"x" * bounds.FIELD + b"\n2,y\n"
    assert len(Read("csv", content, tmp_path).data.texts("b")[0]) == bounds.FIELD


def test_bad_rows_up_to_a_fraction(tmp_path: Path) -> None:
    text = b"a,b\n" + b"1,2\n" * 90 + b"1\n" * 10
    assert Read("csv", text, tmp_path, bad_rows="skip", max_bad_fraction=0.1).description.rows == 90
    with pytest.raises(InvalidRequest, match=r"10 of 100 rows are bad, more than .*=0.09"):
        Read("csv", text, tmp_path, bad_rows="skip", max_bad_fraction=0.09)


def test_a_delimiter_is_found_out(tmp_path: Path) -> None:
    for content in (
        b'a;b\n"1,2,3";4\n"5,6,7";8\n',
        b"a\tb\n1,2\t3;4\n",
        b'a,b\n"x;y;z;w",1\n"q;r;s;t",2\n',
    ):
        assert [one.name for one in Read("csv", content, tmp_path).description.columns] == [
            "a",
            "b",
        ]
    assert len(Read("csv", b"text\none two\nthree\n", tmp_path).description.columns) == 1


# --- splits ------------------------------------------------------------------------------------


def labelled(counts: dict[str, int]) -> bytes:
    rows = [f"{label} {number},{label}" for label, rows in counts.items() for number in range(rows)]
    return ("text,label\n" + "\n".join(rows)).encode()


@QUICK
@given(
    counts=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), min_size=2),
    test=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    validation=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 5),
)
def test_splits_are_stratified_and_the_same_each_time(
    counts: dict[str, int], test: float, validation: float, seed: int
) -> None:
    options = {"split": {"validation": validation, "test": test}, "seed": seed,
               "kinds": {"label": "category"}}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        first = Read("csv", labelled(counts), Path(folder), **options)
        again = Read("csv", labelled(counts), Path(folder), **options)
        assert first.split() == again.split()
        assert first.description.fingerprint == again.description.fingerprint
        split, labels = np.array(first.split()), np.array(first.data.texts("label"))
        for label, rows in counts.items():
            of = split[labels == label]
            assert (of == 0).any()  # every label can be learned
            assert abs((of == 2).sum() - test * rows) <= 1
            assert abs((of == 1).sum() - validation * rows) <= 1.5
        assert sum(first.description.splits.values()) == sum(counts.values())


def test_another_seed_is_another_split(tmp_path: Path) -> None:
    reads = [Read("csv", labelled({"a": 50, "b": 50}), tmp_path, seed=seed) for seed in (0, 1)]
    assert reads[0].split() != reads[1].split()
    assert reads[0].description.splits == {"train": 70, "validation": 10, "test": 20}
    prints = {one.description.fingerprint for one in reads}
    assert len(prints) == 2  # splits are a part of what it is


def test_a_column_that_says_the_split(tmp_path: Path) -> None:
    text = b"a,part,label\n1,train,x\n2,Test,y\n3,dev,x\n4,validation,y\n5,training,x\n"
    read = Read("csv", text, tmp_path, split="part")
    assert read.split() == [0, 2, 1, 1, 0]
    assert [one.name for one in read.description.columns] == ["a", "label"]
    with pytest.raises(InvalidRequest, match=r"line 7: 'part' is 'maybe'; .*validation"):
        Read("csv", text + b"6,maybe,x\n", tmp_path, split="part")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"target": "nope"}, "target names 'nope'; the columns are: 'a', 'b'"),
    ({"kinds": {"nope": "text"}}, "kinds names 'nope'"),
    ({"split": "nope"}, "split names 'nope'"),
    ({"split": "a", "target": "a"}, "the same column"),
    ({"split": {"test": 0.6, "validation": 0.4}}, "no row for training"),
    ({"image_size": (8, 8)}, "image_size is an option of images"),
    ({"channels": 3}, "channels is an option of images"),
    ({"max_bad_fraction": 0.5}, "goes with bad_rows: skip"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=lambda one: str(one)[:30])
def test_options_that_mean_nothing(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Read("csv", b"a,b\n1,2\n", tmp_path, **options)


def test_rows_without_a_target(tmp_path: Path) -> None:
    text = b"a,label\n1,x\n2,\n3,y\n4,y\n"
    with pytest.raises(InvalidRequest, match="line 3: the target 'label' has no value"):
        Read("csv", text, tmp_path, target="label")
    read = Read("csv", text, tmp_path, target="label", bad_rows="skip", max_bad_fraction=0.5)
    assert read.data.texts("label") == ["x", "y", "y"]


def test_many_rows_are_read_in_batches(tmp_path: Path) -> None:
    rows = 120_000
    lines = ["n,text,label", *(f'{n},"line\n{n}",{"ab"[n % 2]}' for n in range(rows))]
    read = Read("csv", "\n".join(lines).encode(), tmp_path)
    assert read.description.rows == rows
    assert read.data.array("n")[[0, 1, rows - 1]].tolist() == [0, 1, rows - 1]
    assert read.data.texts("text")[-1] == f"line\n{rows - 1}"
    assert read.description.splits == {"train": 84_000, "validation": 12_000, "test": 24_000}
