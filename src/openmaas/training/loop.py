"""The training loop: epochs over shuffled rows, the same for every backend.

What computes is an ``Engine``; it holds a network and all that changes while it learns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.training import checkpoints
from openmaas.training.callbacks import Watch
from openmaas.training.rows import Array, Rows
from openmaas.training.spec import Callback

BLOCK_BYTES = 256 << 20  # of rows that an engine is given at a time
DISPATCH_SECONDS = 0.2  # between two looks at what is asked of the loop
STEP_SECONDS = 0.5  # between two reports within an epoch

Metrics = dict[str, float]


class Engine(Protocol):
    """A network, its optimizer and its metrics."""

    learning_rate: float  # to be set where no schedule gives it

    def load(self, rows: Rows, batch: int, room: int) -> None:
        """The batches that come next, at most ``room`` rows, which is the same for all of them
        but for a last batch alone that is smaller."""

    def run(self, first: int, count: int) -> None:
        """Trains on batches ``first`` … of those that were loaded."""

    def metrics(self) -> Metrics:
        """Loss and metrics since the last ``reset``."""

    def reset(self) -> None:
        """Zeroes loss and metrics."""

    def evaluate(self, rows: Rows, *, outputs: bool = False) -> tuple[Metrics, Array | None]:
        """Loss and metrics of these rows, without training, and what the network answers."""

    def state(self) -> dict[str, Array]:
        """All that changes, metrics too: a copy."""

    def restore(self, state: Mapping[str, Array]) -> None: ...

    def weights(self) -> list[Array]:
        """What is learnt, without optimizer and metrics: a copy."""

    def set_weights(self, weights: list[Array]) -> None: ...


class Control(Protocol):
    """Whoever watches the loop."""

    def say(self, **event: Any) -> None: ...

    def pausing(self) -> bool:
        """Whether to stop, after a checkpoint."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop is to do."""

    epochs: int
    batch: int
    seed: int
    callbacks: list[Callback] = []
    checkpoints: Path | None = None  # where they are written; None: nowhere
    checkpoint_seconds: float = 60.0


class Fitted(NamedTuple):
    history: list[dict[str, float | None]]
    best_epoch: int | None  # whose weights the network has; None: the last one's
    seconds: float


class Paused(Exception):
    """The loop stopped as it was asked to; a checkpoint is written."""


class Diverged(Exception):
    """The loss is no finite number."""

    def __init__(self, epoch: int, steps: tuple[int, int], rate: float) -> None:
        super().__init__("the loss is not finite")
        self.epoch = epoch  # from 1
        self.steps = steps  # of the epoch, between which it happened
        self.rate = rate


