"""Dense layers on the columns of a table, or on one array.

Numbers are normalised within the network, by what the training rows are like; where one is missing
there is their mean. A category has a vector for each of its values; one for all others, and for
none.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from keras import layers
from numpy.typing import NDArray

from openmaas import columns
from openmaas.columns import MAX_COLUMNS
from openmaas.columns import Column as Served
from openmaas.errors import InvalidRequest
from openmaas.training import targets
from openmaas.training.data import Column
from openmaas.training.recipes.base import Prepared, Recipe, row_weights, splits
from openmaas.training.recipes.habits import shown_rows, the_array, with_validation
from openmaas.training.rows import Array, Rows
from openmaas.training.spec import EarlyStopping, Fit, ReduceOnPlateau
from openmaas.training.task import ExportKind

MAX_VALUES = 10_000  # of a category that have vectors of their own, the most frequent
RARE = 100  # training rows from which a value must be there twice to have one
FARTHEST = 10.0  # from the mean, of what a column's training rows hold, once it is normalised


class TabularMlp(Recipe):
    own_fit = Fit(
        optimizer="adam",
        epochs=60,
        batch_size=32,
        callbacks=[ReduceOnPlateau(patience=3), EarlyStopping(patience=8)],
    )

    def prepare(self) -> Prepared:
        asked = self.asked
        wanted = targets.target(asked.data, asked.target)
        values, numbers = self._wanted(wanted)
        if asked.data.description.kind == "table":
            inputs = self._of_table(targets.inputs(asked.data, asked.inputs, wanted.name))
        else:
            inputs = [asked.data.array(the_array(asked.data, asked.inputs, wanted.name).name)]
        weights = row_weights(asked, numbers, self.labels)
        prepared = splits(asked.data, inputs, values, weights)
        self._trained = prepared.train
        self.own_fit = with_validation(self.own_fit, prepared)
        return prepared

    def build(self) -> Any:
        given = self.asked.parameters
        keras.utils.set_random_seed(self.asked.fit.seed)
        table = self.asked.data.description.kind == "table"
        inputs, x = self._columns() if table else self._array()
        for _ in range(given.layers):
            x = layers.Dense(given.units, activation="relu")(x)
            x = layers.Dropout(given.dropout)(x)
        if self.labels is not None:
            x = layers.Dense(len(self.labels), activation="softmax", name="probabilities")(x)
        else:
            x = self._scaled_back(x)
        return keras.Model(inputs, x)

    def export(self, model: Any, shown: Rows, outputs: Array, folder: Path) -> ExportKind:
        model.save(folder / "model.keras")
        if self.labels is not None:
            (folder / "labels.json").write_bytes(msgspec.json.encode(self.labels))
        if self.asked.data.description.kind == "arrays":
            name = str(model.inputs[0]._keras_history.operation.name)
            given: dict[str, Any] = {name: np.asarray(shown.inputs[0], np.float32)}
            np.savez(folder / "rows.npz", **given, outputs=outputs)
            return "keras"
        (folder / columns.FILE).write_bytes(msgspec.json.encode(self._served))
        (folder / "rows.json").write_bytes(msgspec.json.encode(self._rows(outputs)))
        return "keras_tabular"

    # --- what is learnt ----------------------------------------------------------------------

    def _wanted(self, column: Column) -> tuple[Array, NDArray[np.int32] | None]:
        task = self.asked.parameters.task
        if task == "classification" or (task == "auto" and targets.is_class(column)):
            numbers, self.labels = targets.classes(self.asked.data, column)
            return numbers, numbers
        self.target = "numbers"
        values = targets.numbers(self.asked.data, column)
        if values.ndim != 2:
            raise InvalidRequest(f"a row of {column.name} is more than a list", param="target")
        return values, None

    # --- columns -----------------------------------------------------------------------------

    def _of_table(self, given: list[Column]) -> list[Array]:
        if len(given) > MAX_COLUMNS:
            raise InvalidRequest(
                f"{len(given)} columns are too many: up to {MAX_COLUMNS} are read; name them",
                param="inputs",
            )
        self._served: list[Served] = []
        arrays = []
        for at, column in enumerate(given):
            if column.kind == "text":
                raise InvalidRequest(
                    f"column {column.name} is text, which the recipe does not read; name the "
                    "inputs, or say that it is a category (kinds) when the data set is made",
                    param="inputs",
                )
            make = self._number if column.kind == "number" else self._category
            served, values = make(column, f"column_{at}")
            self._served.append(served)
            arrays.append(values)
        return arrays

    def _number(self, column: Column, port: str) -> tuple[Served, Array]:
        values = np.asarray(self.asked.data.array(column.name), np.float32)
        if np.isinf(values).any():
            raise InvalidRequest(f"{column.name} holds numbers that are too large", param="inputs")
        gaps = np.isnan(values)
        missing = None
        if gaps.any():
            known = values[self.asked.data.rows("train")].astype(np.float64)
            known = known[~np.isnan(known)]
            missing = float(np.float32(known.mean())) if len(known) else 0.0
            values = np.where(gaps, np.float32(missing), values)
        served = Served(name=column.name, kind="number", missing=missing, input=port)
        return served, values[:, None]

    def _category(self, column: Column, port: str) -> tuple[Served, Array]:
        texts = self.asked.data.texts(column.name)
        rows = self.asked.data.rows("train")
        counts = Counter(texts[at] for at in rows)
        least = 2 if len(rows) > RARE else 1
        found = [one for one, count in counts.items() if one and count >= least]
        found = sorted(found, key=lambda one: (-counts[one], one))[:MAX_VALUES]
        served = Served(name=column.name, kind="category", values=found, input=port)
        return served, np.array(columns.Places(served)(texts), np.int32)[:, None]

    def _rows(self, outputs: Array) -> list[dict[str, Any]]:
        data = self.asked.data
        rows = shown_rows(data)[: len(outputs)]
        cells: dict[str, list[Any]] = {}
        for column in self._served:
            if column.kind == "number":
                numbers = data.array(column.name)[rows].astype(np.float32).tolist()
                cells[column.name] = [None if one != one else one for one in numbers]
            else:
                texts = data.texts(column.name)
                cells[column.name] = [texts[at] or None for at in rows]
        return [
            {"row": {name: values[at] for name, values in cells.items()}, "outputs": told.tolist()}
            for at, told in enumerate(outputs)
        ]

    # --- the network's ends ------------------------------------------------------------------

    def _columns(self) -> tuple[list[Any], Any]:
        ports, numbers, rest, trained = [], [], [], []
        for column, values in zip(self._served, self._trained.inputs, strict=True):
            number = column.kind == "number"
            port = keras.Input((1,), dtype="float32" if number else "int32", name=column.port)
            ports.append(port)
            if number:
                numbers.append(port)
                trained.append(self._of_training(values))
                continue
            count = len(column.values) + 1
            size = min(self.asked.parameters.dimensions, (count + 1) // 2)
            rest.append(layers.Flatten()(layers.Embedding(count, max(1, size))(port)))
        if numbers:
            together = layers.Concatenate()(numbers) if len(numbers) > 1 else numbers[0]
            rest.insert(0, _normalised(together, np.concatenate(trained, 1)))
        return ports, layers.Concatenate()(rest) if len(rest) > 1 else rest[0]

    def _array(self) -> tuple[Any, Any]:
        values = self._of_training(self._trained.inputs[0])
        given = keras.Input(values.shape[1:] or (1,), dtype="float32", name="inputs")
        flat = layers.Flatten()(given) if values.ndim > 2 else given
        return given, _normalised(flat, values.reshape(len(values), -1))

    def _scaled_back(self, x: Any) -> Any:
        """The last layer learns numbers of size 1; the network answers in the target's own."""
        values = self._of_training(self._trained.targets)
        x = layers.Dense(values.shape[1])(x)
        return _normalised(x, values, farthest=np.inf, invert=True, name="outputs")

    def _of_training(self, values: Array) -> Array:
        return np.asarray(values[self._trained.places])


def _normalised(x: Any, values: Array, *, farthest: float = FARTHEST, **options: Any) -> Any:
    """A ``Normalization`` as it adapts itself to these values [rows, N], but that a column which
    varies not at all stays as it is, and one that hardly ever varies, as a pixel at an image's
    edge, is not blown up when it does."""
    numbers = values.astype(np.float64)
    mean, variance = numbers.mean(0), numbers.var(0)
    variance = np.maximum(variance, np.square(np.abs(numbers - mean).max(0) / farthest))
    variance[variance <= 1e-12 * np.square(mean)] = 1.0
    variance[variance == 0] = 1.0
    layer = layers.Normalization(**options)
    layer.build((None, numbers.shape[1]))
    layer.adapt_mean.assign(mean.astype(np.float32))
    layer.adapt_variance.assign(variance.astype(np.float32))
    layer.finalize_state()
    return layer(x)
