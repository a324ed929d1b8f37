"""Gradients of ordinary networks and of those over tables: which inputs a number is due to."""

from __future__ import annotations

import logging
from math import nan
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from openmaas import columns
from openmaas.columns import Column
from openmaas.errors import ArtifactRefused, InvalidRequest, OpenMaaSError
from openmaas.inference import Attribute, Predict, Predicted, Tensor, TensorSpec, Usage
from openmaas.runtimes import openvino_cpu as cpu
from openmaas.runtimes import openvino_tensors
from openmaas.runtimes.gradients_asked import Asked, Told, origins_of
from openmaas.runtimes.gradients_graph import Graph
from openmaas.runtimes.gradients_nodes import Array
from openmaas.runtimes.gradients_program import Plans, Reading
from openmaas.runtimes.openvino_network import DATATYPES, FREE_SIZES
from openmaas.runtimes.openvino_tabular import OpenVinoTabular

log = logging.getLogger(__name__)

NUMPY = dict(DATATYPES.values())
TOLERANCE = 1e-3  # as in ``gradients_texts``, of a number of size 1
_EMPTY = b"\0\0\0\0"  # a text of no characters


class TensorGradients:
    """Over an ordinary network. The runtime that serves it checks requests; its engine is freed.

    Args:
        folder: of an artifact ``openvino-ir``.

    Raises:
        ArtifactRefused: the network cannot be loaded, or has no gradients here.
    """

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self._served: Any = self._open(folder, options | {"precision": "f32"})
        self.info = msgspec.structs.replace(self._served.info, runtime="gradients")
        self.plans = Plans(Graph(cpu.read_model(folder)))
        if not self.plans.graph.outputs:
            raise ArtifactRefused("the network answers no floating-point numbers to explain")
        self._check()
        self._served.close()

    def read(self, request: Attribute) -> Asked:
        """
        Raises:
            InvalidRequest: an input does not fit, there is more than one row, or no such number.
        """
        if request.text is not None:
            raise InvalidRequest("this model reads inputs, not a text", param="text")
        output = self._output(request.output)
        instance = self._arrays(request.inputs)
        baseline = self._arrays(self._with_missing(request))
        for name, one in instance.items():
            if baseline[name].shape != one.shape:
                raise InvalidRequest(
                    f"the baseline of {name!r} has the shape {list(baseline[name].shape)}, the "
                    f"input {list(one.shape)}",
                    param="baselines",
                )
        reading = self.plans.read(instance)
        origins = origins_of(self.plans, reading, instance)
        return Asked(
            reading=reading,
            origins=origins,
            baseline=self._baselines(reading, origins, baseline),
            output=output,
            number=self._index(request, reading.plan.shape(output)),
            told=[self._told(tensor, instance) for tensor in request.inputs],
            usage=Usage(rows=1),
            offsets=[],
        )

    # --- what a table does otherwise ---------------------------------------------------------

    def _open(self, folder: Path, options: dict[str, Any]) -> Any:
        return openvino_tensors.open(folder, options)

    def _as_network_reads(self, predict: Predict) -> Predict:
        self._served.size(predict)
        return predict

    def _port(self, name: str) -> str:
        """The network's own name of an input."""
        return name

    def _missing(self, spec: TensorSpec, like: Tensor) -> Tensor:
        """What an input is compared with where the caller does not say: zeros."""
        return msgspec.structs.replace(like, data=bytes(len(like.data)))

    # --- reading -----------------------------------------------------------------------------

    def _arrays(self, tensors: list[Tensor]) -> dict[str, Array]:
        """Inputs by the network's names.

        Raises:
            InvalidRequest: they do not fit.
        """
        read = self._as_network_reads(Predict(inputs=tensors))
        rows = [tensor.shape[0] for tensor in tensors if tensor.shape]
        free = all(spec.shape[:1] == [-1] for spec in self.info.inputs)
        if free and any(count != 1 for count in rows):
            raise InvalidRequest("one row at a time is explained", param="inputs")
        made = {}
        for tensor in read.inputs:
            values: Array = np.frombuffer(tensor.data, NUMPY[tensor.datatype])
            made[tensor.name] = values.reshape(tensor.shape)
        return made

    def _with_missing(self, request: Attribute) -> list[Tensor]:
        given = {tensor.name: tensor for tensor in request.baselines}
        names = {tensor.name for tensor in request.inputs}
        if len(given) != len(request.baselines) or not given.keys() <= names:
            raise InvalidRequest(
                f"baselines are for {', '.join(sorted(names))}, once each", param="baselines"
            )
        specs = {spec.name: spec for spec in self.info.inputs}
        return [
            given.get(tensor.name) or self._missing(specs[tensor.name], tensor)
            for tensor in request.inputs
        ]

    def _baselines(
        self, reading: Reading, origins: list[Array | None], given: dict[str, Array]
    ) -> list[Array]:
        found = []
        for leaf, values, origin in zip(
            self.plans.graph.leaves, reading.leaves, origins, strict=True
        ):
            if origin is None or leaf.table is None:
                found.append(given[leaf.input].astype(np.float32))
                continue
            ids = given[leaf.input].reshape(-1)
            if (ids < -len(leaf.table)).any() or (ids >= len(leaf.table)).any():
                raise InvalidRequest(
                    f"ids of {leaf.input!r} are below {len(leaf.table)}", param="baselines"
                )
            rows = leaf.table[ids[np.maximum(origin, 0)]]
            found.append(np.where((origin >= 0)[..., None], rows, values))
        return found

    def _told(self, tensor: Tensor, instance: dict[str, Array]) -> Told:
        port = self._port(tensor.name)
        return Told(port, tensor.name, list(instance[port].shape))

    def _output(self, name: str) -> str:
        known = list(self.plans.graph.outputs)
        if name in known:
            return name
        if name or len(known) > 1:
            raise InvalidRequest(
                f"output {name!r}: name one that holds floating-point numbers: {', '.join(known)}",
                param="output",
            )
        return known[0]

    def _index(self, request: Attribute, shape: tuple[int, ...]) -> int:
        """The explained number, counted over the whole output."""
        row = shape[1:] if shape[:1] == (1,) else shape
        index = request.index or [0] * len(row)
        fits = len(index) == len(row) and all(0 <= at < n for at, n in zip(index, row, strict=True))
        if not fits or (not request.index and int(np.prod(row)) != 1):
            raise InvalidRequest(
                f"index names one number of an output of shape {list(row)}", param="index"
            )
        return int(np.ravel_multi_index(index, row)) if row else 0

    # --- whether it is the served network ------------------------------------------------------

    def _check(self) -> None:
        """
        Raises:
            ArtifactRefused: the graph answers a made-up row otherwise than the served network.
        """
        for free in FREE_SIZES:
            tensors = [self._made_up(spec, free) for spec in self.info.inputs]
            try:
                self._served.size(Predict(inputs=tensors))
                (served,) = self._served.run([Predict(inputs=tensors)])
            except (OpenMaaSError, RuntimeError):
                continue  # this network needs another size
            assert isinstance(served, Predicted)
            self._compare(tensors, served)
            return
        log.warning("no made-up row was accepted; the gradients' network was not compared")

    def _compare(self, tensors: list[Tensor], served: Predicted) -> None:
        wanted = {one.name: one for one in served.outputs}
        try:
            given = self._arrays(tensors)
            reading = self.plans.read(given)
            origins_of(self.plans, reading, given)
            for name in self.plans.graph.outputs:
                own = wanted[name]
                told = np.frombuffer(own.data, NUMPY[own.datatype]).astype(np.float64)
                found = reading.program(name).forward(reading.leaves, reading.data).reshape(-1)
                allowed = TOLERANCE * np.maximum(1.0, np.abs(told))
                if found.shape != told.shape or not (np.abs(found - told) <= allowed).all():
                    raise ArtifactRefused(
                        f"gradients do not read this network as it is served: output {name!r}"
                    )
        except (TypeError, ValueError, IndexError) as error:
            raise ArtifactRefused(
                f"gradients cannot compute this network: {str(error)[:200]}"
            ) from None

    def _made_up(self, spec: TensorSpec, free: int) -> Tensor:
        if spec.datatype == "BYTES":
            return Tensor(name=spec.name, datatype="BYTES", shape=[1, 1], data=_EMPTY)
        shape = [free if size < 0 else size for size in spec.shape]
        shape[:1] = [1] if spec.shape[:1] == [-1] else shape[:1]
        dtype = NUMPY[spec.datatype]
        chance = np.random.default_rng(0)
        drawn = chance.standard_normal(shape) if dtype.kind == "f" else np.ones(shape)
        data = drawn.astype(dtype).tobytes()
        return Tensor(name=spec.name, datatype=spec.datatype, shape=shape, data=data)


