"""Operations of OpenVINO's opsets for the interpreter of ``gradients_graph``: number by number.

An operation is a function of its node, the array library (NumPy where every input is known, JAX
where one is traced) and its inputs; it gives one array, or a list where there are several outputs.
Source: https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets.html
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Everything is computed in float32, as a network is served by default.
DTYPES: dict[str, Any] = {
    **dict.fromkeys(("f16", "bf16", "f32", "f64"), np.dtype(np.float32)),
    "boolean": np.dtype(np.bool_),
    **{
        f"{sign}{bits}": np.dtype(f"{sign}{bits // 8}") for sign in "iu" for bits in (8, 16, 32, 64)
    },
}


class Operation(NamedTuple):
    """How an operation is computed."""

    run: Callable[..., Any]
    static: tuple[int, ...] = ()  # inputs that say how, not what: shapes, axes, bounds
    jax_only: bool = False  # NumPy has nothing like it


OPERATIONS: dict[str, Operation] = {}


def operation(
    *names: str, static: tuple[int, ...] = (), jax_only: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters a function into ``OPERATIONS``."""

    def enter(run: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            OPERATIONS[name] = Operation(run, static, jax_only)
        return run

    return enter


def cast(array: Any, kind: str) -> Any:
    """As OpenVINO's ``Convert`` does it: fractions are cut off, and all but 0 is true."""
    wanted = DTYPES[kind]
    return array if array.dtype == wanted else array.astype(wanted)


def aligned(xp: Any, left: Any, right: Any, node: Any) -> tuple[Any, Any]:
    """Two inputs whose shapes NumPy's rules can join; ``pdpd`` lines the second up with the first
    from ``axis`` on."""
    if node.attributes.get("auto_broadcast") == "pdpd" and left.ndim != right.ndim:
        axis = node.attributes.get("axis", -1)
        axis = left.ndim - right.ndim if axis < 0 else axis
        after = left.ndim - axis - right.ndim
        right = xp.reshape(right, (*right.shape, *(1,) * after))
    return left, right


def _pairwise(name: str, run: Callable[[Any, Any, Any], Any]) -> None:
    def both(node: Any, xp: Any, left: Any, right: Any) -> Any:
        return run(xp, *aligned(xp, left, right, node))

    operation(name)(both)


def _single(name: str, run: Callable[[Any, Any], Any], *, jax_only: bool = False) -> None:
    operation(name, jax_only=jax_only)(lambda node, xp, array: run(xp, array))


def _divided(xp: Any, left: Any, right: Any) -> Any:
    return left / right if left.dtype.kind == "f" else xp.floor_divide(left, right)


def _nn() -> Any:
    import jax

    return jax.nn


_pairwise("Add", lambda xp, a, b: a + b)
_pairwise("Subtract", lambda xp, a, b: a - b)
_pairwise("Multiply", lambda xp, a, b: a * b)
_pairwise("Divide", _divided)
_pairwise("Maximum", lambda xp, a, b: xp.maximum(a, b))
_pairwise("Minimum", lambda xp, a, b: xp.minimum(a, b))
_pairwise("FloorMod", lambda xp, a, b: xp.mod(a, b))
_pairwise("Mod", lambda xp, a, b: xp.fmod(a, b))
_pairwise("SquaredDifference", lambda xp, a, b: xp.square(a - b))
_pairwise("Equal", lambda xp, a, b: a == b)
_pairwise("NotEqual", lambda xp, a, b: a != b)
_pairwise("Greater", lambda xp, a, b: a > b)
_pairwise("GreaterEqual", lambda xp, a, b: a >= b)
_pairwise("Less", lambda xp, a, b: a < b)
_pairwise("LessEqual", lambda xp, a, b: a <= b)
_pairwise("LogicalAnd", lambda xp, a, b: xp.logical_and(a, b))
_pairwise("LogicalOr", lambda xp, a, b: xp.logical_or(a, b))
_pairwise("LogicalXor", lambda xp, a, b: xp.logical_xor(a, b))
_pairwise("BitwiseAnd", lambda xp, a, b: xp.bitwise_and(a, b))
_pairwise("BitwiseOr", lambda xp, a, b: xp.bitwise_or(a, b))
_pairwise("BitwiseXor", lambda xp, a, b: xp.bitwise_xor(a, b))

for _name, _numpy in {
    "Abs": "abs",
    "Acos": "arccos",
    "Acosh": "arccosh",
    "Asin": "arcsin",
    "Asinh": "arcsinh",
    "Atan": "arctan",
    "Atanh": "arctanh",
    "Ceiling": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Exp": "exp",
    "Floor": "floor",
    "IsFinite": "isfinite",
    "IsInf": "isinf",
    "IsNaN": "isnan",
    "Log": "log",
    "LogicalNot": "logical_not",
    "Negative": "negative",
    "BitwiseNot": "bitwise_not",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}.items():
    _single(_name, lambda xp, a, _numpy=_numpy: getattr(xp, _numpy)(a))  # type: ignore[misc]

# JAX's own where their slope at a corner, or their range, is better looked after than in plain
# arithmetic.
_single("Relu", lambda xp, a: xp.maximum(a, 0) if xp is np else _nn().relu(a))
_single("Sigmoid", lambda xp, a: _nn().sigmoid(a), jax_only=True)
_single("SoftPlus", lambda xp, a: _nn().softplus(a), jax_only=True)
_single("SoftSign", lambda xp, a: a / (1 + xp.abs(a)))
_single("Mish", lambda xp, a: a * xp.tanh(_nn().softplus(a)), jax_only=True)
_single("HSwish", lambda xp, a: a * xp.clip(a + 3, 0, 6) / 6)
_single("HSigmoid", lambda xp, a: xp.clip(a + 3, 0, 6) / 6)


@operation("Erf", jax_only=True)
def _erf(node: Any, xp: Any, array: Any) -> Any:
    from jax.scipy.special import erf

    return erf(array)


@operation("Power")
def _power(node: Any, xp: Any, base: Any, exponent: Any) -> Any:
    base, exponent = aligned(xp, base, exponent, node)
    if isinstance(exponent, np.ndarray) and exponent.size == 1:
        # As products and roots: the slope of a power in general is NaN at 0 and below.
        known = {1.0: lambda a: a, 2.0: lambda a: a * a, 0.5: xp.sqrt}
        simple = known.get(float(exponent.reshape(())))
        if simple is not None:
            return simple(base) * np.ones(exponent.shape, np.float32)
    return xp.power(base, exponent)


@operation("Convert")
def _convert(node: Any, xp: Any, array: Any) -> Any:
    return cast(array, node.types[0])


@operation("ConvertLike")
def _convert_like(node: Any, xp: Any, array: Any, like: Any) -> Any:
    return cast(array, node.types[0])


@operation("Select")
def _select(node: Any, xp: Any, condition: Any, left: Any, right: Any) -> Any:
    return xp.where(condition, left, right)


@operation("Clamp")
def _clamp(node: Any, xp: Any, array: Any) -> Any:
    low, high = node.attributes["min"], node.attributes["max"]
    if array.dtype.kind != "f":
        edges = np.iinfo(array.dtype)
        low, high = max(math.ceil(low), edges.min), min(math.floor(high), edges.max)
        return xp.clip(array, low, high)
    return xp.clip(array, np.float32(low), np.float32(high))


@operation("Elu")
def _elu(node: Any, xp: Any, array: Any) -> Any:
    below = xp.minimum(array, 0)  # so that nothing overflows where it is not taken
    return xp.where(array > 0, array, np.float32(node.attributes["alpha"]) * xp.expm1(below))


@operation("Selu")
def _selu(node: Any, xp: Any, array: Any, alpha: Any, scale: Any) -> Any:
    below = alpha * xp.expm1(xp.minimum(array, 0))
    return scale * xp.where(array > 0, array, below)


@operation("PRelu")
def _prelu(node: Any, xp: Any, array: Any, slope: Any) -> Any:
    if slope.ndim == 1 and array.ndim > 1 and slope.size > 1:  # of each channel, the second axis
        slope = xp.reshape(slope, (-1, *(1,) * (array.ndim - 2)))
    return xp.where(array > 0, array, array * slope)


@operation("Swish", jax_only=True)
def _swish(node: Any, xp: Any, array: Any, beta: Any = 1.0) -> Any:
    return array * _nn().sigmoid(array * beta)


@operation("HardSigmoid")
def _hard_sigmoid(node: Any, xp: Any, array: Any, alpha: Any, beta: Any) -> Any:
    return xp.clip(alpha * array + beta, 0, 1)


@operation("Gelu", jax_only=True)
def _gelu(node: Any, xp: Any, array: Any) -> Any:
    mode = str(node.attributes.get("approximation_mode", "ERF"))
    return _nn().gelu(array, approximate=mode.upper() == "TANH")


@operation("Round")
def _round(node: Any, xp: Any, array: Any) -> Any:
    if str(node.attributes.get("mode", "half_to_even")).lower() == "half_to_even":
        return xp.round(array)
    return xp.sign(array) * xp.floor(xp.abs(array) + np.float32(0.5))


@operation("Softmax", jax_only=True)
def _softmax(node: Any, xp: Any, array: Any) -> Any:
    return _nn().softmax(array, axis=node.attributes["axis"])


@operation("LogSoftmax", jax_only=True)
def _log_softmax(node: Any, xp: Any, array: Any) -> Any:
    return _nn().log_softmax(array, axis=node.attributes["axis"])


@operation("Result", "Identity")
def _same(node: Any, xp: Any, array: Any) -> Any:
    return array
