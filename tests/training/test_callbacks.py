"""What watches metrics, by itself; ``test_loop.py`` compares it with Keras's own."""

from __future__ import annotations

import numpy as np
import pytest

from openmaas.errors import InvalidRequest
from openmaas.training.callbacks import Watch
from openmaas.training.fitting import filled
from openmaas.training.spec import Callback, EarlyStopping, Fit, ReduceOnPlateau


class Weights:
    def __init__(self) -> None:
        self.now = 0

    def weights(self) -> list[np.ndarray]:
        return [np.full(2, self.now, np.float32)]


def watched(callbacks: list[Callback], values: list[float], name: str) -> tuple[Watch, list[float]]:
    watch, weights, rate = Watch(callbacks), Weights(), 1.0
    rates = []
    for epoch, value in enumerate(values, 1):
        weights.now = epoch
        rate = watch.look(epoch, {name: value}, rate, weights) or rate
        rates.append(rate)
        if watch.stopped:
            break
        told, arrays = watch.state()  # as if it had been resumed here
        watch = Watch(callbacks)
        watch.restore(told, arrays)
    return watch, rates


def test_early_stopping_keeps_the_best() -> None:
    watch, rates = watched([EarlyStopping(patience=2)], [3, 2, 2.5, 2.1, 1], "val_loss")
    assert len(rates) == 4
    assert watch.best is not None
    assert watch.best.epoch == 2
    np.testing.assert_array_equal(watch.best.weights[0], [2, 2])


def test_larger_accuracies_are_better() -> None:
    callbacks: list[Callback] = [EarlyStopping(monitor="val_accuracy", patience=1)]
    watch, rates = watched(callbacks, [0.5, 0.7, 0.6], "val_accuracy")
    assert len(rates) == 3
    assert watch.best is not None
    assert watch.best.epoch == 2


def test_differences_that_do_not_count() -> None:
    watch, rates = watched([EarlyStopping(patience=2, min_delta=0.5)], [3, 2.8, 2.6, 1], "val_loss")
    assert len(rates) == 3
    assert watch.stopped


def test_nothing_is_restored_that_is_not_wished() -> None:
    watch, _ = watched([EarlyStopping(patience=1, restore_best=False)], [1, 2], "val_loss")
    assert watch.stopped
    assert watch.best is None


def test_rates_are_reduced_down_to_the_least() -> None:
    callbacks: list[Callback] = [
        ReduceOnPlateau(patience=2, factor=0.1, min_learning_rate=0.05, monitor="loss")
    ]
    _, rates = watched(callbacks, [1, 1, 1, 1, 1, 0.5, 0.5], "loss")
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.05, 0.05, 0.05])


def test_a_metric_that_there_is_not_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"'val_loss'; there are loss .*no validation rows"):
        Watch([EarlyStopping()]).look(1, {"loss": 1.0}, 0.1, Weights())


def test_a_recipes_own_are_taken_where_none_are_given() -> None:
    own = Fit(epochs=9, callbacks=[EarlyStopping(patience=2)])
    assert filled(Fit(epochs=3), own).callbacks == own.callbacks
    assert filled(Fit(callbacks=[]), own).callbacks == []  # told so: trained to the end