class _Columns(OpenVinoTabular):
    """Reads rows as the served runtime does, and gives what it read."""

    def read(self, predict: Predict) -> Predict:
        """
        Raises:
            InvalidRequest: as ``size``.
        """
        read = self._read(predict)
        self._network.size(read)
        return read

    def column(self, name: str) -> Column:
        """By its name, which a request that was read has named."""
        return self._columns[name]


class TabularGradients(TensorGradients):
    """Over a network on columns: numbers at its inputs, categories at their vectors.

    Args:
        folder: of an artifact ``openvino-tabular``.
    """

    def _open(self, folder: Path, options: dict[str, Any]) -> Any:
        path = folder / columns.FILE
        if not path.is_file():
            raise ArtifactRefused(f"the artifact has no {columns.FILE}")
        return _Columns(openvino_tensors.open(folder, options), columns.decode(path.read_bytes()))

    def _as_network_reads(self, predict: Predict) -> Predict:
        read: Predict = self._served.read(predict)
        return read

    def _port(self, name: str) -> str:
        return str(self._served.column(name).port)

    def _missing(self, spec: TensorSpec, like: Tensor) -> Tensor:
        """A missing value; zero, of a number column where none may be missing."""
        if spec.datatype == "BYTES":
            return msgspec.structs.replace(like, data=_EMPTY)
        column = self._served.column(spec.name)
        number = nan if column.missing is not None else 0.0
        return msgspec.structs.replace(like, data=np.float32(number).tobytes())
