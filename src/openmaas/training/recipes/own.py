"""A Keras network of the caller's own, on arrays or on number columns of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from openmaas.errors import InvalidRequest
from openmaas.training import fitting, network, targets
from openmaas.training.data import Column
from openmaas.training.recipes.base import Prepared, Recipe, row_weights, splits
from openmaas.training.rows import Array, Rows
from openmaas.training.spec import Fit
from openmaas.training.task import ExportKind

_SPARSE = "sparse_categorical_crossentropy"
_ONE_HOT = ("categorical_crossentropy", "categorical_focal_crossentropy", "categorical_hinge")
_BINARY = ("binary_crossentropy", "binary_focal_crossentropy")


class OwnNetwork(Recipe):
    own_fit = Fit(epochs=1, batch_size=32)  # as ``model.fit``

    def prepare(self) -> Prepared:
        asked = self.asked
        wanted = targets.target(asked.data, asked.target)
        columns = targets.inputs(asked.data, asked.inputs, wanted.name)
        model = self._model = self._load(columns)
        inputs = self._inputs(columns)
        values, numbers = self._wanted(wanted)
        shape = tuple(model.outputs[0].shape[1:])
        if self.target != "classes" and not _fits(values.shape[1:], shape):
            raise InvalidRequest(
                f"{wanted.name} has rows of {_words(values.shape[1:])}, the network answers "
                f"{_words(shape)}",
                param="target",
            )
        weights = row_weights(asked, numbers, self.labels)
        return splits(asked.data, inputs, values, weights)

    def build(self) -> Any:
        return self._model

    def export(self, model: Any, shown: Rows, outputs: Array, folder: Path) -> ExportKind:
        model.save(folder / "model.keras")
        # by their layers, as the serving form names them
        names = [str(one._keras_history.operation.name) for one in model.inputs]
        given: dict[str, Any] = dict(zip(names, shown.inputs, strict=True))
        np.savez(folder / "rows.npz", **given, outputs=outputs)
        if self.labels is not None:
            (folder / "labels.json").write_bytes(msgspec.json.encode(self.labels))
        return "keras"

    # --- the network -------------------------------------------------------------------------

    def _load(self, columns: list[Column]) -> Any:
        asked, seed = self.asked, self.asked.fit.seed
        if asked.network_file is not None:
            return network.from_file(asked.network_file, seed, compiled=asked.fit.loss is None)
        shape = tuple(columns[0].shape) if columns[0].kind == "array" else (len(columns),)
        return network.from_config(asked.network.config, seed, shape)

    # --- inputs ------------------------------------------------------------------------------

    def _inputs(self, columns: list[Column]) -> list[Array]:
        ports = _inputs_of(self._model)
        if self.asked.data.description.kind == "table":
            arrays = self._of_table(columns, ports)
        else:
            arrays = [self.asked.data.array(one.name) for one in _in_order(columns, ports)]
        names = [one.name for one in columns]
        return [
            _shaped(array, port, name)
            for array, port, name in zip(arrays, ports, names, strict=True)
        ]

    def _of_table(self, columns: list[Column], ports: list[Any]) -> list[Array]:
        data = self.asked.data
        for one in columns:
            if one.kind != "number":
                raise InvalidRequest(
                    f"column {one.name} is {one.kind}; a network takes numbers (the recipe "
                    "tabular_mlp takes categories too); name the inputs",
                    param="inputs",
                )
            if one.missing:
                raise InvalidRequest(
                    f"column {one.name} has {one.missing} rows without a value", param="inputs"
                )
        if len(ports) > 1:
            return [data.array(one.name)[:, None] for one in _in_order(columns, ports)]
        matrix = np.stack([data.array(one.name) for one in columns], 1)
        columns[:] = columns[:1]
        return [np.asarray(matrix, np.float32)]

    # --- what is learnt ----------------------------------------------------------------------

    def _wanted(self, column: Column) -> tuple[Array, Any]:
        """Targets as the loss takes them, and the class numbers where there are classes."""
        loss = self._loss()
        last = fitting.last_activation(self._model)
        units = int(self._model.outputs[0].shape[-1] or 1)
        flat = len(column.shape) == 0 or column.shape == [1]
        text = column.kind in ("category", "text")
        if text or loss == _SPARSE or (loss is None and last == "softmax" and flat):
            return self._classes(column, units, one_hot=loss in _ONE_HOT)
        if loss in _ONE_HOT and flat:
            return self._classes(column, units, one_hot=True)
        values = targets.numbers(self.asked.data, column)
        if (last == "sigmoid" or loss in _BINARY) and units == 1:
            return self._classes(column, units, one_hot=False)
        if last == "softmax" or loss in _ONE_HOT:
            found = targets.classes(self.asked.data, column)
            self.labels, self.target = found.labels, "one_hot"
            return values, found.numbers
        self.target = "one_hot" if last == "sigmoid" else "numbers"
        if loss is None and self.target == "numbers" and flat and units > 1:
            fitting.inferred_loss(self._model, "classes")  # says that it cannot be told
        return values, None

    def _classes(self, column: Column, units: int, *, one_hot: bool) -> tuple[Array, Any]:
        found = targets.classes(self.asked.data, column)
        numbers, labels = found
        most = max(2, units)
        if _plain(labels) and max(int(one) for one in labels) < most:
            # Numbers that are those of the network's outputs already, some perhaps unused.
            numbers = np.array([int(one) for one in labels], np.int32)[numbers]
            labels = [str(at) for at in range(most)]
        if len(labels) > most:
            raise InvalidRequest(
                f"{column.name} has {len(labels)} different values, the network {units} outputs",
                param="target",
            )
        labels = labels + [f"unused {at}" for at in range(len(labels), most)]
        self.labels = labels
        if units == 1:
            self.target = "one_hot"  # a probability each
            return numbers.astype(np.float32)[:, None], numbers
        if one_hot:
            self.target = "one_hot"
            return np.eye(units, dtype=np.float32)[numbers], numbers
        self.target = "classes"
        return numbers, numbers

    def _loss(self) -> str | None:
        """By name, as the fit or the compiled network says."""
        loss = self.asked.fit.loss
        if loss is None and self._model.compiled:
            loss = self._model.loss
        if loss is None or isinstance(loss, str):
            return loss
        return str(getattr(loss, "name", type(loss).__name__))


def _inputs_of(model: Any) -> list[Any]:
    return list(model.inputs)


def _in_order(columns: list[Column], ports: list[Any]) -> list[Column]:
    """Columns in the order of the inputs: by their names if those are the same."""
    if len(columns) != len(ports):
        raise InvalidRequest(
            f"the network takes {len(ports)} inputs, the data set has {len(columns)} columns for "
            "them; name the inputs",
            param="inputs",
        )
    by_name = {one.name: one for one in columns}
    names = [str(port.name) for port in ports]
    if set(names) == set(by_name):
        columns[:] = [by_name[name] for name in names]
    return columns


def _shaped(array: Array, port: Any, name: str) -> Array:
    """An array as an input takes it.

    Raises:
        InvalidRequest: its rows have another shape, or it holds no numbers.
    """
    shape = tuple(port.shape[1:])
    if array.dtype.kind not in "fiub":
        raise InvalidRequest(f"{name} holds no numbers", param="inputs")
    rows = array.shape[1:]
    if not _fits(rows, shape) and _fits((*rows, 1), shape):
        array, rows = array[..., None], (*rows, 1)
    if not _fits(rows, shape):
        raise InvalidRequest(
            f"{name} has rows of {_words(rows)}, the network takes {_words(shape)}",
            param="inputs",
        )
    return array


def _fits(rows: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(rows) == len(shape) and all(
        wanted is None or side == wanted for side, wanted in zip(rows, shape, strict=True)
    )


def _words(shape: tuple[int | None, ...]) -> str:
    return "×".join("?" if side is None else str(side) for side in shape) or "one number"


def _plain(labels: list[str]) -> bool:
    return all(label.isascii() and label.isdigit() and len(label) < 5 for label in labels)
