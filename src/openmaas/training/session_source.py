"""What a session learns on: its network, optimizer and loss, and the rows of its data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.training import fitting, network, parameters
from openmaas.training.data import Dataset
from openmaas.training.precision import compute_in
from openmaas.training.recipes.base import SHOWN, Asked, Prepared, Recipe
from openmaas.training.session_network import SessionNetwork
from openmaas.training.session_task import PREPARED, SessionTask
from openmaas.training.spec import Fit, SessionSpec
from openmaas.training.training import recipe as recipe_of

Array = NDArray[Any]
Port = tuple[str, tuple[int | None, ...], str]  # name, shape and dtype of an input
MOST_ROWS = 65_536  # of one call


class Source:
    """A network of the caller's own, without data of the server's.

    Raises:
        InvalidRequest: network, loss or data do not fit.
    """

    model: Any
    optimizer: Any
    loss: str
    prepared: Prepared | None = None  # the rows of the data set, where there is one

    def __init__(self, task: SessionTask, folder: Path) -> None:
        self.dtype = task.spec.dtype
        compute_in(self.dtype)
        try:
            self._make(task, folder)
        except ArtifactRefused as error:
            raise InvalidRequest(error.message, param="network") from None
        except InvalidRequest as error:
            where = (error.param or "").removeprefix("fit.") or None
            raise InvalidRequest(error.message, param=where) from None
        self.inputs: list[Port] = [
            (str(one._keras_history.operation.name), tuple(one.shape), str(one.dtype))
            for one in self.model.inputs
        ]

    def of_rows(self, rows: Sequence[int]) -> tuple[list[Array], Array]:
        """Inputs and targets of rows of the data set.

        Raises:
            InvalidRequest: there is no data set, or no such row.
        """
        raise InvalidRequest("the session was opened without a data set", param="rows")

    def export(self, learned: SessionNetwork, seen: Sequence[Array], folder: Path) -> str:
        """Writes the layout of a kind of ``registry.convert``, and returns the kind.

        Args:
            seen: rows to verify the version with, where there are none of a data set.
        """
        model = self._exported(learned, folder)
        given = [one.astype(str(port.dtype)) for one, port in zip(seen, model.inputs, strict=True)]
        outputs = _outputs(model, given)
        arrays: dict[str, Any] = {
            name: one for (name, _, _), one in zip(self.inputs, given, strict=True)
        }
        model.save(folder / "model.keras")
        np.savez(folder / "rows.npz", outputs=outputs, **arrays)
        return "keras"

    def _make(self, task: SessionTask, folder: Path) -> None:
        spec, given = task.spec, task.spec.network
        if given is not None and given.config is not None:
            self.model = network.from_config(_typed(given.config, spec.dtype), spec.seed)
        else:
            assert task.network is not None
            made = network.from_file(Path(task.network), spec.seed, compiled=False)
            self.model = made if spec.dtype == "float32" else _retyped(made, spec.dtype)
        self.optimizer = fitting.optimizer(Fit(optimizer=spec.optimizer), steps=1)
        self.loss = _known(spec.loss)

    def _exported(self, learned: SessionNetwork, folder: Path) -> Any:
        """The network in float32, as it is served, and an empty folder."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        model = learned.settle()
        if self.dtype != "float32":
            model = _retyped(model, "float32")
            keras.config.set_floatx(self.dtype)
        return model


class DataSource(Source):
    """A recipe's network, or one's own, with the rows of a data set."""

    _recipe: Recipe
    prepared: Prepared

    def of_rows(self, rows: Sequence[int]) -> tuple[list[Array], Array]:
        every = self.prepared.train
        count = len(every.targets)
        if not 1 <= len(rows) <= MOST_ROWS or not all(0 <= row < count for row in rows):
            raise InvalidRequest(
                f"rows are from 1 to {MOST_ROWS} numbers from 0 to {count - 1}", param="rows"
            )
        places = np.asarray(rows)
        inputs = [
            np.asarray(one[places]).astype(dtype)
            for one, (_, _, dtype) in zip(every.inputs, self.inputs, strict=True)
        ]
        return inputs, np.asarray(every.targets[places])

    def export(self, learned: SessionNetwork, seen: Sequence[Array], folder: Path) -> str:
        model = self._exported(learned, folder)
        _, held_out = self.prepared.held_out
        shown = (held_out or self.prepared.train).take(slice(0, SHOWN))
        return self._recipe.export(model, shown, _outputs(model, shown.inputs), folder)

    def _make(self, task: SessionTask, folder: Path) -> None:
        spec = task.spec
        fit = Fit(optimizer=spec.optimizer, loss=spec.loss, seed=spec.seed)
        keras.utils.set_random_seed(spec.seed)
        self._recipe = recipe_of(spec.recipe)(self._asked(task, fit, folder / PREPARED))
        self.prepared = self._recipe.prepare()
        self.model = self._recipe.build()
        # Schedules and early stopping are of runs; a session's steps say their own learning rate.
        filled = fitting.filled(fit, self._recipe.own_fit)
        self._recipe.compile(self.model, msgspec.structs.replace(filled, callbacks=[]), 1)
        self.optimizer, self.loss = self.model.optimizer, _known(self.model.loss)

    def _asked(self, task: SessionTask, fit: Fit, prepared: Path) -> Asked:
        assert task.dataset is not None
        spec: SessionSpec = task.spec
        prepared.mkdir(exist_ok=True)
        own = spec.network
        if own is not None and own.config is not None:
            own = msgspec.structs.replace(own, config=_typed(own.config, spec.dtype))
        elif own is not None and spec.dtype != "float32":
            raise InvalidRequest(
                "a file's network on a data set computes in float32", param="dtype"
            )
        return Asked(
            data=Dataset(Path(task.dataset)),
            inputs=spec.inputs,
            target=spec.target,
            parameters=parameters.parsed(spec.recipe, spec.parameters),
            fit=fit,
            prepared=prepared,
            network=own,
            network_file=None if task.network is None else Path(task.network),
            private=spec.privacy is not None,
        )


def open_source(task: SessionTask, folder: Path) -> Source:
    """
    Raises:
        InvalidRequest: network, loss or data do not fit.
    """
    return Source(task, folder) if task.dataset is None else DataSource(task, folder)


def _known(loss: Any) -> str:
    if loss not in fitting.LOSSES:
        there = ", ".join(sorted(fitting.LOSSES))
        raise InvalidRequest(f"no loss {str(loss)[:64]!r}; there are {there}", param="loss")
    return str(loss)


def _outputs(model: Any, inputs: list[Array]) -> Array:
    return np.asarray(model.predict(network.arranged(model, inputs), verbose=0))


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
