"""A row of numbers or columns whose parts can be taken away, as an ordinary network sees it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import ceil, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import EngineFailed, InvalidRequest
from openmaas.explaining.explanation import Feature, Unit
from openmaas.explaining.game import Masks, Shares, Values
from openmaas.inference import NUMPY, ModelInfo, Predict, Predicted, Tensor, TensorSpec
from openmaas.tasks.asking import Model

FEATURES = 1024  # of a row
PIXELS = 1 << 20  # numbers of a row
SUPERPIXELS = 64  # squares of a picture, about
LEAST_SIDE = 4  # of a picture
_FLOATS = ("FP16", "FP32", "FP64")
_LENGTH = struct.Struct("<I")


def picture(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Height, width and the axis of colours (−1: none) of a row that is a picture."""
    sides: dict[int, tuple[int, ...]] = {-1: shape}
    if len(shape) == 3:
        sides = {axis: shape[:axis] + shape[axis + 1 :] for axis in (2, 0) if shape[axis] <= 4}
    for axis, found in sides.items():
        if len(found) == 2 and min(found) >= LEAST_SIDE:
            return found[0], found[1], axis
    return None


def squares(height: int, width: int) -> NDArray[np.int64]:
    """[height, width]: of each pixel its square."""
    side = max(1, ceil(sqrt(height * width / SUPERPIXELS)))
    across = -(-width // side)
    rows, columns = np.arange(height) // side, np.arange(width) // side
    found: NDArray[np.int64] = rows[:, None] * across + columns
    return found


class Row:
    """One row in parts: a column each, a number each, or a square of pixels each.

    Args:
        given: the row; one of each input.
        baseline: the row that stands where a part is taken away.
        values: of columns, as their owner wrote them.
        image: height and width, where the only input is a picture that lies flat.

    Raises:
        InvalidRequest: more parts than can be explained, or no picture.
    """

    def __init__(
        self,
        given: Predict,
        baseline: Predict,
        info: ModelInfo,
        unit: Unit | None,
        *,
        values: dict[str, Any] | None = None,
        image: tuple[int, int] | None = None,
    ) -> None:
        self.columns = values if info.tabular else None
        self.names = [tensor.name for tensor in given.inputs]
        self._given = [_array(tensor) for tensor in given.inputs]
        self._baseline = [_array(tensor) for tensor in baseline.inputs]
        for one, other, name in zip(self._given, self._baseline, self.names, strict=True):
            if one.shape != other.shape:
                raise InvalidRequest(
                    f"the baseline of {name!r} has the shape {list(other.shape)}, the input "
                    f"{list(one.shape)}",
                    param="baseline",
                )
        self._kinds = [(one.name, one.datatype) for one in given.inputs]
        if sum(one.size for one in self._given) > PIXELS:
            raise InvalidRequest(f"a row of up to {PIXELS} numbers can be explained", param="input")
        self.shape = _shape(self._given, image)
        self.unit, self._segments = self._cut(unit)
        self.parts = 1 + max(int(one.max(initial=-1)) for one in self._segments)
        if not 1 <= self.parts <= FEATURES:
            raise InvalidRequest(
                f"the row has {self.parts} features; from 1 to {FEATURES} can be explained one by "
                "one" + ("" if self.shape is None else "; or take the unit superpixel"),
                param="unit",
            )

    def _cut(self, unit: Unit | None) -> tuple[Unit, list[NDArray[np.int64]]]:
        seen = None if self.shape is None else picture(self.shape)
        many = sum(one.size for one in self._given) > 2 * SUPERPIXELS
        if unit == "superpixel" or (unit is None and seen is not None and many):
            if seen is None:
                raise InvalidRequest(
                    "super-pixels are of pictures: the row has no height and width; where it is a "
                    "picture that lies flat, say image: [height, width]",
                    param="unit",
                )
            height, width, axis = seen
            cells = squares(height, width)
            if axis >= 0:
                cells = np.broadcast_to(np.expand_dims(cells, axis), self.shape or ())
            return "superpixel", [cells.reshape(self._given[0].shape)]
        found, count = [], 0
        for one in self._given:
            found.append(np.arange(count, count + one.size).reshape(one.shape))
            count += one.size
        return "feature", found

    def never_missing(self, column: str) -> bool:
        """Zero stands in for a column none of whose values may be missing; whether that is new."""
        at = self.names.index(column) if column in self.names else -1
        if at < 0 or self._kinds[at][1] not in _FLOATS or not np.isnan(self._baseline[at]).any():
            return False
        self._baseline[at] = np.zeros_like(self._baseline[at])
        return True

    def batch(self, masks: Masks) -> list[Tensor]:
        """A row for each of the masks [rows, parts]."""
        made = []
        for (name, datatype), one, other, parts in zip(
            self._kinds, self._given, self._baseline, self._segments, strict=True
        ):
            rows = np.where(masks[:, parts], one[None], other[None])
            data = rows.tobytes() if datatype != "BYTES" else b"".join(map(_element, rows.flat))
            made.append(Tensor(name=name, datatype=datatype, shape=[*rows.shape], data=data))
        return made

    def spread(self, shares: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Of each input an array of its shape: a square's share in equal parts to its pixels."""
        sizes = np.zeros(self.parts)
        for parts in self._segments:
            np.add.at(sizes, parts, 1)
        return [(shares / sizes)[parts] for parts in self._segments]

    def told(self, arrays: list[NDArray[np.float64]]) -> Any:
        """Nested lists in the input's shape; by the input's name, where there are several."""
        if self.shape is not None and len(arrays) == 1:
            return arrays[0].reshape(self.shape).tolist()
        if len(arrays) == 1:
            return arrays[0].tolist()
        return {name: one.tolist() for name, one in zip(self.names, arrays, strict=True)}

    def features(self, shares: Shares, output: int) -> list[Feature]:
        """Of columns: each with its value."""
        assert self.columns is not None, "asked of columns only"
        low, high = shares.low, shares.high
        return [
            Feature(
                name=name,
                value=self.columns.get(name),
                attribution=float(shares.values[at, output]),
                low=None if low is None else float(low[at, output]),
                high=None if high is None else float(high[at, output]),
            )
            for at, name in enumerate(self.names)
        ]


class RowQuestion:
    """Why a network answers a row as it does. A ``questions.Question``."""

    def __init__(self, model: Model, row: Row, output: str | None) -> None:
        self.unit: Unit = row.unit
        self.parts = row.parts
        self.row = row
        self.outputs: list[tuple[list[int], str]] = []
        self._model = model
        self._spec = _output(model.info, output)

    @property
    def output(self) -> str:
        """The output's name."""
        return self._spec.name

    async def choose(self, target: str | int | list[int] | None, most: int) -> None:
        """Settles which numbers are explained: the one that is named, else the greatest.

        Raises:
            InvalidRequest: no such label or number.
        """
        await self._settle_baseline()
        everything = np.ones((1, self.parts), np.bool_)
        answer = (await self._ask(everything))[0]
        labels = self._model.info.labels
        named = labels if answer.ndim == 1 and len(labels) == answer.size else []
        if isinstance(target, str):
            if target not in named:
                known = ", ".join(named[:50]) or "none: name a number by its place"
                raise InvalidRequest(f"no label {target!r}; there are: {known}", param="target")
            chosen: list[tuple[int, ...]] = [(named.index(target),)]
        elif target is not None:
            place = (target,) if isinstance(target, int) else tuple(target)
            if len(place) != answer.ndim or not all(
                0 <= at < size for at, size in zip(place, answer.shape, strict=True)
            ):
                raise InvalidRequest(
                    f"target {target} is no place in {self._spec.name!r}, whose row has the shape "
                    f"{list(answer.shape)}",
                    param="target",
                )
            chosen = [place]
        else:
            order = (-answer.reshape(-1)).argsort(kind="stable")[:most]
            chosen = [tuple(map(int, np.unravel_index(at, answer.shape))) for at in order]
        self.outputs = [
            ([*place], named[place[0]] if named else _place_name(self._spec.name, place))
            for place in chosen
        ]

    async def play(self, masks: Masks) -> Values:
        rows = await self._ask(masks)
        flat = rows.reshape(len(rows), -1)
        places = [np.ravel_multi_index(index, rows.shape[1:]) for index, _ in self.outputs]
        return flat[:, places]

    def told(self, shares: Shares, output: int) -> Any:
        """Attributions of one output, for people."""
        if self.row.columns is not None:
            return self.row.features(shares, output)
        return self.row.told(self.row.spread(shares.values[:, output]))

    async def _settle_baseline(self) -> None:
        """Which columns may be missing is known by whoever serves them."""
        if self.row.columns is None:
            return
        nothing = np.zeros((1, self.parts), np.bool_)
        while True:
            try:
                await self._ask(nothing)
                return
            except InvalidRequest as error:
                if error.param is None or not self.row.never_missing(error.param):
                    raise

    async def _ask(self, masks: Masks) -> Values:
        request = Predict(inputs=self.row.batch(masks), outputs=[self._spec.name])
        answer = await self._model.ask(request)
        assert isinstance(answer, Predicted)
        (tensor,) = answer.outputs
        rows = np.frombuffer(tensor.data, NUMPY[tensor.datatype]).reshape(tensor.shape)
        if len(rows) != len(masks):
            raise EngineFailed(f"output {tensor.name!r} does not have a row per row of the input")
        return rows.astype(np.float64)


def empty(specs: list[TensorSpec], given: Predict, *, tabular: bool) -> Predict:
    """The baseline where none is given: zeros, and of columns values that are missing."""
    made = []
    for spec, tensor in zip(specs, given.inputs, strict=True):
        if spec.datatype == "BYTES":
            data = _LENGTH.pack(0) * prod(tensor.shape)
        else:
            value = np.nan if tabular and spec.datatype in _FLOATS else 0
            data = np.full(tensor.shape, value, NUMPY[spec.datatype]).tobytes()
        made.append(Tensor(name=tensor.name, datatype=spec.datatype, shape=tensor.shape, data=data))
    return Predict(inputs=made)


def laid_out(row: Any, image: Sequence[int] | None) -> Any:
    """A picture that lay flat, as nested lists: height × width, × colours if there are several."""
    if image is None or not isinstance(row, list):
        return row
    array = np.asarray(row)
    colours = array.size // (image[0] * image[1])
    return array.reshape([*image, *([colours] if colours > 1 else [])]).tolist()


def _output(info: ModelInfo, wanted: str | None) -> TensorSpec:
    numbers = [spec for spec in info.outputs if spec.datatype in _FLOATS]
    for spec in numbers:
        if wanted in (None, spec.name) and (wanted is not None or len(numbers) == 1):
            return spec
    names = ", ".join(spec.name for spec in numbers) or "none"
    raise InvalidRequest(
        f"say which output is to be explained; those of numbers are: {names}", param="output"
    )


def _shape(given: list[NDArray[Any]], image: tuple[int, int] | None) -> tuple[int, ...] | None:
    """Of the only input's row; None: there are several."""
    if len(given) != 1:
        if image is not None:
            raise InvalidRequest("image is of networks with a single input", param="image")
        return None
    shape = given[0].shape
    if image is None:
        return shape
    colours = given[0].size / (image[0] * image[1])
    if colours not in (1, 3, 4):
        raise InvalidRequest(
            f"a row of {given[0].size} numbers is no picture of {image[0]} × {image[1]}",
            param="image",
        )
    return image if colours == 1 else (*image, int(colours))


def _array(tensor: Tensor) -> NDArray[Any]:
    """Its only row."""
    if not tensor.shape or tensor.shape[0] != 1:
        raise InvalidRequest("one row is explained at a time", param="input")
    if tensor.datatype != "BYTES":
        row: NDArray[Any] = np.frombuffer(tensor.data, NUMPY[tensor.datatype])
        return row.reshape(tensor.shape[1:])
    texts, at = [], 0
    while at < len(tensor.data):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(tensor.data, at)[0]
        texts.append(tensor.data[start:at])
    made = np.empty(len(texts), object)
    made[:] = texts
    return made.reshape(tensor.shape[1:])


def _element(text: bytes) -> bytes:
    return _LENGTH.pack(len(text)) + text


def _place_name(output: str, place: tuple[int, ...]) -> str:
    return output + "".join(f"[{at}]" for at in place)
