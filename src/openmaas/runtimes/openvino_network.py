"""A network that OpenVINO has read: its ports, whether rows can share a call, and the call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.inference import TensorSpec
from openmaas.runtimes.openvino_cpu import compile_model

# Sizes that the probe tries for dimensions that are free, until the network accepts one.
FREE_SIZES = (1, 8, 32, 224)
# Rows may differ this much (÷ the largest output) between batch sizes: other kernels, bf16.
ROW_TOLERANCE = 0.02
# Inputs of small batches lie at one fixed address: the engine then skips rebinding (10 µs).
SLOT_ROWS = 64
SLOT_BYTES = 1 << 20

# Datatypes whose values are looked at: the engine computes integers in 32 bits.
CHECKED = ("BOOL", "INT64", "UINT64", "UINT32")
INT32 = np.iinfo(np.int32)

DATATYPES = {
    "boolean": ("BOOL", np.dtype(np.bool_)),
    "u8": ("UINT8", np.dtype(np.uint8)),
    "u16": ("UINT16", np.dtype("<u2")),
    "u32": ("UINT32", np.dtype("<u4")),
    "u64": ("UINT64", np.dtype("<u8")),
    "i8": ("INT8", np.dtype(np.int8)),
    "i16": ("INT16", np.dtype("<i2")),
    "i32": ("INT32", np.dtype("<i4")),
    "i64": ("INT64", np.dtype("<i8")),
    "f16": ("FP16", np.dtype("<f2")),
    "f32": ("FP32", np.dtype("<f4")),
    "f64": ("FP64", np.dtype("<f8")),
}
"""OpenVINO's element type → the Open Inference Protocol's name and the numpy type."""


class Port(msgspec.Struct, frozen=True):
    """An input or output; ``index`` is its place in the engine."""

    index: int
    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: list[int]  # -1: free

    @property
    def trailing(self) -> list[int]:
        """The shape without the batch."""
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; 0 where its size is free."""
        return 0 if -1 in self.trailing else prod(self.trailing) * self.dtype.itemsize

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(name=self.name, datatype=self.datatype, shape=self.shape)


def ports(sides: Sequence[Any]) -> list[Port]:
    """The ports of ``model.inputs`` or ``model.outputs``.

    Raises:
        ArtifactRefused: one has an element type that requests cannot carry, or no fixed rank.
    """
    return [_port(index, side) for index, side in enumerate(sides)]


def check_values(port: Port, data: bytes) -> None:
    """
    Raises:
        InvalidRequest: a boolean is neither 0 nor 1, or the engine would wrap an integer.
    """
    if port.datatype == "BOOL":
        if data.translate(None, b"\0\1"):
            raise InvalidRequest(f"input {port.name!r}: a BOOL is a byte 0 or 1", param="inputs")
    elif port.datatype in CHECKED:
        numbers = np.frombuffer(data, port.dtype)
        if int(numbers.min()) < INT32.min or int(numbers.max()) > INT32.max:
            raise InvalidRequest(
                f"input {port.name!r}: the engine computes {port.datatype} in 32 bits, from "
                f"{INT32.min} to {INT32.max}",
                param="inputs",
            )


def with_free_batch(model: ov.Model) -> ov.Model | None:
    """The network with its first dimension free in all inputs and outputs, if it can be."""
    freed = model.clone()
    shapes = {}
    for side in freed.inputs:
        shape = side.get_partial_shape()
        if shape.rank.is_dynamic or shape.rank.get_length() == 0:
            return None
        shape[0] = ov.Dimension()
        shapes[side] = shape
    try:
        freed.reshape(shapes)
    except RuntimeError:
        return None  # the graph holds its batch in some constant
    for side in freed.outputs:
        shape = side.get_partial_shape()
        if shape.rank.is_dynamic or shape.rank.get_length() == 0 or shape[0].is_static:
            return None
    return freed


def is_one_row(model: ov.Model) -> bool:
    """Whether the network takes and gives batches of exactly one."""
    shapes = [port.shape for port in ports(model.inputs) + ports(model.outputs)]
    return all(shape[:1] == [1] for shape in shapes)


