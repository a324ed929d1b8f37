"""Operations for the interpreter of ``gradients_graph`` that move numbers about; see
``gradients_ops``."""

from __future__ import annotations

from typing import Any

import numpy as np

from openmaas.errors import ArtifactRefused
from openmaas.runtimes.gradients_ops import DTYPES, operation


def ints(array: Any) -> list[int]:
    return [int(one) for one in np.asarray(array).reshape(-1)]


@operation("Reshape", static=(1,))
def _reshape(node: Any, xp: Any, array: Any, shape: Any) -> Any:
    sizes = ints(shape)
    if node.attributes["special_zero"]:
        sizes = [array.shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    return xp.reshape(array, sizes)


@operation("Squeeze", static=(1,))
def _squeeze(node: Any, xp: Any, array: Any, axes: Any = None) -> Any:
    if axes is None:
        return xp.squeeze(array)
    wanted = {axis % max(1, array.ndim) for axis in ints(axes)}
    return xp.squeeze(array, axis=tuple(axis for axis in wanted if array.shape[axis] == 1))


@operation("Unsqueeze", static=(1,))
def _unsqueeze(node: Any, xp: Any, array: Any, axes: Any) -> Any:
    return xp.expand_dims(array, tuple(ints(axes)))


@operation("Transpose", static=(1,))
def _transpose(node: Any, xp: Any, array: Any, order: Any = None) -> Any:
    axes = ints(order) if order is not None else []
    return xp.transpose(array, axes or None)


@operation("Concat")
def _concat(node: Any, xp: Any, *arrays: Any) -> Any:
    return xp.concatenate(arrays, axis=node.attributes["axis"])


@operation("Split", static=(1,))
def _split(node: Any, xp: Any, array: Any, axis: Any) -> Any:
    return list(xp.split(array, node.attributes["num_splits"], axis=ints(axis)[0]))


@operation("VariadicSplit", static=(1, 2))
def _variadic_split(node: Any, xp: Any, array: Any, axis: Any, lengths: Any) -> Any:
    (at,) = ints(axis)
    sizes = ints(lengths)
    rest = array.shape[at] - sum(size for size in sizes if size >= 0)
    ends = np.cumsum([rest if size < 0 else size for size in sizes])[:-1]
    return list(xp.split(array, ends.tolist(), axis=at))


@operation("Slice", static=(1, 2, 3, 4))
def _slice(
    node: Any, xp: Any, array: Any, start: Any, stop: Any, step: Any, axes: Any = None
) -> Any:
    begins, ends, steps = ints(start), ints(stop), ints(step)
    places = ints(axes) if axes is not None else range(len(begins))
    chosen = [slice(None)] * array.ndim
    for axis, begin, end, by in zip(places, begins, ends, steps, strict=True):
        chosen[axis] = _bounds(begin, end, by, array.shape[axis])
    return array[tuple(chosen)]


def _bounds(begin: int, end: int, by: int, size: int) -> slice:
    """Python's, of bounds that may lie beyond an end: backwards, before the first is None."""
    begin, end = (one + size if one < 0 else one for one in (begin, end))
    if by < 0:
        return slice(min(begin, size - 1), None if end < 0 else end, by)
    return slice(max(begin, 0), max(end, 0), by)


@operation("StridedSlice", static=(1, 2, 3))
def _strided_slice(
    node: Any, xp: Any, array: Any, begin: Any, end: Any, strides: Any = None
) -> Any:
    begins, ends = ints(begin), ints(end)
    steps = ints(strides) if strides is not None else [1] * len(begins)

    def masked(name: str, at: int) -> bool:
        mask = node.attributes.get(name) or []
        return at < len(mask) and bool(mask[at])

    chosen: list[Any] = []
    for at, (first, last, by) in enumerate(zip(begins, ends, steps, strict=True)):
        if masked("ellipsis_mask", at):
            chosen.append(Ellipsis)
        elif masked("new_axis_mask", at):
            chosen.append(None)
        elif masked("shrink_axis_mask", at):
            chosen.append(first)
        else:
            low = None if masked("begin_mask", at) else first
            chosen.append(slice(low, None if masked("end_mask", at) else last, by))
    return array[tuple(chosen)]


@operation("Gather", static=(2,))
def _gather(node: Any, xp: Any, array: Any, at: Any, axis: Any) -> Any:
    (along,) = ints(axis)
    batch = node.attributes.get("batch_dims", 0)
    along %= array.ndim
    batch = batch + at.ndim if batch < 0 else batch
    at = xp.where(at < 0, at + array.shape[along], at)
    if batch == 0:
        # Two dimensions or none: JAX then has one row read at a time, not one number.
        return array[(slice(None),) * along + (at,)]
    if along != batch:
        raise ArtifactRefused(f"Gather {node.name!r} in batches along a further axis")
    grid = [
        np.arange(array.shape[one]).reshape([-1 if k == one else 1 for k in range(at.ndim)])
        for one in range(batch)
    ]
    return array[(*grid, at)]


@operation("GatherElements")
def _gather_elements(node: Any, xp: Any, array: Any, at: Any) -> Any:
    axis = node.attributes["axis"]
    at = xp.where(at < 0, at + array.shape[axis], at)
    return xp.take_along_axis(array, at, axis=axis)


@operation("GatherND")
def _gather_nd(node: Any, xp: Any, array: Any, at: Any) -> Any:
    if node.attributes.get("batch_dims", 0):
        raise ArtifactRefused(f"GatherND {node.name!r} in batches")
    return array[tuple(at[..., one] for one in range(at.shape[-1]))]


@operation("ScatterUpdate", static=(1, 3))
def _scatter_update(node: Any, xp: Any, array: Any, at: Any, new: Any, axis: Any) -> Any:
    places = (slice(None),) * (ints(axis)[0] % array.ndim) + (np.asarray(at),)
    return _written(xp, array, places, new)


@operation("ScatterNDUpdate", static=(1,))
def _scatter_nd_update(node: Any, xp: Any, array: Any, at: Any, new: Any) -> Any:
    at = np.asarray(at)
    return _written(xp, array, tuple(at[..., one] for one in range(at.shape[-1])), new)


def _written(xp: Any, array: Any, places: Any, new: Any) -> Any:
    if xp is np:
        array = array.copy()
        array[places] = new
        return array
    return xp.asarray(array).at[places].set(new)


@operation("Pad", static=(1, 2, 3))
def _pad(node: Any, xp: Any, array: Any, begin: Any, end: Any, value: Any = None) -> Any:
    mode = str(node.attributes.get("pad_mode", "constant")).lower()
    widths = list(zip(ints(begin), ints(end), strict=True))
    if any(side < 0 for pair in widths for side in pair):
        cut = [
            slice(max(0, -a), size - max(0, -b))
            for (a, b), size in zip(widths, array.shape, strict=True)
        ]
        array = array[tuple(cut)]
        widths = [(max(0, a), max(0, b)) for a, b in widths]
    if mode == "constant":
        fill = np.asarray(0 if value is None else value).astype(array.dtype)
        return xp.pad(array, widths, constant_values=fill)
    return xp.pad(array, widths, mode={"edge": "edge", "reflect": "reflect"}.get(mode, mode))


@operation("Broadcast", static=(1, 2))
def _broadcast(node: Any, xp: Any, array: Any, shape: Any, axes: Any = None) -> Any:
    sizes = ints(shape)
    mode = str(node.attributes.get("mode", "numpy")).lower()
    if mode == "bidirectional":
        return xp.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(sizes)))
    if mode == "explicit" and axes is not None:
        places = ints(axes)
        array = xp.reshape(
            array,
            [array.shape[places.index(at)] if at in places else 1 for at in range(len(sizes))],
        )
    return xp.broadcast_to(array, sizes)


