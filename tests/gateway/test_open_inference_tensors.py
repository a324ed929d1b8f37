"""The tensor codec: nothing is lost, nothing wraps, nothing but its own errors comes out."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openmaas.errors import InvalidRequest
from openmaas.gateway.tensors import (
    DATATYPES,
    FLOATS,
    FORMATS,
    MAX_RANK,
    count_bytes_elements,
    elements,
    from_bytes,
    from_json,
    from_rows,
    to_json,
    to_rows,
    unpack,
)
from openmaas.inference import Tensor

# A busy machine is no failure.
UNTIMED = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

NUMPY = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4",
    "FP64": "<f8",
}  # fmt: skip
SHAPES = st.lists(st.integers(0, 4), min_size=1, max_size=4)


def element(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(st.characters(exclude_categories=["Cs"]))
    bits = 8 * FORMATS[datatype][1]
    if datatype in FLOATS:
        return st.floats(width=bits, allow_nan=False, allow_infinity=False)  # type: ignore[call-overload,no-any-return]
    if datatype.startswith("U"):
        return st.integers(0, 2**bits - 1)
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, list[int], list[Any]]:
    """(datatype, shape, elements in row-major order)"""
    datatype = draw(st.sampled_from(sorted(DATATYPES - {"FP16"})))
    shape = draw(SHAPES)
    count = math.prod(shape)
    return datatype, shape, draw(st.lists(element(datatype), min_size=count, max_size=count))


def nested(flat: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


@given(arrays())
@UNTIMED
def test_round_trip(array: tuple[str, list[int], list[Any]]) -> None:
    datatype, shape, flat = array
    tensor = from_json("x", datatype, shape, msgspec.json.encode(flat))
    assert from_json("x", datatype, shape, msgspec.json.encode(nested(flat, shape))) == tensor
    assert from_bytes("x", datatype, shape, tensor.data) == tensor
    assert msgspec.json.decode(to_json(tensor)) == flat
    assert msgspec.json.decode(to_rows(tensor)) == nested(flat, shape)
    if datatype == "BYTES":
        assert unpack(tensor) == [text.encode() for text in flat]
    else:
        assert tensor.data == np.array(flat, dtype=NUMPY[datatype]).tobytes()
    if 0 not in shape:
        rows = msgspec.json.encode(nested(flat, shape))
        assert from_rows("x", datatype, len(shape), rows) == tensor


@given(
    st.sampled_from(sorted(DATATYPES)),
    SHAPES,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(msgspec.json.encode)
    | st.binary(),
)
@UNTIMED
def test_any_data_is_read_or_refused(datatype: str, shape: list[int], data: bytes) -> None:
    for read in (
        lambda: from_json("x", datatype, shape, data),
        lambda: from_bytes("x", datatype, shape, data),
        lambda: from_rows("x", datatype, len(shape), data),
    ):
        try:
            tensor = read()
        except InvalidRequest:
            continue
        assert len(unpack(tensor)) == math.prod(tensor.shape)


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP32", "[1e39]"),
        ("FP32", "[1e309]"),
        ("FP64", "[1e309]"),
        ("FP64", "[NaN]"),
        ("FP32", "[true]"),
        ("FP32", '["1"]'),
        ("FP32", "[null]"),
        ("FP16", "[1.0]"),
        ("BF16", "[1.0]"),
        ("fp32", "[1.0]"),
        ("UINT8", "[256]"),
        ("UINT8", "[-1]"),
        ("INT64", "[9223372036854775808]"),
        ("UINT64", "[18446744073709551616]"),
        ("INT32", "[1.5]"),
        ("INT8", "[" + "9" * 5000 + "]"),
        ("BOOL", "[2]"),
        ("BYTES", "[1]"),
        ("BYTES", '["\\ud800"]'),
        ("FP32", "1.0"),
        ("FP32", "[[1.0]]"),
        ("FP32", "[1.0"),
        ("FP32", "[" * 100_000),
    ],
)
def test_elements_that_do_not_fit(datatype: str, data: str) -> None:
    with pytest.raises(InvalidRequest):
        from_json("x", datatype, [1], data.encode())


def test_booleans_as_zero_and_one() -> None:
    assert from_json("x", "BOOL", [3], b"[1, false, true]").data == b"\1\0\1"
    with pytest.raises(InvalidRequest):
        from_bytes("x", "BOOL", [1], b"\2")


@pytest.mark.parametrize(
    "shape",
    [[-1], [2**31], [2**20, 2**20], [2**62, 2**62, 0], [1] * (MAX_RANK + 1)],
)
def test_absurd_shapes(shape: list[int]) -> None:
    with pytest.raises(InvalidRequest):
        elements("x", shape)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], b"[1, 2, 3]"),
        ([2, 2], b"[[1, 2], [3]]"),
        ([2, 2], b"[[1, 2], [3, 4], [5, 6]]"),
        ([2, 2], b"[[[1, 2], [3, 4]]]"),
        ([4], b"[[1, 2], [3, 4]]"),
        ([1, 1, 2], b"[[1, 2]]"),
    ],
)
def test_data_of_another_shape(shape: list[int], data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        from_json("x", "FP32", shape, data)


@pytest.mark.parametrize("size", [0, 7, 9])
def test_bytes_of_another_length(size: int) -> None:
    with pytest.raises(InvalidRequest, match=r"takes 8$"):
        from_bytes("x", "FP32", [2], bytes(size))


def test_bytes_elements_must_end_where_the_data_ends() -> None:
    whole = struct.pack("<I", 2) + b"ab" + struct.pack("<I", 0)
    assert count_bytes_elements(whole) == 2
    assert count_bytes_elements(b"") == 0
    for broken in (whole[:3], whole[:-1], whole + b"\0", struct.pack("<I", 2**32 - 1) + b"a"):
        assert count_bytes_elements(broken) == -1
        with pytest.raises(InvalidRequest):
            from_bytes("x", "BYTES", [2], broken)


@pytest.mark.parametrize("datatype", sorted(FLOATS))
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_cannot_say(datatype: str, number: float) -> None:
    data = struct.pack(f"<2{FORMATS[datatype][0]}", 1, number)
    tensor = Tensor(name="y", datatype=datatype, shape=[1, 2], data=data)
    for write in (to_json, to_rows):
        with pytest.raises(InvalidRequest, match="binary data extension"):
            write(tensor)


def test_texts_that_json_cannot_say() -> None:
    tensor = Tensor(name="y", datatype="BYTES", shape=[1], data=b"\1\0\0\0\xff")
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        to_json(tensor)


@pytest.mark.parametrize("data", [b"[]", b"[[1],[1,2]]", b"[1]", b"{}", b"[[[1]]]"])
def test_rows_that_are_not_regular(data: bytes) -> None:
    if data == b"[]":
        assert from_rows("x", "FP32", 2, data).shape == [0, 0]
        return
    with pytest.raises(InvalidRequest):
        from_rows("x", "FP32", 2, data)
