"""JSON Lines and Parquet; and that the same rows are the same data whatever they came in."""

from __future__ import annotations

import io
import json
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.reading import Read
from tests.training.test_ingest_csv import written

from openmaas.errors import InvalidRequest
from openmaas.training.formats import bounds


def parquet(columns: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, file, **how)
    return file.getvalue()


def lines(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


ROW = st.fixed_dictionaries(
    {
        "number": st.none() | st.integers(-(10**12), 10**12),
        "part": st.none() | st.floats(-1e9, 1e9).map(lambda one: one + 0.5),
        "text": st.none() | st.text("ab é\"',;\n", min_size=1, max_size=9).map("x".__add__),
        "label": st.sampled_from(["yes", "no", "maybe"]),
    }
)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=12))
def test_the_same_rows_are_the_same_data(rows: list[dict[str, Any]]) -> None:
    names = ["number", "part", "text", "label"]
    # Kinds are given: of a few rows without values each format guesses what it can.
    kinds = {"number": "number", "part": "number", "text": "text", "label": "category"}
    table = [names, *[["" if row[one] is None else str(row[one]) for one in names] for row in rows]]
    types = [pa.int64(), pa.float64(), pa.string(), pa.string()]
    arrays = {
        one: pa.array([row[one] for row in rows], type_)
        for one, type_ in zip(names, types, strict=True)
    }
    arrays["label"] = arrays["label"].dictionary_encode()
    if len({row["label"] for row in rows}) < 2:
        return  # refused, as there is nothing to learn
    if all(row["number"] is None for row in rows):
        return  # a type cannot be told from no value
    forms = [
        ("csv", written(table, ";", "\r\n", quote_all=True).encode()),
        ("csv", b"\xef\xbb\xbf" + written(table, ",", "\n", quote_all=False).encode()),
        ("jsonl", lines([{one: row[one] for one in names} for row in rows])),
        ("jsonl", lines([{k: v for k, v in row.items() if v is not None} for row in rows])),
        ("parquet", parquet(arrays, compression="zstd", row_group_size=3)),
        ("parquet", parquet(arrays, use_dictionary=False, version="1.0")),
    ]
    with tempfile.TemporaryDirectory() as folder:
        first = None
        for form, content in forms:
            order = json.loads(content.split(b"\n")[0]) if form == "jsonl" else names
            if list(order) != names:
                continue  # the order of columns is a part of the data
            read = Read(form, content, Path(folder), kinds=kinds)
            first = first or read
            assert read.description.fingerprint == first.description.fingerprint, form
            assert read.kinds == first.kinds
            assert read.data.texts("text") == [row["text"] or "" for row in rows]
            for name in ("number", "part"):
                wanted = [np.nan if row[name] is None else row[name] for row in rows]
                np.testing.assert_array_equal(read.data.array(name), wanted)


def test_other_content_is_another_fingerprint(tmp_path: Path) -> None:
    rows = [{"a": "xy", "b": "z", "n": 1}, {"a": "x", "b": None, "n": None}]
    others = [
        [{"a": "x", "b": "yz", "n": 1}, rows[1]],  # the same characters, cut elsewhere
        [rows[0], {"a": "x", "b": None, "n": 0}],
        [rows[1] | {"n": 2}, rows[0]],
        [{"A": "xy", "b": "z", "n": 1}, {"A": "x", "b": None, "n": None}],
    ]
    prints = {
        Read("jsonl", lines(one), tmp_path).description.fingerprint for one in [rows, *others]
    }
    assert len(prints) == 5


# --- JSON Lines ---------------------------------------------------------------------------------


def test_types_of_json_are_believed(tmp_path: Path) -> None:
    rows = [{"digits": "1", "mixed": 1, "flag": True, "big": 2**63, "label": n} for n in range(2)]
    rows += [{"digits": "22", "mixed": "a", "flag": False, "later": 1.5, "label": 0}]
    read = Read("jsonl", b"\xef\xbb\xbf" + lines(rows) + b"\n\n", tmp_path)
    assert read.kinds == {
        "digits": "text string", "mixed": "text string", "flag": "category bool",
        "big": "number float64", "label": "category int64", "later": "number float64",
    }  # fmt: skip
    assert read.data.texts("mixed") == ["1", "1", "a"]
    assert np.isnan(read.data.array("later")).tolist() == [True, True, False]


