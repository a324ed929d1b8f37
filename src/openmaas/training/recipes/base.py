"""What a recipe is: from a data set to a network, and from that to what is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import InvalidRequest
from openmaas.training import fitting, targets
from openmaas.training.data import Dataset
from openmaas.training.rows import Array, Rows
from openmaas.training.spec import Fit
from openmaas.training.task import Confusion, ExportKind

SHOWN = 64  # held-out rows that go into an export, for its verification


class Asked(NamedTuple):
    """What a recipe is given."""

    data: Dataset
    inputs: list[str] | None
    target: str | None
    parameters: Any  # the recipe's own struct
    fit: Fit  # as the caller wrote it
    prepared: Path  # a folder for what is made once and found again by a resumed run
    encoder: Path | None = None
    network: Any = None  # spec.Network
    network_file: Path | None = None
    pause: Callable[[], None] = lambda: None  # raises where the process is to stop
    say: Callable[[str], None] = lambda text: None
    threads: int = 1
    private: bool = False  # each row's part in a step is clipped: no layer may mix rows


class Prepared(NamedTuple):
    """Rows of each split; one without rows is None, but for the first."""

    train: Rows
    validation: Rows | None
    test: Rows | None

    @property
    def held_out(self) -> tuple[str, Rows | None]:
        """The rows that a result is judged by: never trained on, and not looked at if there are
        test rows."""
        if self.test is not None:
            return "test", self.test
        return ("validation", self.validation) if self.validation is not None else ("none", None)


class Recipe:
    """One run of a recipe. ``prepare`` comes first, then ``build``; both give the same twice.

    ``labels`` are those of classes, if that is what is learnt; ``target`` says how they are given.
    """

    own_fit = Fit(optimizer="adam", epochs=10, batch_size=32)  # where the caller says nothing

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.labels: list[str] | None = None
        self.target: fitting.Target = "classes"

    def prepare(self) -> Prepared:
        """
        Raises:
            InvalidRequest: the data do not fit the recipe.
        """
        raise NotImplementedError

    def build(self) -> Any:
        """A network with the weights that Keras gives one of this seed."""
        raise NotImplementedError

    def compile(self, model: Any, fit: Fit, steps: int) -> None:
        """
        Raises:
            InvalidRequest: the fit names what is not known or does not fit the network.
        """
        fitting.compile_network(model, fit, self.target, steps)

    def judge(
        self, model: Any, rows: Rows, outputs: Array
    ) -> tuple[dict[str, float], Confusion | None]:
        """Metrics of held-out rows beyond those that the network was compiled with."""
        from openmaas.training import evaluate

        if self.labels is not None:
            return evaluate.classes(rows.targets, outputs, self.labels)
        return evaluate.numbers(rows.targets, outputs), None

    keeps_outputs = True  # whether ``judge`` and ``export`` are given what the network answers

    def export(self, model: Any, shown: Rows, outputs: Array, folder: Path) -> ExportKind:
        """Writes what is served.

        Args:
            shown: held-out rows, and ``outputs`` the network's answers to them.
        """
        raise NotImplementedError


def splits(data: Dataset, inputs: list[Array], wanted: Array, weights: Array | None) -> Prepared:
    """Rows of each split, of arrays of all rows.

    Raises:
        InvalidRequest: nothing to train on.
    """

    def rows(name: Any) -> Rows | None:
        places = data.rows(name)
        # Only rows that are trained on are weighed.
        own = weights if name == "train" else None
        return Rows(inputs, wanted, own, places) if len(places) else None

    train = rows("train")
    if train is None:
        raise InvalidRequest("the data set has no rows to train on", param="dataset")
    return Prepared(train, rows("validation"), rows("test"))


def row_weights(
    asked: Asked, numbers: NDArray[np.int32] | None, labels: list[str] | None
) -> Array | None:
    """Of each row, as ``class_weight`` says.

    Raises:
        InvalidRequest: nothing has classes, or a label is not known.
    """
    wanted = asked.fit.class_weight
    if wanted is None:
        return None
    if numbers is None or labels is None:
        raise InvalidRequest(
            "class_weight is for classes; the target is no class", param="fit.class_weight"
        )
    if wanted == "balanced":
        weights = targets.balanced(numbers[asked.data.rows("train")], len(labels))
    else:
        unknown = sorted(set(wanted) - set(labels))
        if unknown:
            raise InvalidRequest(
                f"class_weight: no label {unknown[0][:100]!r}; there are {', '.join(labels)[:500]}",
                param="fit.class_weight",
            )
        weights = np.array([wanted.get(label, 1.0) for label in labels], np.float32)
    return weights[numbers]