class Network:
    """A compiled network and its one inference request; ``inputs`` and ``outputs`` in the
    engine's order."""

    def __init__(self, model: ov.Model, *, threads: int | None, precision: str | None) -> None:
        self.inputs = ports(model.inputs)
        self.outputs = ports(model.outputs)
        compiled = compile_model(model, threads=threads, precision=precision)
        self._request = compiled.create_infer_request()
        self._slots = _slots(self.inputs)
        self._held: list[NDArray[Any]] = []  # the engine reads these until its next call

    def call(self, columns: list[list[bytes]], shapes: list[list[int]]) -> list[NDArray[Any]]:
        """One engine call on rows that are joined here: for each input its pieces and the
        shape of the whole. The answers are views that the next call overwrites."""
        rows = shapes[0][0] if shapes and shapes[0] else 0
        if 0 < rows <= len(self._slots):
            for port, pieces, (memory, tensors) in zip(
                self.inputs, columns, self._slots[rows - 1], strict=True
            ):
                joined = b"".join(pieces)
                memory[: len(joined)] = joined
                self._request.set_input_tensor(port.index, tensors)
            return self._infer()
        return self.call_arrays(
            [
                np.frombuffer(bytearray().join(pieces), port.dtype).reshape(shape)
                for port, pieces, shape in zip(self.inputs, columns, shapes, strict=True)
            ]
        )

    def call_arrays(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """The same for whole arrays, writable and contiguous."""
        for port, array in zip(self.inputs, arrays, strict=True):
            self._request.set_input_tensor(port.index, ov.Tensor(array, shared_memory=True))
        self._held = arrays
        return self._infer()

    def _infer(self) -> list[NDArray[Any]]:
        self._request.infer(None, share_outputs=True, decode_strings=False)
        return [self._request.get_output_tensor(port.index).data for port in self.outputs]


def seconds_of_a_row(network: Network) -> float:
    """Time of a warm call on one made-up row; 0 where the network accepts none."""
    for free in FREE_SIZES:
        arrays = sample(network.inputs, 1, free)
        try:
            network.call_arrays(arrays)
            began = time.perf_counter()
            network.call_arrays(arrays)
        except RuntimeError:
            continue  # this network needs another size
        return time.perf_counter() - began
    return 0.0


def rows_are_independent(network: Network) -> bool:
    """Whether two rows get together what each gets alone; False where that cannot be tried."""
    for free in FREE_SIZES:
        both = sample(network.inputs, 2, free)
        try:
            together = [block.copy() for block in network.call_arrays(both)]
            alone = [
                [block.copy() for block in network.call_arrays([a[i : i + 1] for a in both])]
                for i in (0, 1)
            ]
        except RuntimeError:
            continue
        return all(map(_alike, together, *alone))
    return False


def sample(inputs: Sequence[Port], rows: int, free: int) -> list[NDArray[Any]]:
    """Inputs for a probe: ``rows`` different rows; zeros and ones where numbers are indices."""
    rng = np.random.default_rng(0)
    made = []
    for port in inputs:
        shape = [free if size < 0 else size for size in port.shape]
        shape[:1] = [rows] if port.shape and port.shape[0] < 0 else shape[:1]
        if port.dtype.kind == "f":
            made.append(rng.standard_normal(shape).astype(port.dtype))
        else:
            made.append(rng.integers(0, 2, shape).astype(port.dtype))
    return made


def _port(index: int, side: Any) -> Port:
    name = min(side.get_names(), default="") or side.get_node().get_friendly_name()
    kind = side.get_element_type().get_type_name()
    if kind not in DATATYPES:
        raise ArtifactRefused(
            f"{name!r} holds elements of type {kind}, which this runtime does not take; "
            f"it takes {', '.join(named for named, _ in DATATYPES.values())}"
        )
    shape = side.get_partial_shape()
    if shape.rank.is_dynamic:
        raise ArtifactRefused(f"the number of dimensions of {name!r} is not fixed")
    sizes = [-1 if size.is_dynamic else size.get_length() for size in shape]
    datatype, dtype = DATATYPES[kind]
    return Port(index, name, datatype, dtype, sizes)


def _slots(inputs: Sequence[Port]) -> list[list[tuple[memoryview, ov.Tensor]]]:
    """For 1, 2, … rows: for each input the memory to fill and the tensor that lies there.
    Empty where the size of a row is not known beforehand."""
    widest = max((port.row_bytes for port in inputs), default=0)
    if not widest or not all(port.row_bytes and port.shape[0] < 0 for port in inputs):
        return []
    most = min(SLOT_ROWS, SLOT_BYTES // widest)
    buffers = [np.zeros([most, *port.trailing], port.dtype) for port in inputs]
    return [
        [
            (b.reshape(-1).view(np.uint8).data, ov.Tensor(b[:rows], shared_memory=True))
            for b in buffers
        ]
        for rows in range(1, most + 1)
    ]


def _alike(both: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> bool:
    if len(both) != 2 or len(first) != 1 or len(second) != 1:
        return False
    if both[0].shape != first[0].shape or both[1].shape != second[0].shape:
        return False  # sizes that depend on the whole batch cannot be cut by row
    for row, alone in ((both[0], first[0]), (both[1], second[0])):
        scale = float(np.abs(np.nan_to_num(alone.astype(np.float64))).max(initial=0.0))
        if not np.allclose(row, alone, rtol=0, atol=ROW_TOLERANCE * scale, equal_nan=True):
            return False
    return True