@operation("Tile", static=(1,))
def _tile(node: Any, xp: Any, array: Any, repeats: Any) -> Any:
    return xp.tile(array, ints(repeats))


@operation("Range", static=(0, 1, 2))
def _range(node: Any, xp: Any, start: Any, stop: Any, step: Any) -> Any:
    first, last, by = (np.asarray(one).item() for one in (start, stop, step))
    return np.arange(first, last, by).astype(DTYPES[node.types[0]])


@operation("NonZero", static=(0,))
def _non_zero(node: Any, xp: Any, array: Any) -> Any:
    """[rank, places], in order. With ``padded`` as many places as there are numbers, of which the
    last true one is repeated: its size then says nothing about the values."""
    found = np.stack(np.nonzero(array)).astype(DTYPES[node.types[0]])
    if not node.attributes.get("padded"):
        return found
    last = found[:, -1:] if found.shape[1] else np.zeros((array.ndim, 1), found.dtype)
    return np.concatenate([found, np.repeat(last, array.size - found.shape[1], axis=1)], axis=1)


@operation("CumSum", static=(1,))
def _cumsum(node: Any, xp: Any, array: Any, axis: Any) -> Any:
    (along,) = ints(axis)
    if node.attributes["reverse"]:
        array = xp.flip(array, along)
    total = xp.cumsum(array, axis=along, dtype=array.dtype)
    if node.attributes["exclusive"]:
        total = total - array
    return xp.flip(total, along) if node.attributes["reverse"] else total


