"""What looks at the metrics after each epoch: as Keras's callbacks of these names do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from openmaas.errors import InvalidRequest
from openmaas.training.rows import Array
from openmaas.training.spec import Callback, EarlyStopping, ReduceOnPlateau

PLATEAU = 1e-4  # that counts as better: Keras's min_delta
_LARGER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "r2", "cosine")
_BEST = "best."


class _Weights(Protocol):
    def weights(self) -> list[Array]: ...


class Best(NamedTuple):
    epoch: int  # from 1
    weights: list[Array]


class Watch:
    """The callbacks of one run that look at metrics; schedules are the optimizer's."""

    def __init__(self, callbacks: list[Callback]) -> None:
        self._callbacks = [
            one for one in callbacks if isinstance(one, EarlyStopping | ReduceOnPlateau)
        ]
        self._bests = [math.nan] * len(self._callbacks)  # of the metric that each watches
        self._waits = [0] * len(self._callbacks)  # epochs since then
        self.stopped = False
        self.best: Best | None = None  # of the first that restores weights

    def look(
        self, epoch: int, metrics: Mapping[str, float], rate: float, weights: _Weights
    ) -> float | None:
        """After an epoch (from 1); the learning rate from now on, if it is to change.

        Raises:
            InvalidRequest: there is no such metric.
        """
        reduced = None
        for at, one in enumerate(self._callbacks):
            if one.monitor not in metrics:
                raise InvalidRequest(
                    f"{_name(one)} watches {one.monitor!r}; there are {', '.join(metrics)}"
                    + _hint(one.monitor),
                    param="fit.callbacks",
                )
            if self._better(at, metrics[one.monitor]):
                self._bests[at], self._waits[at] = metrics[one.monitor], 0
                if isinstance(one, EarlyStopping) and one.restore_best and self._restores(at):
                    self.best = Best(epoch, weights.weights())
                continue
            self._waits[at] += 1
            if isinstance(one, EarlyStopping):
                self.stopped |= self._waits[at] >= max(1, one.patience)
            elif self._waits[at] >= max(1, one.patience):
                self._waits[at] = 0
                reduced = max((reduced or rate) * one.factor, one.min_learning_rate)
        return reduced

    def _restores(self, at: int) -> bool:
        """One alone can; it is the first that wants to."""
        return at == next(
            at
            for at, one in enumerate(self._callbacks)
            if isinstance(one, EarlyStopping) and one.restore_best
        )

    def _better(self, at: int, value: float) -> bool:
        one, best = self._callbacks[at], self._bests[at]
        if math.isnan(best):
            return not math.isnan(value)
        delta = one.min_delta if isinstance(one, EarlyStopping) else PLATEAU
        if any(part in one.monitor for part in _LARGER_IS_BETTER):
            return value > best + delta
        return value < best - delta

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """As JSON and arrays."""
        told = {
            "bests": [None if math.isnan(one) else one for one in self._bests],
            "waits": self._waits,
            "stopped": self.stopped,
            "best_epoch": None if self.best is None else self.best.epoch,
        }
        kept = [] if self.best is None else self.best.weights
        return told, {f"{_BEST}{at}": one for at, one in enumerate(kept)}

    def restore(self, told: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        self._bests = [math.nan if one is None else one for one in told["bests"]]
        self._waits = list(told["waits"])
        self.stopped = told["stopped"]
        if told["best_epoch"] is not None:
            count = sum(name.startswith(_BEST) for name in arrays)
            self.best = Best(told["best_epoch"], [arrays[f"{_BEST}{at}"] for at in range(count)])


def _name(one: EarlyStopping | ReduceOnPlateau) -> str:
    return "early_stopping" if isinstance(one, EarlyStopping) else "reduce_lr_on_plateau"


def _hint(monitor: str) -> str:
    return " (the data set has no validation rows)" if monitor.startswith("val_") else ""