BAD_LINES = {
    b"[1]": "it is no object",
    b"3": "it is no object",
    b'{"a": 1': "it is not JSON",
    b"{'a': 1}": "it is not JSON",
    b'{"a": NaN}': "it is not JSON",
    b'{"a": 1e999}': "it is not JSON",
    b'{"a": [1]}': "'a' is nested",
    b'{"a": {"b": 1}}': "'a' is nested",
    b'{"a": "\xff"}': "it is not UTF-8",
    b'{"a": "\\u0000"}': "NUL",
    b'{"a": "\\ud800"}': "it is not JSON",
    b'{"a": "' + b"x" * (bounds.FIELD + 1) + b'"}': "over 1048576 characters",
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}": "it is not JSON",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: repr(line[:14]))
def test_bad_lines_are_told_of(line: bytes, tmp_path: Path) -> None:
    content = b'{"a": "x"}\n\n' + line + b'\n{"a": "y"}\n'
    with pytest.raises(InvalidRequest, match=f"line 3: .*{BAD_LINES[line]}"):
        Read("jsonl", content, tmp_path)
    read = Read("jsonl", content, tmp_path, bad_rows="skip", max_bad_fraction=0.5)
    assert [row.line for row in read.description.bad] == [3]
    assert read.data.texts("a") == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"{}\n{}\n", "empty"),
        (json.dumps({f"c{n}": n for n in range(10_001)}).encode(), "10000 is the most"),
        (b'{"": 1}', "column 1 has no name"),
        (b'{"label": "x"}\n{"label": "x"}', "nothing to learn"),
        (b"x" * (bounds.LINE + 2), "line 1 has over 16 MB"),
    ],
    ids=lambda one: repr(one[:12]),
)
def test_what_is_refused_of_json(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Read("jsonl", content, tmp_path)


def test_rows_that_unfold(tmp_path: Path) -> None:
    """Three bytes a row, of as many columns as there may be."""
    wide = json.dumps({f"c{n}": n for n in range(10_000)}).encode()
    with pytest.raises(InvalidRequest, match="unfolds to more than 256 MiB"):
        Read("jsonl", wide + b"\n{}" * 40_000, tmp_path)


# --- Parquet ------------------------------------------------------------------------------------


def test_types_of_parquet(tmp_path: Path) -> None:
    at = datetime(2026, 12, 31, tzinfo=UTC)
    table = pa.table(
        {
            "tiny": pa.array([1, 2, None], pa.uint8()),
            "half": pa.array(np.array([1, 2, np.nan], np.float16)),
            "money": pa.array([Decimal("1.25"), Decimal(2), None], pa.decimal128(9, 2)),
            "when": pa.array([at, None, at.replace(day=1)], pa.timestamp("s", "UTC")),
            "words": pa.array(["a", "b", ""], pa.large_string()),
            "label": pa.array([True, False, True]),
            "none": pa.nulls(3),
        }
    )
    read = Read("parquet", parquet(table), tmp_path)
    assert read.kinds == {
        "tiny": "number int64", "half": "number float64", "money": "number float64",
        "when": "text string", "words": "text string", "label": "category bool",
        "none": "text string",
    }  # fmt: skip
    assert read.data.array("money")[:2].tolist() == [1.25, 2]
    assert read.data.texts("when")[0].startswith("2026-12-31")
    missing = {one.name: one.missing for one in read.description.columns}
    assert missing == {"tiny": 1, "half": 1, "money": 1, "when": 1, "words": 1, "label": 0,
                       "none": 3}  # fmt: skip


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1], [2]]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([b"a", b"b"], pa.binary()),
        pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
    ],
    ids=lambda array: str(array.type)[:10],
)
def test_what_is_nested_is_refused(array: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="column 'x' is of type"):
        Read("parquet", parquet({"x": array}), tmp_path)


def test_duplicate_columns_of_parquet(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(InvalidRequest, match="two columns"):
        Read("parquet", parquet(table), tmp_path)


WHOLE = parquet({"a": list(range(1000)), "b": [str(n) for n in range(1000)]})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255), st.booleans())
def test_damaged_parquet_is_refused_or_read(at: int, change: int, cut: bool) -> None:
    content = bytearray(WHOLE)
    content[at] ^= change
    content = content[:at] if cut else content
    with tempfile.TemporaryDirectory() as folder:
        try:
            read = Read("parquet", bytes(content), Path(folder))
        except InvalidRequest:
            return
        assert not cut
        assert read.description.rows <= 1000


def test_a_value_of_parquet_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="over 1048576 bytes"):
        Read("parquet", parquet({"a": ["x" * (bounds.FIELD + 1)]}), tmp_path)
