"""Arrays on their way to the server and back, without numpy where there is none."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

_FORMATS = {
    "BOOL": ("?", "bool"), "UINT8": ("B", "uint8"), "UINT16": ("H", "uint16"),
    "UINT32": ("I", "uint32"), "UINT64": ("Q", "uint64"), "INT8": ("b", "int8"),
    "INT16": ("h", "int16"), "INT32": ("i", "int32"), "INT64": ("q", "int64"),
    "FP16": ("e", "float16"), "FP32": ("f", "float32"), "FP64": ("d", "float64"),
}  # fmt: skip
_DATATYPES = {name: datatype for datatype, (_, name) in _FORMATS.items()}


class Array:
    """Numbers of a shape. ``numpy.asarray`` reads it."""

    def __init__(self, datatype: str, shape: Sequence[int], data: bytes) -> None:
        self.datatype = datatype
        self.shape = tuple(shape)
        self.data = data  # little-endian, row-major

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Array:
        return cls(told["datatype"], told["shape"], base64.b64decode(told["data"]))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Array({self.datatype}, {list(self.shape)})"

    def tolist(self) -> Any:
        """Nested lists."""
        letter = _FORMATS[self.datatype][0]
        level: Sequence[Any] = struct.unpack(f"<{math.prod(self.shape)}{letter}", self.data)
        if not self.shape:
            return level[0]
        for axis in range(len(self.shape) - 1, 0, -1):
            size, rows = self.shape[axis], math.prod(self.shape[:axis])
            level = [list(level[index * size : (index + 1) * size]) for index in range(rows)]
        return list(level)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        known = np.dtype(_FORMATS[self.datatype][1]).newbyteorder("<")
        found = np.frombuffer(self.data, known).reshape(self.shape)
        return found.astype(dtype or known.newbyteorder("="))


def array(value: Any) -> Any:
    """As a session's calls take it: numpy's arrays by their bytes, lists as they are.

    Raises:
        ValueError: of an array whose type has no name here.
    """
    if isinstance(value, list | tuple):
        return value
    if not hasattr(value, "tobytes") and hasattr(value, "__array__"):
        value = value.__array__()
    if not hasattr(value, "tobytes"):
        return value
    name = value.dtype.name
    if name not in _DATATYPES:
        raise ValueError(f"arrays of {name} cannot be sent; there are: {', '.join(_DATATYPES)}")
    if value.dtype.byteorder == ">":
        value = value.astype(value.dtype.newbyteorder("<"))
    data = base64.b64encode(value.tobytes()).decode()
    return {"datatype": _DATATYPES[name], "shape": list(value.shape), "data": data}


def inputs(value: Any) -> Any:
    """One array, or one for each input by name."""
    if isinstance(value, Mapping):
        return {name: array(one) for name, one in value.items()}
    return array(value)
