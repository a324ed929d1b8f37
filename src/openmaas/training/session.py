"""A session inside its process: from calls with tensors to the network, and back."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import Conflict, InvalidRequest
from openmaas.inference import Tensor, TensorSpec
from openmaas.training import session_frames as frames
from openmaas.training.session_checkpoints import At, Checkpoints
from openmaas.training.session_frames import Batch, Opened
from openmaas.training.session_network import Rows, SessionNetwork
from openmaas.training.session_source import Source, open_source
from openmaas.training.session_task import CHECKPOINTS, EXPORT, TASK, SessionTask

Array = NDArray[Any]
Result = tuple[dict[str, Any], list[Tensor]]
KEPT_ROWS = 64  # of the last batch, with which a version is verified
_TYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16",
    "float32": "FP32", "float64": "FP64",
}  # fmt: skip
_DTYPES = {datatype: np.dtype(dtype).newbyteorder("<") for dtype, datatype in _TYPES.items()}


class Session:
    """Runs calls on one network."""

    def __init__(self, folder: Path, task: SessionTask, source: Source) -> None:
        self._folder = folder
        self._task = task
        self._source = source
        self._network = SessionNetwork(source.model, source.optimizer, source.loss)
        self._private = _private(source, self._network, task, folder)
        self._checkpoints = Checkpoints(folder / CHECKPOINTS)
        self._seen: list[Array] = []  # rows for the verification of a version
        self._sequence = 1
        if task.checkpoint is not None:
            self._sequence = self._load(task.checkpoint).sequence

    @classmethod
    def open(cls, folder: Path) -> Session:
        """
        Raises:
            InvalidRequest, ArtifactRefused: the network, its loss or its data do not fit.
        """
        task = msgspec.json.decode((folder / TASK).read_bytes(), type=SessionTask)
        return cls(folder, task, open_source(task, folder))

    @property
    def step(self) -> int:
        return self._network.step

    def opened(self) -> Opened:
        weights = self._network.tensors("weights")
        trainable = self._network.state.trainable
        return Opened(
            inputs=[_port(name, shape, dtype) for name, shape, dtype in self._source.inputs],
            outputs=[
                _port(one._keras_history.operation.name, one.shape, one.dtype)
                for one in self._source.model.outputs
            ],
            parameters=sum(math.prod(one.shape) for one in trainable),
            weights=[_port(name, one.shape, one.dtype.name) for name, one in weights.items()],
            libraries={
                "python": platform.python_version(),
                **{name: version(name) for name in ("keras", "jax", "numpy")},
            },
            step=self.step,
            sequence=self._sequence,
            rate=None if self._private is None else self._private.mechanism.rate,
            noise_multiplier=None
            if self._private is None
            else self._private.mechanism.noise_multiplier,
        )

    def run(self, call: frames.Call) -> Result:
        """
        Raises:
            InvalidRequest, Conflict, NotFound, TrainingFailed, StorageFull
        """
        if isinstance(call, frames.ForwardBackward):
            return self._forward_backward(call)
        if isinstance(call, frames.OptimStep):
            norm = self._network.optim_step(call.learning_rate, call.clip_norm)
            return {"gradient_norm": _number(norm)}, []
        if isinstance(call, frames.Forward):
            return self._forward(call)
        if isinstance(call, frames.Predict):
            return self._predict(call)
        if isinstance(call, frames.Weights):
            return {}, self._told(self._network.tensors("weights", call.names))
        if isinstance(call, frames.Gradients):
            return {}, self._told(self._network.tensors("gradients", call.names))
        if isinstance(call, frames.Save):
            self._save(call)
            return {"name": call.name, "names": self._checkpoints.names()}, []
        if isinstance(call, frames.Load):
            at = self._load(call.name)
            return {"name": call.name, "from_step": at.step}, []
        if isinstance(call, frames.Spoiled):
            raise InvalidRequest(call.message, param=call.param)
        return self._export(), []

    # --- the three steps ---------------------------------------------------------------------

    def _predict(self, call: frames.Predict) -> Result:
        batch = self._rows(call.batch, targets=False)
        outputs = self._network.predict(batch)
        self._remember(batch)
        return {}, self._told({"outputs": outputs})

    def _forward(self, call: frames.Forward) -> Result:
        batch = self._rows(call.batch)
        outputs, loss, each = self._network.forward(batch)
        self._remember(batch)
        tensors = self._told({"outputs": outputs} if call.outputs else {})
        return {"loss": loss, "per_example": each.tolist()}, tensors

    def _forward_backward(self, call: frames.ForwardBackward) -> Result:
        if self._private is not None:
            learned = self._private.forward_backward(call)
            norms = {name: _number(norm) for name, norm in learned.norms.items()}
            return {"loss": None, "gradient_norms": norms, "rows": learned.rows}, []
        if call.batch.empty:
            raise InvalidRequest("say either inputs or rows", param="inputs")
        batch = self._rows(call.batch)
        learned = self._network.forward_backward(batch)
        self._remember(batch)
        norms = {name: _number(norm) for name, norm in learned.norms.items()}
        found = {"loss": learned.loss, "gradient_norms": norms, "rows": learned.rows}
        if call.per_example:
            found["per_example"] = np.asarray(learned.per_example).tolist()
        return found, []

    def _remember(self, batch: Rows) -> None:
        self._seen = [one[:KEPT_ROWS] for one in batch.inputs]

    # --- tensors -----------------------------------------------------------------------------

    def _rows(self, batch: Batch, *, targets: bool = True) -> Rows:
        if batch.rows is not None:
            if self._private is not None:
                raise InvalidRequest(
                    "in a private session nothing is told of single rows of the data set: give "
                    "inputs (and targets) of your own",
                    param="rows",
                )
            inputs, wanted = self._source.of_rows(batch.rows)
            weights = self._weights(batch, len(inputs[0]))
            return Rows(inputs, wanted if targets else None, weights)
        inputs = self._inputs(batch.inputs)
        if not targets:
            if batch.targets is not None or batch.weights is not None:
                raise InvalidRequest("predict takes no targets", param="targets")
            return Rows(inputs)
        if batch.targets is None:
            raise InvalidRequest("targets are missing", param="targets")
        wanted = _array(batch.targets)
        if not wanted.ndim or len(wanted) != len(inputs[0]):
            raise InvalidRequest(
                f"there are {len(inputs[0])} rows of inputs, and targets of shape "
                f"{list(wanted.shape)}",
                param="targets",
            )
        return Rows(inputs, wanted, self._weights(batch, len(inputs[0])))

    def _inputs(self, tensors: Sequence[Tensor]) -> list[Array]:
        ports = self._source.inputs
        told = ", ".join(f"{name} {_sides(shape)}" for name, shape, _ in ports)
        if len(tensors) != len(ports):
            raise InvalidRequest(
                f"{len(tensors)} inputs are given, the network has: {told}", param="inputs"
            )
        by_name: Mapping[str, Tensor] = {one.name: one for one in tensors if one.name}
        found: list[Array] = []
        for index, (name, shape, dtype) in enumerate(ports):
            tensor = by_name.get(name, tensors[index] if not by_name else None)
            if tensor is None:
                raise InvalidRequest(f"input {name!r} is missing; there are: {told}", param=name)
            array = _array(tensor)
            if array.ndim != len(shape) or any(
                side is not None and side != one
                for side, one in zip(shape[1:], array.shape[1:], strict=True)
            ):
                raise InvalidRequest(
                    f"input {name!r} is of shape {list(array.shape)}; the network takes "
                    f"{_sides(shape)}",
                    param="inputs",
                )
            if not len(array):
                raise InvalidRequest("a batch has one row at least", param="inputs")
            if found and len(array) != len(found[0]):
                raise InvalidRequest("inputs differ in their number of rows", param="inputs")
            found.append(array.astype(dtype, copy=False))
        return found

    def _weights(self, batch: Batch, rows: int) -> Array | None:
        if batch.weights is None:
            return None
        found = _array(batch.weights)
        if found.shape != (rows,):
            raise InvalidRequest(
                f"weights are one number a row, {rows}; theirs is shape {list(found.shape)}",
                param="weights",
            )
        return found.astype(self._source.dtype)

    def _told(self, arrays: Mapping[str, Array]) -> list[Tensor]:
        size = sum(one.nbytes for one in arrays.values())
        if size > self._task.answer_bytes:
            raise InvalidRequest(
                f"the answer would have {size} bytes of tensors, the limit is "
                f"{self._task.answer_bytes}; ask for fewer rows, or some names"
            )
        return [
            Tensor(
                name=name,
                datatype=_TYPES[one.dtype.name],
                shape=list(one.shape),
                data=np.asarray(one, one.dtype.newbyteorder("<")).tobytes(),
            )
            for name, one in arrays.items()
        ]

    # --- checkpoints and versions ------------------------------------------------------------

    def _save(self, call: frames.Save) -> None:
        at = At(self.step, call.sequence)
        self._checkpoints.write(call.name, at, self._network.leaves())

    def _load(self, name: str) -> At:
        at, arrays = self._checkpoints.read(name)
        self._network.restore(arrays)
        self._network.step = at.step
        return at

    def _export(self) -> dict[str, Any]:
        if not self._seen and self._task.dataset is None:
            raise Conflict(
                "a version is verified on real rows, and this session has seen none: call predict, "
                "forward or forward_backward first"
            )
        kind = self._source.export(self._network, self._seen, self._folder / EXPORT)
        digest = hashlib.sha256()
        for one in self._network.tensors("weights").values():
            digest.update(one.tobytes())
        return {"kind": kind, "weights": digest.hexdigest()}


def _private(source: Source, network: SessionNetwork, task: SessionTask, folder: Path) -> Any:
    """What makes the steps of a private session; None: it is none."""
    if task.spec.privacy is None:
        return None
    from openmaas.training.differential_privacy.session import PrivateSession

    return PrivateSession(network, source.prepared, task.spec.privacy, task.spec.seed, folder)


def _array(tensor: Tensor) -> Array:
    dtype = _DTYPES.get(tensor.datatype)
    if dtype is None:
        raise InvalidRequest(
            f"{tensor.datatype} is no datatype of a session; there are: {', '.join(_DTYPES)}",
            param="datatype",
        )
    if len(tensor.data) != math.prod(tensor.shape) * dtype.itemsize:
        raise InvalidRequest(
            f"{len(tensor.data)} bytes are no {tensor.datatype} of shape {tensor.shape}",
            param="data",
        )
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


def _port(name: str, shape: Sequence[int | None], dtype: str) -> TensorSpec:
    sides = [-1 if side is None else int(side) for side in shape]
    return TensorSpec(name=name, datatype=_TYPES.get(dtype, "FP32"), shape=sides)


def _sides(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"


def _number(value: float) -> float | None:
    """JSON has no infinity: a square may be one where the number itself is not."""
    return value if math.isfinite(value) else None
