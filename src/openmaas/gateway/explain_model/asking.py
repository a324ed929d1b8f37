"""A deployed model as explanations of whole models ask it: arrays of rows in, numbers out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import EngineFailed, InvalidRequest
from openmaas.explaining.behaviour.importance import Outputs
from openmaas.gateway import tensors
from openmaas.inference import ModelInfo, Predict, Predicted, Tensor, TensorSpec
from openmaas.tasks.classify import classify, document_vectors
from openmaas.training.sampling import Reads

if TYPE_CHECKING:
    from openmaas.serving.asking import Asking

TEXTS = 64  # of one call
ROWS = 1024  # of one call, if they are small
CALL_BYTES = 4 << 20
TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip

Array = NDArray[Any]


class Form(NamedTuple):
    """How a model is asked about rows."""

    reads: Reads
    ports: list[TensorSpec]  # of a network: its inputs …
    output: TensorSpec | None  # … and the one output that is judged
    width: int  # numbers that it answers for a row
    labels: list[str] | None  # None: it has none, or nothing says which
    classes: bool | None  # what is true is a label; None: if the data look like it

    @property
    def row_bytes(self) -> int:
        """Of one row that a network takes."""
        return 4 * sum(max(1, math.prod(map(abs, port.shape[1:]))) for port in self.ports)


def explainable(info: ModelInfo) -> int | None:
    """Has the form of an order in ``ranking``."""
    return 0 if info.task in ("classify", "predict") else None


def form(info: ModelInfo, trained_labels: Sequence[str]) -> Form:
    """
    Args:
        trained_labels: that the version's card names; none where it has none.

    Raises:
        InvalidRequest: nothing can be said of such a model by rows of a data set.
    """
    if info.task == "classify":
        if info.pairs or info.multi_label:
            what = "compares two texts" if info.pairs else "has labels that exclude one another not"
            raise InvalidRequest(f"this model {what}; rows cannot judge it", param="model")
        return Form("texts", [], None, len(info.labels), info.labels, True)
    found = [one for one in info.outputs if one.datatype in TYPES]
    shapes = [one.shape[1:] for one in found]
    if len(found) != 1 or len(shapes[0]) > 1 or min(shapes[0], default=1) < 1:
        raise InvalidRequest(
            f"this model's outputs of numbers are {shapes} for a row; one list, of a number or of "
            "one for each label, is what rows can judge",
            param="model",
        )
    width = shapes[0][0] if shapes[0] else 1
    labels = list(info.labels or trained_labels)
    if labels and width not in (len(labels), 1 if len(labels) == 2 else 0):
        labels = []
    classes = True if labels else (False if width == 1 else None)
    reads: Reads = "columns" if info.tabular else "arrays"
    return Form(reads, list(info.inputs), found[0], width, labels or None, classes)


class Answers:
    """What ``explaining`` calls ``predict``. ``passes`` counts rows and texts that went through a
    model so far."""

    def __init__(self, model: Asking, how: Form) -> None:
        self.passes = 0
        self._model = model
        self._how = how
        self._kept: dict[int, Array] = {}  # by id: arrays whose tensors are used again
        self._tensors: dict[tuple[int, int], Tensor] = {}

    def keep(self, blocks: Sequence[Array]) -> None:
        """These will be part of many calls. A ticket remembers its calls until it ends, so that
        without this each of them would hold a copy."""
        self._kept = {id(block): block for block in blocks}

    async def __call__(self, inputs: Sequence[Array]) -> Outputs:
        """
        Args:
            inputs: an array for each input, whose first dimension is the row; texts alone for a
                model that reads texts.

        Returns:
            ``[rows, numbers]``.

        Raises:
            OpenMaaSError: the model could not answer.
        """
        if self._how.reads == "texts":
            return await self._of_texts(inputs[0].tolist())
        rows = max(1, min(ROWS, CALL_BYTES // self._how.row_bytes))
        found = []
        for start in range(0, len(inputs[0]), rows):
            request = await asyncio.to_thread(self._request, inputs, start, start + rows)
            answer = await self._model.ask(request)
            assert isinstance(answer, Predicted)
            found.append(self._numbers(answer, request.rows))
            self.passes += request.rows
        return np.concatenate(found)

    async def vectors(self, model: Asking, texts: list[str]) -> Outputs:
        """Unit vectors of texts by an embedding model."""
        found = []
        for start in range(0, len(texts), TEXTS):
            part = texts[start : start + TEXTS]
            found.append(np.asarray(await document_vectors(model, part), np.float64))
            self.passes += len(part)
        return np.concatenate(found)

    async def _of_texts(self, texts: list[str]) -> Outputs:
        found = []
        for start in range(0, len(texts), TEXTS):
            part = texts[start : start + TEXTS]
            _, shares = await classify(self._model, part, None)
            found.append(shares)
            self.passes += len(part)
        return np.concatenate(found)

    def _request(self, inputs: Sequence[Array], start: int, stop: int) -> Predict:
        made = [
            self._tensor(port, block, start, stop)
            for port, block in zip(self._how.ports, inputs, strict=True)
        ]
        assert self._how.output is not None
        return Predict(inputs=made, outputs=[self._how.output.name])

    def _tensor(self, port: TensorSpec, block: Array, start: int, stop: int) -> Tensor:
        key = id(block), start
        if id(block) not in self._kept:
            return _tensor(port, block[start:stop])
        if key not in self._tensors:
            self._tensors[key] = _tensor(port, block[start:stop])
        return self._tensors[key]

    def _numbers(self, answer: Predicted, rows: int) -> Outputs:
        (tensor,) = answer.outputs
        values = np.frombuffer(tensor.data, TYPES[tensor.datatype])
        if len(values) != rows * self._how.width:
            raise EngineFailed(f"the model answered {tensor.shape} for {rows} rows")
        return values.astype(np.float64).reshape(rows, self._how.width)


def _tensor(port: TensorSpec, block: Array) -> Tensor:
    """
    Raises:
        InvalidRequest: a number is missing where none may be.
    """
    if port.datatype == "BYTES":
        data = tensors.pack(port.name, "BYTES", block.tolist())
        return Tensor(name=port.name, datatype="BYTES", shape=[len(block), 1], data=data)
    if port.datatype not in TYPES:
        raise InvalidRequest(f"input {port.name!r} takes {port.datatype}", param="model")
    if not port.datatype.startswith("FP") and not np.isfinite(block).all():
        raise InvalidRequest(f"{port.name!r}: a number is missing", param="dataset")
    own = port.shape[1:]
    shape = [len(block), *block.shape[1:]]
    if -1 not in own and math.prod(own) == math.prod(block.shape[1:]):
        shape = [len(block), *own]
    data = np.ascontiguousarray(block, TYPES[port.datatype]).tobytes()
    return Tensor(name=port.name, datatype=port.datatype, shape=shape, data=data)
