"""Networks that come as ``.keras`` files: with what they were compiled, if it is Keras's own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tests.training import canonical, jobs

from openmaas.training.task import Failure, Result

MAKE = """
import sys, keras
from pathlib import Path
place = Path(sys.argv[1])
def network(*last):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu"),
                             *(last or [layers.Dense(3, activation="softmax")])])
plain = network()
plain.save(place / "plain.keras")
rate = keras.optimizers.schedules.ExponentialDecay(0.5, 100, 0.9)
compiled = network()
compiled.compile(keras.optimizers.SGD(rate, momentum=0.5), "sparse_categorical_crossentropy",
                 metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_two")])
compiled.save(place / "compiled.keras")
logits = network(keras.layers.Dense(3))
logits.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
logits.save(place / "logits.keras")
def own(y, p):
    return keras.ops.mean(p)
strange = network()
strange.compile("adam", own)
strange.save(place / "strange.keras")
"""
CHANCE = np.random.default_rng(4)
X = CHANCE.normal(size=(240, 6)).astype(np.float32)
FIT = {"epochs": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", FIT | {"optimizer": "adam"}),
    "compiled": ("compiled", FIT),
    "another optimizer": ("compiled", FIT | {"optimizer": "lion"}),
    "logits": ("logits", FIT),
    "strange": ("strange", FIT),
    "strange, with a loss": ("strange", FIT | {"loss": "sparse_categorical_crossentropy"}),
    "two schedules": ("compiled", FIT | {"callbacks": [{"name": "cosine_decay"}]}),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result | Failure]:
    place = tmp_path_factory.mktemp("files")
    subprocess.run(
        [sys.executable, "-c", MAKE, str(place)],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        check=True,
        timeout=300,
    )
    data = canonical.arrays(place / "data", {"x": X, "y": X[:, :3].argmax(1)}, target="y")
    folders = [
        jobs.job(
            place / f"job{at}",
            data,
            {"network": {"upload": "upload_0"}, "fit": fit},
            network=str(place / f"{name}.keras"),
        )
        for at, (name, fit) in enumerate(CASES.values())
    ]
    return dict(zip(CASES, jobs.run_together(folders), strict=True))


def succeeded(found: Result | Failure) -> Result:
    assert isinstance(found, Result), found
    return found


def test_a_network_that_was_not_compiled(done: dict[str, Result | Failure]) -> None:
    result = succeeded(done["plain"])
    assert result.fit["loss"] == "sparse_categorical_crossentropy"
    assert "accuracy" in result.history[0]


def test_how_it_was_compiled_is_kept(done: dict[str, Result | Failure]) -> None:
    result = succeeded(done["compiled"])
    assert result.fit["optimizer"] == "sgd"
    assert "top_two" in result.history[0]
    first, second = (row["learning_rate"] for row in result.history)
    assert first == pytest.approx(0.5 * 0.9 ** (6 / 100))
    assert second == pytest.approx(0.5 * 0.9 ** (12 / 100))


def test_what_the_fit_says_comes_first(done: dict[str, Result | Failure]) -> None:
    result = succeeded(done["another optimizer"])
    assert result.fit["optimizer"] == "lion"
    assert "top_two" in result.history[0]


def test_a_loss_of_logits_is_kept(done: dict[str, Result | Failure]) -> None:
    result = succeeded(done["logits"])
    assert result.fit["loss"] == "sparse_categorical_crossentropy"
    assert (result.history[1]["loss"] or 9) < 3


def test_a_loss_of_ones_own_is_refused_unless_another_is_named(
    done: dict[str, Result | Failure],
) -> None:
    refused = done["strange"]
    assert isinstance(refused, Failure), refused
    assert refused.code == "artifact_refused"
    assert "Name a loss in the fit" in refused.message
    assert isinstance(done["strange, with a loss"], Result)


def test_a_schedule_for_an_optimizer_that_brings_its_own(
    done: dict[str, Result | Failure],
) -> None:
    refused = done["two schedules"]
    assert isinstance(refused, Failure), refused
    assert refused.code == "invalid_request"
    assert "own learning rate" in refused.message
