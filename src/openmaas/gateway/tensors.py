"""Arrays in JSON and in bytes ↔ neutral tensors: the codec of the Open Inference Protocol.

``struct`` and not numpy: for the small rows that make up most traffic it is faster, and it
refuses numbers that the datatype cannot hold instead of wrapping them.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from openmaas.errors import InvalidRequest, OpenMaaSError
from openmaas.inference import Tensor

FORMATS: dict[str, tuple[str, int]] = {
    "BOOL": ("?", 1),
    "UINT8": ("B", 1),
    "UINT16": ("H", 2),
    "UINT32": ("I", 4),
    "UINT64": ("Q", 8),
    "INT8": ("b", 1),
    "INT16": ("h", 2),
    "INT32": ("i", 4),
    "INT64": ("q", 8),
    "FP16": ("e", 2),
    "FP32": ("f", 4),
    "FP64": ("d", 8),
}
"""Datatype of fixed size → struct's letter, bytes per element."""

FLOATS = frozenset({"FP16", "FP32", "FP64"})
DATATYPES = frozenset({*FORMATS, "BYTES"})
MAX_RANK = 8
MAX_ELEMENTS = 2**31 - 1

_LENGTH = struct.Struct("<I")
_BINARY = "ask for it over /v2 with the binary data extension (binary_data: true)"
_NESTED = re.compile(rb"\s*\[\s*\[").match
_json = msgspec.json.Encoder().encode


def elements(name: str, shape: Sequence[int]) -> int:
    """How many elements a shape has.

    Raises:
        InvalidRequest: a negative or absurd size, or too many dimensions.
    """
    if len(shape) > MAX_RANK:
        raise InvalidRequest(f"{name}: shape has more than {MAX_RANK} dimensions", param="shape")
    count = 1
    for size in shape:
        if size < 0:
            raise InvalidRequest(f"{name}: shape {list(shape)} has a negative size", param="shape")
        count *= size
        # Each factor is checked, so a zero further on cannot hide an absurd one.
        if size > MAX_ELEMENTS or count > MAX_ELEMENTS:
            raise InvalidRequest(f"{name}: shape is beyond {MAX_ELEMENTS} elements", param="shape")
    return count


def known(name: str, datatype: str) -> None:
    """
    Raises:
        InvalidRequest: a datatype that is not served.
    """
    if datatype not in DATATYPES:
        raise InvalidRequest(
            f"{name}: datatype {datatype[:20]!r} is not supported; "
            f"supported are {', '.join(sorted(DATATYPES))}",
            param="datatype",
        )


# --- bytes → tensor ----------------------------------------------------------------------


def from_bytes(name: str, datatype: str, shape: list[int], data: bytes) -> Tensor:
    """A tensor from its raw bytes, little-endian; BYTES elements with uint32 lengths.

    Raises:
        InvalidRequest: bytes and shape do not agree.
    """
    known(name, datatype)
    count = elements(name, shape)
    if datatype == "BYTES":
        if count_bytes_elements(data) != count:
            raise InvalidRequest(f"{name}: the data is not {count} BYTES elements", param="data")
    elif len(data) != count * FORMATS[datatype][1]:
        raise InvalidRequest(
            f"{name}: {len(data)} bytes of data, but shape {shape} of {datatype} takes "
            f"{count * FORMATS[datatype][1]}",
            param="data",
        )
    elif datatype == "BOOL" and data.translate(None, b"\0\1"):
        raise InvalidRequest(f"{name}: a BOOL byte is neither 0 nor 1", param="data")
    return Tensor(name=name, datatype=datatype, shape=shape, data=data)


def count_bytes_elements(data: bytes) -> int:
    """Number of length-prefixed elements; −1 if they do not end where the data ends."""
    position, count = 0, 0
    while position < len(data):
        if position + 4 > len(data):
            return -1
        position += 4 + _LENGTH.unpack_from(data, position)[0]
        count += 1
    return count if position == len(data) else -1


# --- JSON → tensor -----------------------------------------------------------------------


def from_json(name: str, datatype: str, shape: list[int], data: bytes) -> Tensor:
    """A tensor from JSON text: a flat array, or one nested as the shape says.

    Raises:
        InvalidRequest: elements do not fit the datatype, or their number the shape.
    """
    known(name, datatype)
    if datatype == "FP16":
        raise InvalidRequest(
            f"{name}: FP16 has no JSON form; send it with the binary data extension", param="data"
        )
    count = elements(name, shape)
    nested = len(shape) > 1 and _NESTED(data) is not None
    flat = _flat(name, datatype, data, shape if nested else None)
    if len(flat) != count:
        raise InvalidRequest(
            f"{name}: {len(flat)} elements of data, but shape {shape} takes {count}", param="data"
        )
    return Tensor(name=name, datatype=datatype, shape=shape, data=pack(name, datatype, flat))


