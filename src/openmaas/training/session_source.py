"""What a session learns on: its network, optimizer and loss, and the rows of its data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.training import fitting, network
from openmaas.training.data import Dataset
from openmaas.training.precision import compute_in
from openmaas.training.session_network import SessionNetwork
from openmaas.training.session_task import SessionTask
from openmaas.training.spec import Fit

Array = NDArray[Any]
MOST_ROWS = 65_536  # of one call


class Source:
    """An own network, and the arrays or number columns of a data set if there is one."""

    def __init__(self, task: SessionTask) -> None:
        spec = task.spec
        self.dtype = spec.dtype
        compute_in(spec.dtype)
        try:
            self.model = _network(task)
            self.optimizer = fitting.optimizer(Fit(optimizer=spec.optimizer), steps=1)
        except ArtifactRefused as error:
            raise InvalidRequest(error.message, param="network") from None
        except InvalidRequest as error:
            where = (error.param or "").removeprefix("fit.") or None
            raise InvalidRequest(error.message, param=where) from None
        if spec.loss not in fitting.LOSSES:
            there = ", ".join(sorted(fitting.LOSSES))
            raise InvalidRequest(
                f"no loss {str(spec.loss)[:64]!r}; there are {there}", param="loss"
            )
        self.loss: str = spec.loss
        self.inputs: list[tuple[str, tuple[int | None, ...], str]] = [
            (str(one._keras_history.operation.name), tuple(one.shape), str(one.dtype))
            for one in self.model.inputs
        ]
        self._data = None if task.dataset is None else _Data(task, self.inputs)

    def of_rows(self, rows: Sequence[int]) -> tuple[list[Array], Array]:
        """Inputs and targets of rows of the data set.

        Raises:
            InvalidRequest: there is no data set, or no such row.
        """
        if self._data is None:
            raise InvalidRequest("the session was opened without a data set", param="rows")
        return self._data.of(rows)

    def export(self, learned: SessionNetwork, seen: Sequence[Array], folder: Path) -> str:
        """Writes the layout of a kind of ``registry.convert``, and returns the kind."""
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        model = learned.settle()
        if self.dtype != "float32":
            model = _retyped(model, "float32")
            keras.config.set_floatx(self.dtype)
        model.save(folder / "model.keras")
        given = [one.astype(str(port.dtype)) for one, port in zip(seen, model.inputs, strict=True)]
        outputs = model.predict(network.arranged(model, given), verbose=0)
        names = [name for name, _, _ in self.inputs]
        arrays: dict[str, Any] = dict(zip(names, given, strict=True))
        np.savez(folder / "rows.npz", outputs=outputs, **arrays)
        return "keras"


class _Data:
    """Rows by their numbers in the data set."""

    def __init__(
        self, task: SessionTask, ports: Sequence[tuple[str, tuple[int | None, ...], str]]
    ) -> None:
        assert task.dataset is not None
        self._dataset = Dataset(Path(task.dataset))
        described = self._dataset.description
        columns = [one.name for one in described.columns]
        target = task.spec.target or described.target
        if target is None or target not in columns:
            raise InvalidRequest(
                f"target {str(target)[:100]!r} is no column; there are: {', '.join(columns)}",
                param="target",
            )
        names = task.spec.inputs or [name for name in columns if name != target]
        for name in (*names, target):
            if name not in columns:
                raise InvalidRequest(
                    f"{name[:100]!r} is no column; there are: {', '.join(columns)}", param="inputs"
                )
            if self._dataset.column(name).kind not in ("array", "number"):
                raise InvalidRequest(
                    f"column {name!r} is of kind {self._dataset.column(name).kind}; a network of "
                    "your own takes numbers (a recipe reads texts and categories)",
                    param="inputs",
                )
        self._arrays = [self._dataset.array(name) for name in names]
        self._target = self._dataset.array(target)
        self._ports = ports
        # One input, several number columns: they are its features.
        self._joined = len(ports) == 1 and len(names) > 1
        if not self._joined and len(ports) != len(names):
            raise InvalidRequest(
                f"the network has {len(ports)} inputs, the data set {len(names)} columns for them",
                param="inputs",
            )

    def of(self, rows: Sequence[int]) -> tuple[list[Array], Array]:
        count = self._dataset.description.rows
        if not 1 <= len(rows) <= MOST_ROWS or not all(0 <= row < count for row in rows):
            raise InvalidRequest(
                f"rows are from 1 to {MOST_ROWS} numbers from 0 to {count - 1}", param="rows"
            )
        index = np.asarray(rows)
        arrays = [np.asarray(one[index]) for one in self._arrays]
        if self._joined:
            arrays = [np.stack(arrays, axis=1)]
        inputs = []
        for array, (name, shape, dtype) in zip(arrays, self._ports, strict=True):
            if array.ndim == len(shape) - 1:
                array = array[..., None]
            if array.ndim != len(shape) or any(
                side is not None and side != one
                for side, one in zip(shape[1:], array.shape[1:], strict=True)
            ):
                raise InvalidRequest(
                    f"the data set's rows are of shape {list(array.shape[1:])}, input {name!r} "
                    f"takes {['any' if side is None else side for side in shape[1:]]}",
                    param="rows",
                )
            inputs.append(array.astype(dtype))
        return inputs, self._target[index]


def open_source(task: SessionTask) -> Source:
    """
    Raises:
        InvalidRequest, ArtifactRefused: network, loss or data do not fit.
    """
    return Source(task)


def _network(task: SessionTask) -> Any:
    spec, dtype = task.spec.network, task.spec.dtype
    if spec is not None and spec.config is not None:
        return network.from_config(_typed(spec.config, dtype), task.spec.seed)
    assert task.network is not None
    made = network.from_file(Path(task.network), task.spec.seed, compiled=False)
    return made if dtype == "float32" else _retyped(made, dtype)


def _retyped(model: Any, dtype: str) -> Any:
    """A copy that computes in another precision."""
    keras.config.set_floatx(dtype)
    made = type(model).from_config(_typed(model.get_config(), dtype))
    made.set_weights(model.get_weights())
    return made


def _typed(config: Any, dtype: str) -> Any:
    """A configuration whose layers compute in another precision."""
    if dtype == "float32":
        other, wanted = "float64", "float32"
    else:
        other, wanted = "float32", dtype
    return json.loads(json.dumps(config).replace(f'"{other}"', f'"{wanted}"'))