def order(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """In which order an epoch (from 0) takes the rows."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def room(rows: Rows, batch: int) -> int:
    """How many rows an engine is given at a time: whole batches, one at least."""
    a_batch = max(1, rows.bytes * batch // rows.size)
    return batch * max(1, min(rows.size // batch, BLOCK_BYTES // a_batch))


class Loop:
    """One run over the data, from its last checkpoint if it has one.

    Args:
        validation: rows that are looked at after each epoch, if there are any.
    """

    def __init__(
        self, engine: Engine, rows: Rows, validation: Rows | None, plan: Plan, control: Control
    ) -> None:
        self._engine = engine
        self._rows = rows
        self._validation = validation
        self._plan = plan
        self._control = control
        self._watch = Watch(plan.callbacks)
        self._epoch = self._step = 0
        self._history: list[dict[str, float | None]] = []
        self._number = 0
        self._before = 0.0  # seconds of earlier runs
        self._began = self._saved = self._said = time.monotonic()
        self._epoch_began, self._epoch_before = self._began, 0.0
        self._warm, self._per_step = False, 0.0  # seconds
        self._whole, self._rest = divmod(rows.size, plan.batch)
        self._steps = self._whole + bool(self._rest)

    def run(self) -> Fitted:
        """
        Raises:
            Paused, Diverged, StorageFull
            InvalidRequest: a callback watches a metric that there is not.
        """
        self._resume()
        if self._step == 0:
            self._engine.reset()
        while self._epoch < self._plan.epochs and not self._watch.stopped:
            self._train_epoch()
            self._end_epoch()
        best = self._watch.best
        if best is not None:
            self._engine.set_weights(best.weights)
        return Fitted(self._history, None if best is None else best.epoch, self._seconds())

    # --- an epoch ----------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        """From ``self._step`` to its end."""
        batch, places = self._plan.batch, order(self._plan.seed, self._epoch, self._rows.size)
        block = room(self._rows, batch) // batch
        while self._step < self._whole:
            start = self._step // block * block
            end = min(start + block, self._whole)
            part = self._rows.take(places[start * batch : end * batch])
            self._engine.load(part, batch, block * batch)
            while self._step < end:
                self._dispatch(self._step - start, min(self._next_count(), end - self._step))
        if self._step == self._whole and self._rest:
            part = self._rows.take(places[-self._rest :])
            self._engine.load(part, self._rest, self._rest)
            self._dispatch(0, 1)

    def _dispatch(self, first: int, count: int) -> None:
        began = time.monotonic()
        self._engine.run(first, count)
        metrics = self._engine.metrics()
        self._check(metrics["loss"], (self._step + 1, self._step + count))
        self._made(count, began, metrics)

    def _made(self, count: int, began: float, metrics: Metrics) -> None:
        """So many steps are done: they are told of, and kept where it is time for that."""
        if self._warm:
            self._per_step = (time.monotonic() - began) / count
        self._warm = True  # the first call compiled, which says nothing of the next
        self._step += count
        now = time.monotonic()
        if now - self._said >= STEP_SECONDS and self._step < self._steps:
            self._said = now
            self._tell("step", metrics)
        if now - self._saved >= self._plan.checkpoint_seconds and self._step < self._steps:
            self._save()
        if self._control.pausing():
            self._save()
            raise Paused

    def _next_count(self) -> int:
        return max(1, int(DISPATCH_SECONDS / self._per_step)) if self._per_step else 1

    def _end_epoch(self) -> None:
        metrics = self._engine.metrics()
        if self._validation is not None:
            found, _ = self._engine.evaluate(self._validation)
            metrics |= {f"val_{name}": value for name, value in found.items()}
            self._check(metrics["val_loss"], (self._steps, self._steps))
        rate = self._engine.learning_rate
        reduced = self._watch.look(self._epoch + 1, metrics, rate, self._engine)
        if reduced is not None:
            self._engine.learning_rate = reduced
        metrics["learning_rate"] = rate
        spent = self._epoch_before + time.monotonic() - self._epoch_began
        row: dict[str, float | None] = {"epoch": self._epoch + 1, "seconds": round(spent, 4)}
        self._history.append(row | {name: finite(value) for name, value in metrics.items()})
        self._tell("epoch", metrics, spent)
        self._epoch, self._step = self._epoch + 1, 0
        self._epoch_began, self._epoch_before = time.monotonic(), 0.0
        self._engine.reset()
        self._save()

    def _check(self, loss: float, steps: tuple[int, int]) -> None:
        if not math.isfinite(loss):
            raise Diverged(self._epoch + 1, steps, self._engine.learning_rate)

    # --- what is told and kept ---------------------------------------------------------------

    def _tell(self, kind: str, metrics: Metrics, seconds: float | None = None) -> None:
        if kind == "step":
            metrics = metrics | {"learning_rate": self._engine.learning_rate}
            seconds = self._epoch_before + time.monotonic() - self._epoch_began
        self._control.say(
            kind=kind,
            epoch=self._epoch + 1,
            epochs=self._plan.epochs,
            step=self._step,
            steps=self._steps,
            seconds=round(seconds or 0.0, 4),
            metrics={name: finite(value) for name, value in metrics.items()},
        )

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self._plan.checkpoints is None:
            return
        self._number += 1
        arrays = self._engine.state()
        watched, kept = self._watch.state()
        progress = {
            "epoch": self._epoch,
            "step": self._step,
            "history": self._history,
            "watch": watched,
            "seconds": self._seconds(),
            "epoch_seconds": self._epoch_before + time.monotonic() - self._epoch_began,
        }
        checkpoints.write(self._plan.checkpoints, self._number, arrays | kept, progress)
        self._control.say(kind="checkpoint", epoch=self._epoch + 1, step=self._step)

    def _resume(self) -> None:
        if self._plan.checkpoints is None:
            return
        found = checkpoints.newest(self._plan.checkpoints)
        if found is None:
            return
        self._number = found.number
        self._epoch, self._step = found.progress["epoch"], found.progress["step"]
        self._history = found.progress["history"]
        self._before = found.progress["seconds"]
        self._epoch_before = found.progress["epoch_seconds"]
        self._engine.restore(found.arrays)
        self._watch.restore(found.progress["watch"], found.arrays)
        self._control.say(
            kind="message",
            text=f"resumed in epoch {self._epoch + 1} after step {self._step} of {self._steps}",
        )


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
