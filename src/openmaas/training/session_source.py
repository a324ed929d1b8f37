"""What a session learns on: its network, optimizer and loss, and the rows of its data set."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.registry.importers import keras_archive
from openmaas.training.data import Dataset
from openmaas.training.session_network import SessionNetwork
from openmaas.training.session_task import SessionTask
from openmaas.training.spec import Optimizer

Array = NDArray[Any]
MOST_ROWS = 65_536  # of one call
TARGETS = ("label", "target", "y", "class")


class Source:
    """An own network, and the arrays or number columns of a data set if there is one."""

    def __init__(self, task: SessionTask, folder: Path) -> None:
        spec = task.spec
        self.dtype = spec.dtype
        keras.config.set_floatx(spec.dtype)
        keras.utils.set_random_seed(spec.seed)
        self.model = _network(task, folder)
        self.optimizer = _optimizer(spec.optimizer)
        if spec.loss is None:
            raise InvalidRequest("a network of your own needs a loss", param="loss")
        self.loss = spec.loss
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

    def export(self, network: SessionNetwork, seen: Sequence[Array], folder: Path) -> str:
        """Writes the layout of a kind of ``registry.convert``, and returns the kind."""
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        model = network.settle()
        if self.dtype != "float32":
            weights = [np.asarray(one, one.dtype) for one in model.get_weights()]
            keras.config.set_floatx("float32")
            config = _typed(model.get_config(), "float32")
            model = type(model).from_config(config)
            model.set_weights(weights)
            keras.config.set_floatx(self.dtype)
        model.save(folder / "model.keras")
        given = [one.astype(str(port.dtype)) for one, port in zip(seen, model.inputs, strict=True)]
        outputs = model.predict(given if len(given) > 1 else given[0], verbose=0)
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


def open_source(task: SessionTask, folder: Path) -> Source:
    """
    Raises:
        InvalidRequest, ArtifactRefused: network, loss or data do not fit.
    """
    return Source(task, folder)


def _network(task: SessionTask, folder: Path) -> Any:
    spec = task.spec.network
    try:
        if spec is not None and spec.config is not None:
            # How it was compiled is nothing to a session, which says its own.
            config = {name: one for name, one in spec.config.items() if name != "compile_config"}
            keras_archive.check_config(copy.deepcopy(config))  # it writes over seeds
            made: Any = keras.saving.deserialize_keras_object(
                _typed(config, task.spec.dtype), safe_mode=True
            )
        else:
            assert task.network is not None
            archive = keras_archive.checked_copy(Path(task.network), folder / "tmp")
            made = keras.saving.load_model(archive, compile=False, safe_mode=True)
            if task.spec.dtype != "float32":
                weights = made.get_weights()
                config = _typed(made.get_config(), task.spec.dtype)
                made = type(made).from_config(config)
                made.set_weights(weights)
    except ArtifactRefused as error:
        raise InvalidRequest(error.message, param="network") from None
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason"]
        raise InvalidRequest(
            f"Keras cannot build the network: {lines[0][:300]}", param="network"
        ) from None
    if not isinstance(made, keras.Model) or not made.built:
        raise InvalidRequest(
            "the network is no Sequential or Functional model whose input shape is known",
            param="network",
        )
    return made


def _typed(config: Any, dtype: str) -> Any:
    """A configuration whose layers compute in another precision."""
    if dtype == "float32":
        other, wanted = "float64", "float32"
    else:
        other, wanted = "float32", dtype
    return json.loads(json.dumps(config).replace(f'"{other}"', f'"{wanted}"'))


def _optimizer(given: Optimizer | str | None) -> Any:
    wanted: Any = given or Optimizer()
    if isinstance(given, str):
        wanted = Optimizer(name=given)  # type: ignore[arg-type]  checked below
    names = {
        "sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop",
        "adagrad": "Adagrad", "nadam": "Nadam", "adamax": "Adamax", "lion": "Lion",
    }  # fmt: skip
    if wanted.name not in names:
        raise InvalidRequest(
            f"no optimizer {str(wanted.name)[:64]!r}; there are: {', '.join(names)}",
            param="optimizer",
        )
    settings = {
        name: getattr(wanted, name)
        for name in ("learning_rate", "momentum", "nesterov", "weight_decay", "beta_1", "beta_2")
        if getattr(wanted, name) is not None
    }
    if wanted.clip_norm is not None:
        settings["global_clipnorm"] = wanted.clip_norm
    try:
        return getattr(keras.optimizers, names[wanted.name])(**settings)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"optimizer {wanted.name}: {error}", param="optimizer") from None
