"""The loop's engine on JAX: many steps in one compiled call, as calls cost more than small
networks do.

A step is Keras's own ``train_step``, so the numbers are those of ``model.fit``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax

from openmaas.training.loop import Metrics, room
from openmaas.training.network import arranged
from openmaas.training.rows import Array, Rows, near_divisor

_GROUPS = ("trainable", "fixed", "optimizer", "metrics")

State = tuple[list[Any], list[Any], list[Any], list[Any]]  # the variables' values, by group


class JaxEngine:
    """
    Args:
        model: compiled; its variables are brought up to date by ``finish``.
        rows: what it will be trained on; only types and shapes are looked at.
        batch: rows of a step.
        later: rows that will be evaluated, so that this is compiled while training begins.
        answers: whether evaluations can give what the network answers.
    """

    def __init__(
        self, model: Any, rows: Rows, batch: int, later: Sequence[Rows] = (), answers: bool = False
    ) -> None:
        self._model = model
        self._answers = answers
        self._batch = batch
        sample = rows.take(slice(0, min(batch, rows.size)))
        # What ``fit`` does before its first step: no public call builds metrics and loss.
        self._sample = self._data(sample)
        model._symbolic_build(data_batch=self._sample)
        self._variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        self._state: State = self._read()
        self._zeros = [np.asarray(one) for one in self._state[3]]
        schedule = model.optimizer._learning_rate
        scheduled = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
        self._schedule = jax.jit(schedule.__call__) if scheduled else None
        self._logs: dict[str, Any] = {}
        self._block: Any = None
        self._block_batch = batch
        self._programs: dict[Any, Future[Any]] = {}
        # XLA compiles without Python's lock: all shapes at once, where there are cores for it.
        self._pool = ThreadPoolExecutor(2)
        self._compile(rows)
        for one in later:
            self._evaluator(one)

    def _compile(self, rows: Rows) -> None:
        """Begins to compile what trains."""
        whole, rest = divmod(rows.size, self._batch)
        if whole:
            self._trainer(room(rows, self._batch), self._batch)
        if rest:
            self._trainer(rest, rest)

    # --- training ----------------------------------------------------------------------------

    def load(self, rows: Rows, batch: int, room: int) -> None:
        data = self._data(rows)
        if rows.size < room:
            # The last block is shorter; padded, it is no new shape to compile for.
            data = jax.tree.map(lambda one: _padded(one, room), data)
        self._block, self._block_batch = jax.tree.map(jnp.asarray, data), batch

    def run(self, first: int, count: int) -> None:
        program = self._trainer(len(self._block[1]), self._block_batch).result()
        self._state, self._logs = program(
            self._state, self._block, np.int32(first), np.int32(first + count)
        )

    def _trainer(self, rows: int, batch: int) -> Future[Any]:
        """The program that trains on blocks of so many rows."""
        key = ("train", rows, batch)
        if key not in self._programs:
            shape: Any = jax.ShapeDtypeStruct
            shapes = jax.tree.map(
                lambda one: shape((rows, *one.shape[1:]), one.dtype), self._sample
            )
            run = jax.jit(self._train_program(batch), donate_argnums=0)
            # What runs once an epoch is not worth the time that making it fast takes.
            options: Any = {"xla_backend_optimization_level": 0} if batch < self._batch else None
            lowered = run.lower(self._state, shapes, 0, 1)
            self._programs[key] = self._pool.submit(lowered.compile, options)
        return self._programs[key]

    def _train_program(self, batch: int) -> Callable[..., Any]:
        def run(state: State, block: Any, first: Any, end: Any) -> tuple[State, Any]:
            def step(at: Any, state: State) -> State:
                data = jax.tree.map(
                    lambda one: lax.dynamic_slice_in_dim(one, at * batch, batch), block
                )
                groups = self._model.train_step(state, data)[1]
                return tuple(list(group) for group in groups)  # type: ignore[return-value]

            state = lax.fori_loop(first, end, step, state)
            return state, self._results(state[3])

        return run

    def _results(self, metrics: list[Any]) -> Any:
        pairs = list(zip(self._variables[3], metrics, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return self._model.get_metrics_result()

    # --- metrics and evaluation ----------------------------------------------------------------

    def metrics(self) -> Metrics:
        return {name: float(value) for name, value in self._logs.items()}

    def reset(self) -> None:
        self._state = (*self._state[:3], [jnp.array(one) for one in self._zeros])

    def evaluate(self, rows: Rows, *, outputs: bool = False) -> tuple[Metrics, Array | None]:
        batch, whole = self._sizes(rows)
        metrics: Any = [jnp.array(one) for one in self._zeros]
        found: list[Array] = []
        logs: Any = {}
        for start, end in ((0, whole * batch), (whole * batch, rows.size)):
            if start == end:
                continue
            part = rows.take(slice(start, end))
            size = min(batch, part.size)
            program = self._evaluator(part, size).result()
            block = jax.tree.map(jnp.asarray, self._data(part))
            metrics, logs, answers = program(self._state[0], self._state[1], metrics, block)
            found += [np.asarray(answers)] if outputs else []
        told = {name: float(value) for name, value in logs.items()}
        return told, np.concatenate(found) if outputs else None

    def _sizes(self, rows: Rows) -> tuple[int, int]:
        """Batch size of an evaluation, and how many whole batches there are."""
        batch = near_divisor(rows.size, 4 * self._batch)
        return batch, rows.size // batch

    def _evaluator(self, rows: Rows, batch: int | None = None) -> Future[Any]:
        if batch is None:
            batch, whole = self._sizes(rows)
            rows = rows.take(slice(0, whole * batch))
        key = ("evaluate", rows.size, batch)
        if key not in self._programs:
            lowered = jax.jit(self._evaluate_program(batch)).lower(
                *self._state[:2], self._state[3], self._data(rows)
            )
            self._programs[key] = self._pool.submit(lowered.compile)
        return self._programs[key]

    def _evaluate_program(self, batch: int) -> Callable[..., Any]:
        model, answers = self._model, self._answers

        def step(weights: Any, metrics: Any, data: Any) -> tuple[Any, Any]:
            x, y, weight = (*data, None)[:3]
            _loss, (unscaled, told, _, metrics) = model.compute_loss_and_updates(
                *weights, metrics, x, y, weight, training=False
            )
            _, metrics = model._update_metrics_variables(metrics, unscaled, x, y, told, weight)
            return list(metrics), told if answers else jnp.zeros(())

        def run(trainable: Any, fixed: Any, metrics: Any, block: Any) -> Any:
            batches = jax.tree.map(
                lambda one: one.reshape(len(one) // batch, batch, *one.shape[1:]), block
            )
            weights = (trainable, fixed)
            metrics, told = lax.scan(lambda m, d: step(weights, m, d), metrics, batches)
            told = told.reshape(-1, *told.shape[2:]) if answers else told
            return metrics, self._results(metrics), told

        return run

    # --- state -------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        if self._schedule is None:
            return float(self._state[2][self._place(self._model.optimizer._learning_rate)])
        return float(self._schedule(self._state[2][self._place(self._model.optimizer.iterations)]))

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        at = self._place(self._model.optimizer._learning_rate)
        self._state[2][at] = jnp.asarray(rate, self._state[2][at].dtype)

    def _place(self, variable: Any) -> int:
        return next(at for at, one in enumerate(self._variables[2]) if one is variable)

    def state(self) -> dict[str, Array]:
        return {
            f"{name}.{at}": np.array(value)
            for name, group in zip(_GROUPS, self._state, strict=True)
            for at, value in enumerate(group)
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        groups = [
            [jnp.array(state[f"{name}.{at}"]) for at in range(len(group))]
            for name, group in zip(_GROUPS, self._state, strict=True)
        ]
        self._state = tuple(groups)  # type: ignore[assignment]

    def weights(self) -> list[Array]:
        return [np.array(one) for group in self._state[:2] for one in group]

    def set_weights(self, weights: list[Array]) -> None:
        count = len(self._state[0])
        arrays = [jnp.array(one) for one in weights]
        self._state = (arrays[:count], arrays[count:], *self._state[2:])

    def finish(self) -> None:
        """Gives the model's variables the values that they have here."""
        for variables, values in zip(self._variables, self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def _read(self) -> State:
        return tuple(  # type: ignore[return-value]
            [jnp.array(np.asarray(one.value)) for one in group] for group in self._variables
        )

    def _data(self, rows: Rows) -> Any:
        inputs = arranged(self._model, rows.inputs)
        if rows.weights is None:
            return inputs, rows.targets
        return inputs, rows.targets, rows.weights


def _padded(array: Array, rows: int) -> Array:
    return np.pad(array, [(0, rows - len(array)), *[(0, 0)] * (array.ndim - 1)])
