"""Ordinary networks (IR, ONNX, exported Keras) in OpenVINO: rows of many requests, one call."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from openmaas.errors import EngineFailed, InvalidRequest
from openmaas.inference import (
    Answer,
    Failure,
    ModelInfo,
    Predict,
    Predicted,
    Request,
    Tensor,
    TensorSpec,
    Usage,
)
from openmaas.runtimes import openvino_cpu as cpu
from openmaas.runtimes.openvino_network import (
    CHECKED,
    Network,
    Port,
    check_values,
    is_one_row,
    rows_are_independent,
    seconds_of_a_row,
    with_free_batch,
)

log = logging.getLogger(__name__)

OPTIONS = ("threads", "precision")
# A second thread costs 5-20 µs a call to hand over: networks faster than this stay on one.
ONE_THREAD_SECONDS = 0.001

Joining = Literal["rows", "row", "request"]
"""What one engine call takes: any number of rows, exactly one row, or one whole request
(the first dimension is no batch, or rows depend on their neighbours)."""


def open(folder: Path, options: dict[str, Any]) -> OpenVinoTensors:
    """Loads the network of an artifact and tries it on a made-up row.

    Args:
        folder: holds ``openvino_model.xml`` and ``.bin``, or ``model.onnx``.
        options: ``threads`` (default: one for networks under a millisecond, else all) and
            ``precision`` (``f32`` unless the artifact says otherwise).

    Raises:
        ConfigurationError: an option is unknown or out of range.
        ArtifactRefused: the network cannot be loaded, or takes tensors that requests
            cannot carry here, strings among them.
    """
    cpu.known_options(options, OPTIONS)
    threads = cpu.threads_option(options)
    manifest = cpu.read_manifest(folder)
    precision = cpu.precision_option(options, manifest) or "f32"
    labels = cpu.labels(manifest)
    model = cpu.read_model(folder)
    freed = with_free_batch(model)
    if freed is not None:
        network = _compile(freed, threads, precision)
        if rows_are_independent(network):
            return OpenVinoTensors(network, "rows", labels)
    joining: Joining = "row" if is_one_row(model) else "request"
    log.info("rows of this network cannot share a call; each call takes one %s", joining)
    return OpenVinoTensors(_compile(model, threads, precision), joining, labels)


def _compile(model: ov.Model, threads: int | None, precision: str) -> Network:
    network = Network(model, threads=threads or 1, precision=precision)
    if threads is None and seconds_of_a_row(network) > ONE_THREAD_SECONDS:
        return Network(model, threads=None, precision=precision)
    return network


class OpenVinoTensors:
    """A ``BatchRuntime`` over one network.

    Args:
        labels: what its outputs' numbers stand for, if the artifact says that.
    """

    def __init__(self, network: Network, joining: Joining, labels: list[str]) -> None:
        self._network = network
        self._joining = joining
        self._ports = {port.name: port for port in network.inputs}
        # For the check of the usual request: datatype, trailing shape, bytes of a row.
        self._usual = {
            port.name: (port.datatype, port.trailing, port.row_bytes)
            for port in network.inputs
            if joining != "request" and port.row_bytes and port.datatype not in CHECKED
        }
        self._output_names = {port.name for port in network.outputs}
        self._fixed = all(port.row_bytes for port in network.inputs)
        self.info = ModelInfo(
            task="predict",
            runtime="openvino_tensors",
            inputs=[self._spec(port) for port in network.inputs],
            outputs=[self._spec(port) for port in network.outputs],
            labels=labels,
        )

    def size(self, request: Request) -> int:
        """Rows of a request.

        Raises:
            InvalidRequest: a name, datatype or shape does not fit the network.
        """
        if not isinstance(request, Predict):
            raise InvalidRequest("this model answers predictions only", param="model")
        tensors = request.inputs
        if len(tensors) != len(self._ports) or any(t.name not in self._ports for t in tensors):
            self._refuse_names([tensor.name for tensor in tensors])
        rows = request.rows
        for tensor in tensors:
            usual = self._usual.get(tensor.name)
            shape = tensor.shape
            if (
                usual is None
                or tensor.datatype != usual[0]
                or shape[1:] != usual[1]
                or not shape
                or not shape[0] == rows > 0
                or len(tensor.data) != rows * usual[2]
            ):
                self._check(tensor, self._ports[tensor.name], rows)
        if len(tensors) > 1 and len({tensor.name for tensor in tensors}) != len(tensors):
            self._refuse_names([tensor.name for tensor in tensors])
        for name in request.outputs:
            if name not in self._output_names:
                has = ", ".join(sorted(self._output_names))
                raise InvalidRequest(f"no output {name!r}; there are: {has}", param="outputs")
        return rows

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Predictions in the order of the requests, which ``size`` has accepted.

        Raises:
            EngineFailed: the network answered another number of rows than it was given.
            RuntimeError: what OpenVINO raises.
        """
        predicts = [request for request in requests if isinstance(request, Predict)]
        if self._joining == "row":
            return [self._row_by_row(request) for request in predicts]
        answers: dict[int, Predicted] = {}
        for group in self._groups(predicts):
            answers |= zip(group, self._together([predicts[i] for i in group]), strict=True)
        return [answers[index] for index in range(len(predicts))]

    def close(self) -> None:
        del self._network

    def _spec(self, port: Port) -> TensorSpec:
        shape = port.shape if self._joining == "request" else [-1, *port.trailing]
        return TensorSpec(name=port.name, datatype=port.datatype, shape=shape)

    def _groups(self, predicts: list[Predict]) -> list[list[int]]:
        """Indices of requests that may share a call: those with equal shapes but for rows."""
        if self._joining == "request" or not predicts:
            return [[index] for index in range(len(predicts))]
        if self._fixed:
            return [list(range(len(predicts)))]
        groups: dict[Any, list[int]] = {}
        for index, predict in enumerate(predicts):
            shapes = sorted((tensor.name, tensor.shape[1:]) for tensor in predict.inputs)
            groups.setdefault(str(shapes), []).append(index)
        return list(groups.values())

    def _together(self, predicts: list[Predict]) -> list[Predicted]:
        columns, shapes = [], []
        rows = sum(predict.rows for predict in predicts)
        for port in self._network.inputs:
            tensors = [_named(predict, port.name) for predict in predicts]
            columns.append([tensor.data for tensor in tensors])
            first = tensors[0].shape
            shapes.append(first if len(predicts) == 1 else [rows, *first[1:]])
        blocks = self._network.call(columns, shapes)
        if len(predicts) == 1:
            whole = [_tensor(p, b) for p, b in zip(self._network.outputs, blocks, strict=True)]
            return [_predicted(predicts[0], whole)]
        return self._cut(predicts, blocks, rows)

    def _cut(
        self, predicts: list[Predict], blocks: list[NDArray[Any]], rows: int
    ) -> list[Predicted]:
        """Each request's rows of the outputs."""
        cuts = []
        for port, block in zip(self._network.outputs, blocks, strict=True):
            if block.shape[:1] != (rows,):
                raise EngineFailed(f"{rows} rows gave an output {port.name!r} of {block.shape}")
            cuts.append((port, list(block.shape[1:]), block.tobytes(), block.nbytes // rows))
        answers = []
        at = 0
        for predict in predicts:
            end = at + predict.rows
            tensors = [
                Tensor(
                    name=port.name,
                    datatype=port.datatype,
                    shape=[end - at, *trailing],
                    data=data[at * width : end * width],
                )
                for port, trailing, data, width in cuts
            ]
            answers.append(_predicted(predict, tensors))
            at = end
        return answers

    def _row_by_row(self, predict: Predict) -> Predicted:
        """For networks that take exactly one row."""
        tensors = [_named(predict, port.name) for port in self._network.inputs]
        shapes = [[1, *tensor.shape[1:]] for tensor in tensors]
        widths = [len(tensor.data) // predict.rows for tensor in tensors]
        parts: list[list[NDArray[Any]]] = [[] for _ in self._network.outputs]
        for row in range(predict.rows):
            pieces = [
                [tensor.data[row * width : (row + 1) * width]]
                for tensor, width in zip(tensors, widths, strict=True)
            ]
            for part, block in zip(parts, self._network.call(pieces, shapes), strict=True):
                part.append(block.copy())
        return _predicted(
            predict,
            [
                _tensor(port, np.concatenate(part))
                for port, part in zip(self._network.outputs, parts, strict=True)
            ],
        )

    def _refuse_names(self, names: list[str]) -> NoReturn:
        missing = ", ".join(name for name in self._ports if name not in names)
        unknown = ", ".join(repr(name) for name in names if name not in self._ports)
        takes = ", ".join(self._ports)
        if missing or unknown:
            what = [f"missing: {missing}"] * bool(missing) + [f"unknown: {unknown}"] * bool(unknown)
            raise InvalidRequest(f"inputs {'; '.join(what)}. It takes: {takes}", param="inputs")
        raise InvalidRequest(f"an input is given twice. It takes: {takes}", param="inputs")

    def _check(self, tensor: Tensor, port: Port, rows: int) -> None:
        """The long way of ``size``: says what is wrong, or that all is well."""
        spec = self._spec(port)
        label = f"input {port.name!r}"
        if tensor.datatype != port.datatype:
            raise InvalidRequest(
                f"{label} takes {port.datatype}, got {tensor.datatype}", param="inputs"
            )
        fits = len(tensor.shape) == len(spec.shape) and all(
            size > 0 and size == (size if wanted < 0 else wanted)
            for size, wanted in zip(tensor.shape, spec.shape, strict=True)
        )
        if not fits:
            raise InvalidRequest(
                f"{label} takes the shape {spec.shape} (-1: any), got {tensor.shape}",
                param="inputs",
            )
        if self._joining != "request" and tensor.shape[0] != rows:
            raise InvalidRequest(
                f"{label} has {tensor.shape[0]} rows, the first input {rows}", param="inputs"
            )
        wanted = prod(tensor.shape) * port.dtype.itemsize
        if len(tensor.data) != wanted:
            raise InvalidRequest(
                f"{label} of shape {tensor.shape} is {wanted} bytes, got {len(tensor.data)}",
                param="inputs",
            )
        check_values(port, tensor.data)


def _named(predict: Predict, name: str) -> Tensor:
    for tensor in predict.inputs:
        if tensor.name == name:
            return tensor
    raise InvalidRequest(f"input {name!r} is missing", param="inputs")


def _tensor(port: Port, block: NDArray[Any]) -> Tensor:
    return Tensor(
        name=port.name, datatype=port.datatype, shape=list(block.shape), data=block.tobytes()
    )


def _predicted(predict: Predict, tensors: list[Tensor]) -> Predicted:
    """The outputs that the request names, in its order; all of them if it names none."""
    if predict.outputs:
        by_name = {tensor.name: tensor for tensor in tensors}
        tensors = [by_name[name] for name in predict.outputs]
    return Predicted(outputs=tensors, usage=Usage(rows=predict.rows))
