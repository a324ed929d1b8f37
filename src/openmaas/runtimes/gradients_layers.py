"""Operations for the interpreter of ``gradients_graph`` that join numbers: products, convolutions,
pools, norms, attention; see ``gradients_ops``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from openmaas.errors import ArtifactRefused
from openmaas.runtimes.gradients_ops import operation
from openmaas.runtimes.gradients_shaping import ints

Pads = list[tuple[int, int]]


def _reduction(name: str, run: Any) -> None:
    @operation(name, static=(1,))
    def reduce(node: Any, xp: Any, array: Any, axes: Any) -> Any:
        along = tuple(axis % array.ndim for axis in ints(axes))
        return run(xp, array, axis=along, keepdims=bool(node.attributes["keep_dims"]))


_reduction("ReduceSum", lambda xp, a, **how: xp.sum(a, dtype=a.dtype, **how))
_reduction("ReduceMean", lambda xp, a, **how: xp.mean(a, **how).astype(a.dtype))
_reduction("ReduceMax", lambda xp, a, **how: xp.max(a, **how))
_reduction("ReduceMin", lambda xp, a, **how: xp.min(a, **how))
_reduction("ReduceProd", lambda xp, a, **how: xp.prod(a, dtype=a.dtype, **how))
_reduction("ReduceL1", lambda xp, a, **how: xp.sum(xp.abs(a), **how))
_reduction("ReduceL2", lambda xp, a, **how: xp.sqrt(xp.sum(xp.square(a), **how)))
_reduction("ReduceLogicalAnd", lambda xp, a, **how: xp.all(a, **how))
_reduction("ReduceLogicalOr", lambda xp, a, **how: xp.any(a, **how))


@operation("MatMul")
def _matmul(node: Any, xp: Any, left: Any, right: Any) -> Any:
    if node.attributes["transpose_a"] and left.ndim > 1:
        left = xp.swapaxes(left, -1, -2)
    if node.attributes["transpose_b"] and right.ndim > 1:
        right = xp.swapaxes(right, -1, -2)
    return xp.matmul(left, right)


@operation("Einsum")
def _einsum(node: Any, xp: Any, *arrays: Any) -> Any:
    return xp.einsum(node.attributes["equation"], *arrays)


@operation("BatchNormInference")
def _batch_norm(
    node: Any, xp: Any, array: Any, gamma: Any, beta: Any, mean: Any, variance: Any
) -> Any:
    if node.version == "opset1":  # the array came third then
        array, gamma, beta = beta, array, gamma
    shape = (1, -1, *(1,) * (array.ndim - 2))
    gamma, beta, mean, variance = (xp.reshape(one, shape) for one in (gamma, beta, mean, variance))
    epsilon = np.float32(node.attributes["epsilon"])
    return (array - mean) / xp.sqrt(variance + epsilon) * gamma + beta


@operation("MVN", static=(1,))
def _mvn(node: Any, xp: Any, array: Any, axes: Any = None) -> Any:
    if axes is None:
        across = node.attributes.get("across_channels", False)
        along = tuple(range(1 if across else 2, array.ndim))
    else:
        along = tuple(ints(axes))
    centred = array - xp.mean(array, axis=along, keepdims=True)
    if not node.attributes["normalize_variance"]:
        return centred
    variance = xp.mean(xp.square(centred), axis=along, keepdims=True)
    epsilon = np.float32(node.attributes["eps"])
    inside = str(node.attributes.get("eps_mode", "inside_sqrt")).lower() == "inside_sqrt"
    return centred / (xp.sqrt(variance + epsilon) if inside else xp.sqrt(variance) + epsilon)


@operation("NormalizeL2", static=(1,))
def _normalize_l2(node: Any, xp: Any, array: Any, axes: Any) -> Any:
    total = xp.sum(xp.square(array), axis=tuple(ints(axes)), keepdims=True)
    epsilon = np.float32(node.attributes["eps"])
    if str(node.attributes["eps_mode"]).lower() == "max":
        return array / xp.sqrt(xp.maximum(total, epsilon))
    return array / xp.sqrt(total + epsilon)


@operation("GroupNormalization")
def _group_norm(node: Any, xp: Any, array: Any, scale: Any, bias: Any) -> Any:
    groups = node.attributes["num_groups"]
    rows, channels = array.shape[:2]
    parts = xp.reshape(array, (rows, groups, -1))
    centred = parts - xp.mean(parts, axis=2, keepdims=True)
    variance = xp.mean(xp.square(centred), axis=2, keepdims=True)
    normed = centred / xp.sqrt(variance + np.float32(node.attributes["epsilon"]))
    shape = (1, channels, *(1,) * (array.ndim - 2))
    return xp.reshape(normed, array.shape) * xp.reshape(scale, shape) + xp.reshape(bias, shape)


@operation("LRN", static=(1,))
def _lrn(node: Any, xp: Any, array: Any, axes: Any) -> Any:
    if [axis % array.ndim for axis in ints(axes)] != [1]:
        raise ArtifactRefused(f"LRN {node.name!r} along other axes than channels")
    size = node.attributes["size"]
    before = (size - 1) // 2
    widths = [(0, 0), (before, size - 1 - before), *[(0, 0)] * (array.ndim - 2)]
    squares = xp.pad(xp.square(array), widths)
    count = array.shape[1]
    total = sum(squares[:, at : at + count] for at in range(size))
    alpha, beta, bias = (np.float32(node.attributes[name]) for name in ("alpha", "beta", "bias"))
    return array / xp.power(bias + alpha / size * total, beta)


@operation("ScaledDotProductAttention")
def _attention(
    node: Any, xp: Any, query: Any, key: Any, value: Any, mask: Any = None, scale: Any = None
) -> Any:
    """Vaswani et al. 2017, section 3.2.1; the mask is added, or says what may be attended to."""
    if scale is None:
        scale = np.float32(1 / math.sqrt(query.shape[-1]))
    logits = xp.matmul(query, xp.swapaxes(key, -1, -2)) * xp.reshape(scale, ())
    if node.attributes["causal"]:
        seen = np.tril(np.ones(logits.shape[-2:], bool))
        logits = xp.where(seen, logits, -np.inf)
    elif mask is not None:
        added = mask.dtype.kind == "f"
        logits = logits + mask if added else xp.where(mask, logits, -np.inf)
    powers = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return xp.matmul(powers / xp.sum(powers, axis=-1, keepdims=True), value)


# --- windows that slide ------------------------------------------------------------------


def _window_pads(node: Any, sides: Any, kernel: Any, strides: Any, dilations: Any) -> Pads:
    """Padding of each side, as ``auto_pad`` and ``rounding_type`` have it."""
    auto = str(node.attributes.get("auto_pad", "explicit")).lower()
    if auto == "valid":
        return [(0, 0) for _ in kernel]
    pads = []
    for size, width, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        small = total // 2
        pads.append((small, total - small) if auto == "same_upper" else (total - small, small))
    if auto.startswith("same"):
        return pads
    begins, ends = node.attributes["pads_begin"], node.attributes["pads_end"]
    return [(int(a), int(b)) for a, b in zip(begins, ends, strict=True)]


def _rounded_up(node: Any, sides: Any, kernel: Any, strides: Any, pads: Pads, dils: Any) -> Pads:
    """More padding at the end where the last window may hang over it."""
    kind = str(node.attributes.get("rounding_type", "floor")).lower()
    if not kind.startswith("ceil"):
        return pads
    made = []
    for size, width, stride, (a, b), dilation in zip(
        sides, kernel, strides, pads, dils, strict=True
    ):
        room = size + a + b - ((width - 1) * dilation + 1)
        windows = -(-room // stride) + 1
        if kind == "ceil_torch" and (windows - 1) * stride >= size + a:
            windows -= 1  # it would begin in the padding
        made.append((a, b + max(0, (windows - 1) * stride - room)))
    return made


@operation("Convolution", "GroupConvolution", jax_only=True)
def _convolution(node: Any, xp: Any, array: Any, kernel: Any) -> Any:
    from jax import lax

    strides, dilations = node.attributes["strides"], node.attributes["dilations"]
    groups = 1
    if node.kind == "GroupConvolution":  # [groups, out, in, …]
        groups = kernel.shape[0]
        kernel = xp.reshape(kernel, (-1, *kernel.shape[2:]))
    pads = _window_pads(node, array.shape[2:], kernel.shape[2:], strides, dilations)
    return lax.conv_general_dilated(
        array, kernel, strides, pads, rhs_dilation=dilations, feature_group_count=groups
    )


@operation("ConvolutionBackpropData", static=(2,), jax_only=True)
def _transposed_convolution(node: Any, xp: Any, array: Any, kernel: Any, shape: Any = None) -> Any:
    from jax import lax

    auto = str(node.attributes.get("auto_pad", "explicit")).lower()
    if shape is not None or auto.startswith("same"):
        raise ArtifactRefused(f"ConvolutionBackpropData {node.name!r} of a size that it is told")
    strides, dilations = node.attributes["strides"], node.attributes["dilations"]
    more = node.attributes.get("output_padding") or [0] * len(strides)
    pads = []
    begins, ends = node.attributes["pads_begin"], node.attributes["pads_end"]
    for at, width in enumerate(kernel.shape[2:]):
        reach = (width - 1) * dilations[at]
        a, b = (0, 0) if auto == "valid" else (begins[at], ends[at])
        pads.append((reach - a, reach - b + more[at]))
    turned = xp.flip(xp.swapaxes(kernel, 0, 1), tuple(range(2, kernel.ndim)))
    ones = [1] * len(strides)
    return lax.conv_general_dilated(
        array, turned, ones, pads, lhs_dilation=strides, rhs_dilation=dilations
    )


def _pooled(node: Any, array: Any, start: float, join: Any, pads: Pads) -> Any:
    from jax import lax

    count = array.ndim - 2
    dilations = node.attributes.get("dilations") or [1] * count
    return lax.reduce_window(
        array,
        np.float32(start),
        join,
        (1, 1, *node.attributes["kernel"]),
        (1, 1, *node.attributes["strides"]),
        [(0, 0), (0, 0), *pads],
        window_dilation=(1, 1, *dilations),
    )


def _pool_pads(node: Any, array: Any) -> tuple[Pads, Pads]:
    """Padding as it is told, and with what the last windows hang over."""
    kernel, strides = node.attributes["kernel"], node.attributes["strides"]
    dilations = node.attributes.get("dilations") or [1] * len(kernel)
    pads = _window_pads(node, array.shape[2:], kernel, strides, dilations)
    return pads, _rounded_up(node, array.shape[2:], kernel, strides, pads, dilations)


@operation("MaxPool", jax_only=True)
def _max_pool(node: Any, xp: Any, array: Any) -> Any:
    from jax import lax

    return _pooled(node, array, -np.inf, lax.max, _pool_pads(node, array)[1])


@operation("AvgPool", jax_only=True)
def _avg_pool(node: Any, xp: Any, array: Any) -> Any:
    from jax import lax

    told, pads = _pool_pads(node, array)
    total = _pooled(node, array, 0.0, lax.add, pads)
    # How many numbers a window holds: those of the image, or of its padding too.
    there = np.ones((1, 1, *array.shape[2:]), np.float32)
    if not node.attributes["exclude-pad"]:
        there = np.pad(there, [(0, 0), (0, 0), *told], constant_values=1)
        pads = [(a - c, b - d) for (a, b), (c, d) in zip(pads, told, strict=True)]
    return total / _pooled(node, xp.asarray(there), 0.0, lax.add, pads)


@operation("AdaptiveAvgPool", static=(1,))
def _adaptive_avg_pool(node: Any, xp: Any, array: Any, shape: Any) -> Any:
    for at, cells in enumerate(ints(shape), 2):
        size = array.shape[at]
        parts = []
        for cell in range(cells):
            window = [slice(None)] * array.ndim
            window[at] = slice(cell * size // cells, -(-(cell + 1) * size // cells))
            parts.append(xp.mean(array[tuple(window)], axis=at, keepdims=True))
        array = xp.concatenate(parts, axis=at)
    return array