@operation("OneHot", static=(1,))
def _one_hot(node: Any, xp: Any, at: Any, depth: Any, on: Any, off: Any) -> Any:
    axis, count = node.attributes["axis"], ints(depth)[0]
    places = np.arange(count)
    hit = xp.expand_dims(at, -1) == places
    return xp.moveaxis(xp.where(hit, on, off), -1, axis)


@operation("ReverseSequence", static=(1,))
def _reverse_sequence(node: Any, xp: Any, array: Any, lengths: Any) -> Any:
    batch, time = node.attributes["batch_axis"], node.attributes["seq_axis"]
    batch, time = batch % array.ndim, time % array.ndim
    steps = np.arange(array.shape[time])
    counts = np.asarray(lengths).reshape(-1, 1)
    order = np.where(steps < counts, counts - 1 - steps, steps)  # [batch, time]
    if batch > time:
        order = order.T
    sides = [array.shape[one] if one in (batch, time) else 1 for one in range(array.ndim)]
    at = np.broadcast_to(order.reshape(sides), array.shape)
    return xp.take_along_axis(array, at, axis=time)


@operation("DepthToSpace", "SpaceToDepth")
def _depth(node: Any, xp: Any, array: Any) -> Any:
    size = node.attributes["block_size"]
    rows, channels, *sides = array.shape
    first = str(node.attributes["mode"]).lower() == "blocks_first"
    blocks, count = (size,) * len(sides), len(sides)
    if node.kind == "DepthToSpace":
        inner = channels // size**count
        split = (rows, *blocks, inner, *sides) if first else (rows, inner, *blocks, *sides)
        at = 1 if first else 2  # where the blocks' axes begin
        rest = count + 1 if first else 1
        order = [0, rest]
        for one in range(count):
            order += [count + 2 + one, at + one]
        merged = [side * size for side in sides]
        return xp.reshape(xp.transpose(xp.reshape(array, split), order), (rows, inner, *merged))
    pairs = [part for side in sides for part in (side // size, size)]
    insides, outsides = ([3 + 2 * k for k in range(count)], [2 + 2 * k for k in range(count)])
    order = [0, *insides, 1, *outsides] if first else [0, 1, *insides, *outsides]
    moved = xp.transpose(xp.reshape(array, (rows, channels, *pairs)), order)
    return xp.reshape(moved, (rows, channels * size**count, *(side // size for side in sides)))


@operation("TopK", static=(1,))
def _top_k(node: Any, xp: Any, array: Any, count: Any) -> Any:
    axis = node.attributes["axis"]
    most = str(node.attributes["mode"]).lower() == "max"
    order = xp.argsort(-array if most else array, axis=axis)
    chosen = xp.take(order, np.arange(ints(count)[0]), axis=axis)
    return [xp.take_along_axis(array, chosen, axis=axis), chosen]


@operation("ShapeOf", "ShapeOfReshape")
def _shape_of(node: Any, xp: Any, array: Any) -> Any:
    return np.array(array.shape, DTYPES[node.types[0]])
