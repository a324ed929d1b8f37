"""The loop's engine on any backend of Keras, a step at a time.

What ``train_on_batch`` calls, but that metrics go on from batch to batch, as in ``fit``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from openmaas.training.loop import Metrics
from openmaas.training.network import arranged
from openmaas.training.rows import Array, Rows, near_divisor

_GROUPS = ("trainable", "fixed", "optimizer", "metrics")


class KerasEngine:
    """
    Args: as of ``JaxEngine``.
    """

    def __init__(self, model: Any, rows: Rows, batch: int) -> None:
        self._model = model
        self._batch = batch
        sample = rows.take(slice(0, min(batch, rows.size)))
        model._symbolic_build(data_batch=self._data(sample))
        self._variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        self._rows, self._rows_batch = rows, batch
        self._logs: dict[str, Any] = {}
        model.make_train_function()
        model.make_test_function()

    def load(self, rows: Rows, batch: int, room: int) -> None:
        self._rows, self._rows_batch = rows, batch

    def run(self, first: int, count: int) -> None:
        size = self._rows_batch
        for at in range(first, first + count):
            batch = self._given(self._rows.take(slice(at * size, (at + 1) * size)))
            self._logs = self._model.train_function(_alone(batch))

    def metrics(self) -> Metrics:
        return {name: float(value) for name, value in self._logs.items()}

    def reset(self) -> None:
        self._model.reset_metrics()

    def evaluate(self, rows: Rows, *, outputs: bool = False) -> tuple[Metrics, Array | None]:
        kept = [keras.ops.convert_to_numpy(one) for one in self._variables[3]]
        self._model.reset_metrics()
        size = near_divisor(rows.size, 4 * self._batch)
        found, logs = [], {}
        for start in range(0, rows.size, size):
            batch = self._given(rows.take(slice(start, start + size)))
            logs = self._model.test_function(_alone(batch))
            if outputs:
                found.append(np.asarray(self._model.predict_on_batch(batch[0])))
        for variable, value in zip(self._variables[3], kept, strict=True):
            variable.assign(value)
        told = {name: float(value) for name, value in logs.items()}
        return told, np.concatenate(found) if outputs else None

    @property
    def learning_rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self._model.optimizer.learning_rate))

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._model.optimizer.learning_rate = rate

    def state(self) -> dict[str, Array]:
        return {
            f"{name}.{at}": np.array(keras.ops.convert_to_numpy(variable))
            for name, group in zip(_GROUPS, self._variables, strict=True)
            for at, variable in enumerate(group)
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        for name, group in zip(_GROUPS, self._variables, strict=True):
            for at, variable in enumerate(group):
                variable.assign(state[f"{name}.{at}"])

    def weights(self) -> list[Array]:
        return [
            np.array(keras.ops.convert_to_numpy(one))
            for group in self._variables[:2]
            for one in group
        ]

    def set_weights(self, weights: list[Array]) -> None:
        variables = [one for group in self._variables[:2] for one in group]
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)

    def finish(self) -> None:
        """Nothing: the model's variables are the ones that were trained."""

    def _data(self, rows: Rows) -> tuple[Any, ...]:
        x, y, weight = self._given(rows)
        return (x, y) if weight is None else (x, y, weight)

    def _given(self, rows: Rows) -> tuple[Any, Array, Array | None]:
        inputs = arranged(self._model, rows.inputs)
        return inputs, rows.targets, rows.weights


def _alone(batch: Any) -> Any:
    """A batch as the backend's compiled function takes it."""
    return iter([batch]) if keras.backend.backend() == "tensorflow" else [batch]
