"""Networks over tables in OpenVINO: a tensor for each column, rows of many requests in a call."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas import columns
from openmaas.columns import Column, Places
from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.inference import (
    Answer,
    Failure,
    ModelInfo,
    Predict,
    Predicted,
    Request,
    Tensor,
    TensorSpec,
)
from openmaas.runtimes import openvino_tensors
from openmaas.runtimes.measured import Measured
from openmaas.runtimes.openvino_network import DATATYPES
from openmaas.runtimes.openvino_tensors import OpenVinoTensors

OPTIONS = ("threads", "precision")  # as ``openvino_tensors`` reads them
LABEL = "label"
_LENGTH = struct.Struct("<I")
_NUMPY = dict(DATATYPES.values())


def open(folder: Path, options: dict[str, Any]) -> OpenVinoTabular:
    """Loads a tabular network and lets it answer a made-up row.

    Args:
        folder: as ``openvino_tensors.open``, with ``columns.json`` (see ``columns``): the network
            has an input [rows, 1] for each column, and one output [rows, numbers].
        options: as there.

    Raises:
        ConfigurationError: an option is unknown or out of range.
        ArtifactRefused: a part is missing, or network and columns do not fit.
    """
    try:
        known = columns.decode((folder / columns.FILE).read_bytes())
    except FileNotFoundError:
        raise ArtifactRefused(f"the artifact has no {columns.FILE}") from None
    return OpenVinoTabular(openvino_tensors.open(folder, options), known)


class OpenVinoTabular:
    """A ``BatchRuntime``: columns become the inputs of an ordinary network, and the likeliest
    label becomes an output where the artifact names labels."""

    def __init__(self, network: OpenVinoTensors, known: list[Column]) -> None:
        self._network = network
        self._columns = {column.name: column for column in known}
        self._places = {one.name: Places(one) for one in known if one.kind == "category"}
        ports = {spec.name: spec for spec in network.info.inputs}
        if set(ports) != {one.port for one in known}:
            raise ArtifactRefused(f"{columns.FILE} and the network name different inputs")
        self._datatypes = {one.name: ports[one.port].datatype for one in known}
        if any(spec.shape != [-1, 1] for spec in ports.values()) or len(network.info.outputs) != 1:
            raise ArtifactRefused("a network over columns takes [rows, 1] each, and answers once")
        (answer,) = network.info.outputs
        labels = network.info.labels
        if labels and answer.shape != [-1, len(labels)]:
            raise ArtifactRefused(f"the network answers {answer.shape} for {len(labels)} labels")
        self._encoded = [_bytes_element(label.encode()) for label in labels]
        self._asked = Measured(self._read)
        self.info = ModelInfo(
            task="predict",
            runtime="openvino_tabular",
            inputs=[
                TensorSpec(name=one.name, datatype=one.datatype, shape=[-1, 1]) for one in known
            ],
            outputs=[
                answer,
                *([TensorSpec(name=LABEL, datatype="BYTES", shape=[-1])] if labels else []),
            ],
            labels=labels,
            tabular=True,
        )

    def size(self, request: Request) -> int:
        """Rows of a request, which are read here.

        Raises:
            InvalidRequest: a column, datatype, shape or value does not fit.
        """
        if not isinstance(request, Predict):
            raise InvalidRequest("this model answers predictions only", param="model")
        names = [spec.name for spec in self.info.outputs]
        for name in request.outputs:
            if name not in names:
                has = ", ".join(names)
                raise InvalidRequest(f"no output {name!r}; there are: {has}", param="outputs")
        return self._network.size(self._asked(request))

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Predictions in the order of the requests.

        Raises:
            InvalidRequest: as ``size``.
            EngineFailed, RuntimeError: as ``OpenVinoTensors.run``.
        """
        predicts = [request for request in requests if isinstance(request, Predict)]
        answers = self._network.run([self._asked(predict) for predict in predicts])
        return [
            self._answer(predict, answer) if isinstance(answer, Predicted) else answer
            for predict, answer in zip(predicts, answers, strict=True)
        ]

    def close(self) -> None:
        """Frees the engine."""
        self._network.close()

    def _answer(self, predict: Predict, answer: Predicted) -> Predicted:
        self._asked.forget(predict)
        (numbers,) = answer.outputs
        outputs = {numbers.name: numbers}
        if self._encoded:
            rows = np.frombuffer(numbers.data, _NUMPY[numbers.datatype]).reshape(numbers.shape)
            best = rows.argmax(axis=1)
            data = b"".join([self._encoded[at] for at in best])
            outputs[LABEL] = Tensor(name=LABEL, datatype="BYTES", shape=[len(rows)], data=data)
        wanted = predict.outputs or list(outputs)
        return msgspec.structs.replace(answer, outputs=[outputs[name] for name in wanted])

    def _read(self, request: Predict) -> Predict:
        """The request as the network takes it.

        Raises:
            InvalidRequest: as ``size``.
        """
        given = {tensor.name: tensor for tensor in request.inputs}
        if len(given) != len(request.inputs):
            raise InvalidRequest("a column is given twice", param="inputs")
        if given.keys() != self._columns.keys():
            missing = ", ".join(sorted(self._columns.keys() - given.keys())) or "none"
            unknown = ", ".join(sorted(given.keys() - self._columns.keys())) or "none"
            raise InvalidRequest(
                f"columns missing: {missing[:500]}; unknown: {unknown[:500]}", param="inputs"
            )
        rows = request.rows
        inputs = [self._tensor(column, given[name], rows) for name, column in self._columns.items()]
        return Predict(inputs=inputs)

    def _tensor(self, column: Column, tensor: Tensor, rows: int) -> Tensor:
        if tensor.datatype != column.datatype:
            raise InvalidRequest(
                f"column {column.name!r} takes {column.datatype}, got {tensor.datatype}",
                param="inputs",
            )
        if tensor.shape not in ([rows, 1], [rows]) or rows < 1:
            raise InvalidRequest(
                f"column {column.name!r} takes the shape [{rows}, 1], got {tensor.shape}",
                param="inputs",
            )
        values: list[Any]
        if column.kind == "number":
            read = np.frombuffer(tensor.data, "<f4")
            plain = bool(np.isfinite(read).all())
            values = read.tolist() if plain else columns.numbers(column, read.tolist())
        else:
            values = self._places[column.name](_texts(column, tensor.data))
        if len(values) != rows:
            raise InvalidRequest(
                f"column {column.name!r} has {len(values)} values for {rows} rows", param="inputs"
            )
        datatype = self._datatypes[column.name]
        made: NDArray[Any] = np.asarray(values, _NUMPY[datatype])
        return Tensor(name=column.port, datatype=datatype, shape=[rows, 1], data=made.tobytes())


def _texts(column: Column, data: bytes) -> list[str]:
    texts, at = [], 0
    try:
        while at < len(data):
            start = at + _LENGTH.size
            at = start + _LENGTH.unpack_from(data, at)[0]
            texts.append(data[start:at].decode())
    except (UnicodeDecodeError, struct.error):
        raise InvalidRequest(
            f"column {column.name!r} takes texts in UTF-8", param="inputs"
        ) from None
    return texts


def _bytes_element(text: bytes) -> bytes:
    return _LENGTH.pack(len(text)) + text
