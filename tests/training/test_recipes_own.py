"""Networks of the caller's own: what they take, and what they learn, in all its forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.training import canonical, jobs
from tests.training.networks import dense, functional, sequential

from openmaas.training import task
from openmaas.training.task import Failure, Result

ROWS = 240
CHANCE = np.random.default_rng(4)
X = CHANCE.normal(size=(ROWS, 6)).astype(np.float32)
CLASS = X[:, :3].argmax(1)
NAMES = np.array(["bee", "ant", "cat"])[CLASS]
FIT = {"optimizer": {"learning_rate": 0.02}, "epochs": 12, "metrics": ["accuracy"]}
THREE = sequential(6, dense(16, "relu"), dense(3, "softmax"))


def dataset(folder: Path, y: Any, target: str = "y") -> Path:
    return canonical.arrays(folder, {"x": X, target: np.asarray(y)}, target=target)


def numbers_of_table(folder: Path) -> Path:
    given: dict[str, Any] = {f"c{at}": X[:, at].tolist() for at in range(6)} | {"y": NAMES.tolist()}
    kinds = dict.fromkeys(given, "number") | {"y": "category"}
    return canonical.table(folder, given, kinds, target="y")


def cases(place: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Name → data and job."""
    integers = dataset(place / "integers", CLASS)
    binary = dataset(place / "binary", (X[:, 0] > 0).astype(np.int64))
    two = canonical.arrays(
        place / "two", {"right": X[:, 3:], "left": X[:, :3], "y": CLASS}, target="y"
    )
    table = numbers_of_table(place / "table")
    plain = {"network": {"config": THREE}, "fit": FIT}
    loss = {"loss": "categorical_crossentropy"}
    ends = sequential(6, dense(8, "relu"), dense(1))
    return {
        "integers": (integers, plain),
        "from ten": (dataset(place / "ten", CLASS * 5 + 10), plain),
        "one-hot": (dataset(place / "hot", np.eye(3, dtype=np.float32)[CLASS]), plain),
        "one-hot by loss": (integers, plain | {"fit": FIT | loss}),
        "balanced": (integers, plain | {"fit": FIT | {"class_weight": "balanced"}}),
        "by label": (integers, plain | {"fit": FIT | {"class_weight": {"0": 100.0}}}),
        "table": (table, plain),
        "names": (table, plain | {"inputs": ["c1", "c0", "c2", "c3", "c4", "c5"]}),
        "two classes": (binary, {"network": {"config": _sigmoid()}, "fit": FIT}),
        "numbers": (
            dataset(place / "numbers", X[:, 0] * 2 + 1),
            {"network": {"config": ends}, "fit": FIT | {"metrics": ["mae"], "epochs": 30}},
        ),
        "two inputs": (two, {"network": {"config": functional(left=3, right=3)}, "fit": FIT}),
        "a label that is not there": (
            integers,
            plain | {"fit": FIT | {"class_weight": {"cow": 2.0}}},
        ),
        "momentum of adam": (integers, plain | {"fit": {"optimizer": {"momentum": 0.9}}}),
        "two schedules": (
            integers,
            plain
            | {"fit": {"callbacks": [{"name": "cosine_decay"}, {"name": "exponential_decay"}]}},
        ),
        "no such loss": (integers, plain | {"fit": {"loss": "hope"}}),
        "no such metric": (integers, plain | {"fit": {"metrics": ["hope"]}}),
        "no such callback's metric": (
            integers,
            plain | {"fit": {"callbacks": [{"name": "early_stopping", "monitor": "val_hope"}]}},
        ),
        "parameters": (integers, plain | {"parameters": {"units": 3}}),
    }


def _sigmoid() -> dict[str, Any]:
    return sequential(6, dense(8, "relu"), dense(1, "sigmoid"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Result | Failure, Path]]:
    place = tmp_path_factory.mktemp("own")
    wanted = cases(place)
    folders = [
        jobs.job(place / f"job{at}", data, spec) for at, (data, spec) in enumerate(wanted.values())
    ]
    results = jobs.run_together(folders)
    return dict(zip(wanted, zip(results, folders, strict=True), strict=True))


Done = dict[str, tuple[Result | Failure, Path]]


def labels(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / task.EXPORT / "labels.json").read_text())
    return found


@pytest.mark.parametrize(
    ("case", "named", "loss"),
    [
        ("integers", ["0", "1", "2"], "sparse_categorical_crossentropy"),
        ("from ten", ["10", "15", "20"], "sparse_categorical_crossentropy"),
        ("one-hot", ["0", "1", "2"], "categorical_crossentropy"),
        ("one-hot by loss", ["0", "1", "2"], "categorical_crossentropy"),
        ("balanced", ["0", "1", "2"], "sparse_categorical_crossentropy"),
        ("table", ["ant", "bee", "cat"], "sparse_categorical_crossentropy"),
        ("two classes", ["0", "1"], "binary_crossentropy"),
        ("two inputs", ["0", "1", "2"], "sparse_categorical_crossentropy"),
    ],
)
def test_classes_in_every_form(done: Done, case: str, named: list[str], loss: str) -> None:
    result, folder = done[case]
    assert isinstance(result, Result), result
    assert (result.metrics["accuracy"] or 0) > 0.7
    assert labels(folder) == named
    assert result.fit["loss"] == loss
    assert result.confusion is not None
    assert sum(map(sum, result.confusion.rows)) == result.rows["test"]


def test_columns_are_taken_in_the_order_asked(done: Done) -> None:
    result, folder = done["names"]
    assert isinstance(result, Result), result
    with np.load(folder / task.EXPORT / "rows.npz", allow_pickle=False) as rows:
        shown = rows["pixels"]
    test = np.flatnonzero(canonical.split(ROWS) == 2)
    np.testing.assert_array_equal(shown[:, :2], X[test][:, [1, 0]])


def test_inputs_are_found_by_their_names(done: Done) -> None:
    _, folder = done["two inputs"]
    with np.load(folder / task.EXPORT / "rows.npz", allow_pickle=False) as rows:
        assert rows["left"].shape == rows["right"].shape == (24, 3)
        test = np.flatnonzero(canonical.split(ROWS) == 2)
        np.testing.assert_array_equal(rows["left"], X[test][:, :3])


def test_a_class_that_weighs_more_is_told_more(done: Done) -> None:
    def told(case: str) -> int:
        result, _ = done[case]
        assert isinstance(result, Result), result
        assert result.confusion is not None
        return sum(row[0] for row in result.confusion.rows)

    assert told("by label") > told("integers")


def test_numbers_are_learnt(done: Done) -> None:
    result, folder = done["numbers"]
    assert isinstance(result, Result), result
    assert (result.metrics["r2"] or 0) > 0.8
    assert result.fit["loss"] == "mse"
    assert result.confusion is None
    assert not (folder / task.EXPORT / "labels.json").exists()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("a label that is not there", "no label 'cow'; there are 0, 1, 2"),
        ("momentum of adam", "adam has no momentum; sgd, rmsprop have"),
        ("two schedules", "not several"),
        ("no such loss", "no loss 'hope'"),
        ("no such metric", "no metric 'hope'"),
        ("no such callback's metric", "watches 'val_hope'; there are"),
        ("parameters", "parameters are for recipes"),
    ],
)
def test_what_is_refused_is_named(done: Done, case: str, words: str) -> None:
    result, _ = done[case]
    assert isinstance(result, Failure), result
    assert result.code == "invalid_request"
    assert words in result.message