def from_rows(name: str, datatype: str, rank: int, data: bytes) -> Tensor:
    """A tensor of ``rank`` dimensions from nested JSON arrays, which say its shape.

    Raises:
        InvalidRequest: elements do not fit the datatype, or the nesting is not regular.
    """
    if not 1 <= rank <= MAX_RANK:
        raise InvalidRequest(f"{name}: inputs of {rank} dimensions cannot be read from JSON")
    nested = _decode(name, _decoder(datatype, rank), data)
    shape: list[int] = []
    first = nested
    for level in range(rank):
        shape.append(len(first))
        if level < rank - 1:
            first = first[0] if first else []
    flat = _flatten(name, nested, shape)
    return Tensor(name=name, datatype=datatype, shape=shape, data=pack(name, datatype, flat))


def pack(name: str, datatype: str, flat: Sequence[Any]) -> bytes:
    """Numbers (or strings) → bytes.

    Raises:
        InvalidRequest: one is out of the datatype's range.
    """
    if datatype == "BYTES":
        texts = [value.encode() for value in flat]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    try:
        return struct.pack(f"<{len(flat)}{FORMATS[datatype][0]}", *flat)
    except (struct.error, OverflowError):
        raise InvalidRequest(
            f"{name}: a number is out of range for {datatype}", param="data"
        ) from None


def _flat(name: str, datatype: str, data: bytes, shape: list[int] | None) -> Sequence[Any]:
    if shape is None:
        found: Sequence[Any] = _decode(name, _decoder(datatype, 1), data)
        return found
    return _flatten(name, _decode(name, _decoder(datatype, len(shape)), data), shape)


def _flatten(name: str, nested: list[Any], shape: Sequence[int]) -> Sequence[Any]:
    level: Sequence[Any] = nested
    if len(nested) != shape[0]:
        raise _irregular(name, shape)
    for size in shape[1:]:
        if any(len(row) != size for row in level):
            raise _irregular(name, shape)
        level = level[0] if len(level) == 1 else list(itertools.chain.from_iterable(level))
    return level


def _irregular(name: str, shape: Sequence[int]) -> InvalidRequest:
    return InvalidRequest(f"{name}: the nested data is not of shape {list(shape)}", param="data")


@functools.lru_cache(maxsize=len(DATATYPES) * MAX_RANK)
def _decoder(datatype: str, rank: int) -> msgspec.json.Decoder[Any]:
    kind: Any = int
    if datatype in FLOATS:
        kind = float
    elif datatype in ("BYTES", "BOOL"):
        kind = str if datatype == "BYTES" else bool | Literal[0, 1]
    for _ in range(rank):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _decode(name: str, decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        text = str(error).replace("`$", "`data")
        raise InvalidRequest(f"{name}: {text}", param="data") from None
    except RecursionError:
        raise InvalidRequest(f"{name}: data is nested too deeply", param="data") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{name}: data is not valid JSON: {error}", param="data") from None


# --- tensor → JSON -----------------------------------------------------------------------


def unpack(tensor: Tensor) -> Sequence[Any]:
    """Elements of a tensor, row-major: numbers, booleans, or for BYTES ``bytes``.

    Raises:
        OpenMaaSError: the tensor is not of its own shape (a runtime's fault).
    """
    letter, size = FORMATS.get(tensor.datatype, ("", 0))
    if not letter:
        return list(_bytes_elements(tensor.data))
    if len(tensor.data) % size:
        raise OpenMaaSError(f"output {tensor.name!r} is damaged")
    return struct.unpack(f"<{len(tensor.data) // size}{letter}", tensor.data)


def _bytes_elements(data: bytes) -> Iterable[bytes]:
    position = 0
    while position < len(data):
        start = position + 4
        position = start + _LENGTH.unpack_from(data, position)[0]
        yield data[start:position]


def to_json(tensor: Tensor) -> bytes:
    """The elements as a flat JSON array.

    Raises:
        InvalidRequest: an element has no JSON form.
    """
    return _strict(tensor, unpack(tensor))


def to_rows(tensor: Tensor) -> bytes:
    """The elements as JSON arrays nested as the shape says.

    Raises:
        InvalidRequest: an element has no JSON form.
    """
    level: Sequence[Any] = unpack(tensor)
    for axis in range(len(tensor.shape) - 1, 0, -1):
        size = tensor.shape[axis]
        rows = math.prod(tensor.shape[:axis])  # not len / size: a size may be 0
        level = [level[i * size : (i + 1) * size] for i in range(rows)]
    return _strict(tensor, level)


def _strict(tensor: Tensor, values: Sequence[Any]) -> bytes:
    if tensor.datatype == "BYTES":
        values = _texts(tensor.name, values)
    text = _json(values)
    # The encoder writes null for NaN and ±∞. Numbers have no "n", so one search finds it.
    if tensor.datatype in FLOATS and b"n" in text:
        raise InvalidRequest(
            f"output {tensor.name!r} holds NaN or an infinity, which JSON cannot say; {_BINARY}"
        )
    return text


def _texts(name: str, values: Any) -> Any:
    if isinstance(values, bytes):
        try:
            return values.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"output {name!r} holds bytes that are not UTF-8, which JSON cannot say; {_BINARY}"
            ) from None
    return [_texts(name, value) for value in values]
