"""What ordinary networks share: their signature, inputs to try, and the comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.manifest import Port, Verification

MAX_PORTS, MAX_RANK, MAX_LENGTH = 256, 8, 1 << 24
MAX_SAMPLE = 1 << 26  # elements of one input that is tried
FREE = (3, 16)  # what a free first, and any other free, dimension is tried as
RELATIVE, ABSOLUTE = 1e-4, 1e-4

# OpenVINO's name → Open Inference Protocol V2's
DATATYPES = {"boolean": "BOOL", "f16": "FP16", "f32": "FP32", "f64": "FP64"} | {
    f"{sign}{bits}": f"{name}{bits}"
    for sign, name in (("u", "UINT"), ("i", "INT"))
    for bits in (8, 16, 32, 64)
}
_NUMPY = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64"}

Arrays = dict[str, NDArray[Any]]


def read_model(path: Path) -> openvino.Model:
    """
    Raises:
        ConversionFailed: OpenVINO cannot read it.
    """
    try:
        return openvino.Core().read_model(str(path))
    except RuntimeError as error:
        raise ConversionFailed(f"OpenVINO cannot read the model: {_first_line(error)}") from None


def compiled(path: Path) -> openvino.CompiledModel:
    """The model as it will be served, computed in float32.

    Raises:
        ConversionFailed: OpenVINO cannot compile it.
    """
    try:
        return openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise ConversionFailed(f"OpenVINO cannot compile it: {_first_line(error)}") from None


def name_ports(model: openvino.Model) -> None:
    """Gives every input and output that has no name one, so that requests can speak of it."""
    for kind, ports in (("input", model.inputs), ("output", model.outputs)):
        for at, port in enumerate(ports):
            if not port.get_names():
                port.set_names({f"{kind}_{at}"})


def ports_of(ports: Sequence[Any]) -> list[Port]:
    """
    Raises:
        ArtifactRefused: too many, of unbounded rank or absurd length.
        ConversionFailed: of a datatype that no request can carry.
    """
    if not 1 <= len(ports) <= MAX_PORTS:
        raise ArtifactRefused(f"The network has {len(ports)} inputs or outputs.")
    found = []
    for port in ports:
        datatype = DATATYPES.get(port.element_type.get_type_name())
        if datatype is None:
            raise ConversionFailed(f"{port.any_name} is of type {port.element_type}.")
        shape = port.partial_shape
        if shape.rank.is_dynamic or len(shape) > MAX_RANK:
            raise ArtifactRefused(f"{port.any_name} has no fixed number of dimensions.")
        lengths = [-1 if side.is_dynamic else side.get_length() for side in shape]
        if any(length > MAX_LENGTH or length == 0 for length in lengths):
            raise ArtifactRefused(f"{port.any_name} has a dimension of {max(lengths)}.")
        found.append(Port(port.any_name, datatype, lengths))
    return found


def samples(inputs: Sequence[Port], count: int = 3) -> list[Arrays]:
    """Random inputs, the same every time; numbers are normal, whole numbers 0 or 1."""
    random = np.random.default_rng(20_240_229)
    return [{port.name: _sample(port, random) for port in inputs} for _ in range(count)]


def compare(
    path: Path,
    inputs: Sequence[Port],
    original: Callable[[Arrays], Sequence[NDArray[Any]]],
    against: str,
) -> Verification:
    """Runs the IR at ``path`` and the original on the same inputs.

    Raises:
        ConversionFailed: their outputs differ by more than rounding.
    """
    model = compiled(path)
    tried = samples(inputs)
    worst = max(_worst(_run(model, arrays), original(arrays)) for arrays in tried)
    return Verification(
        against=against,
        samples=len(tried),
        max_abs_error=worst,
        compared="all outputs on random inputs",
    )


def compare_with(
    path: Path, arrays: Arrays, expected: Sequence[NDArray[Any]], against: str
) -> Verification:
    """Runs the IR at ``path`` on rows whose answers are known.

    Raises:
        ConversionFailed: its outputs differ by more than rounding.
    """
    return Verification(
        against=against,
        samples=len(expected[0]),
        max_abs_error=_worst(_run(compiled(path), arrays), expected),
        compared="all outputs on real rows",
    )


def _worst(got: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> float:
    if len(got) != len(expected):
        raise ConversionFailed("The converted network has another number of outputs.")
    pairs = zip(got, expected, strict=True)
    return max(_difference(np.asarray(ours), np.asarray(theirs)) for ours, theirs in pairs)


def _run(model: openvino.CompiledModel, arrays: Arrays) -> list[NDArray[Any]]:
    try:
        return list(model(arrays).values())
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ConversionFailed(
            f"The converted network cannot run {shapes[:300]} ({_first_line(error)}). If it has "
            "free dimensions besides the first, fix them: the length of a recurrent network's "
            "sequences, the size of images."
        ) from None


def _sample(port: Port, random: np.random.Generator) -> NDArray[Any]:
    shape = [FREE[min(at, 1)] if side < 0 else side for at, side in enumerate(port.shape)]
    if np.prod(shape, dtype=np.float64) > MAX_SAMPLE:
        raise ArtifactRefused(f"{port.name} is too large an input.")
    kind = np.dtype(_NUMPY.get(port.datatype, port.datatype.lower()))
    if port.datatype.startswith("FP"):
        return random.standard_normal(shape).astype(kind)
    return random.integers(0, 2, shape).astype(kind)


def _difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    if ours.shape != theirs.shape:
        raise ConversionFailed(f"An output has shape {ours.shape} instead of {theirs.shape}.")
    if ours.size == 0:
        return 0.0
    left, right = ours.astype(np.float64), theirs.astype(np.float64)
    if not np.array_equal(np.isfinite(left), np.isfinite(right)):
        raise ConversionFailed("An output is not finite where the original's is.")
    difference = np.abs(np.where(np.isfinite(left), left - right, 0.0))
    if (difference > ABSOLUTE + RELATIVE * np.abs(right)).any():
        raise ConversionFailed(f"An output differs by {difference.max():.3g} from the original's.")
    return float(difference.max())


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
