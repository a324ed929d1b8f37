"""The training loop for private steps: each takes rows by chance, no epoch goes through all.

An epoch is so many steps as take as many rows as there are, on average.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from openmaas.training.differential_privacy.engine import Block, PrivateEngine
from openmaas.training.differential_privacy.noise import Source
from openmaas.training.loop import Control, Diverged, Loop, Plan
from openmaas.training.rows import Rows

Spend = Callable[[int], None]  # called with the steps so far before the last of them are made


class PrivateLoop(Loop):
    """
    Args:
        source: of the samples.
        rate: probability of each row to be taken by a step.
        spend: writes down what is about to be spent.
    """

    def __init__(
        self,
        engine: PrivateEngine,
        rows: Rows,
        validation: Rows | None,
        plan: Plan,
        control: Control,
        *,
        source: Source,
        rate: float,
        spend: Spend,
    ) -> None:
        super().__init__(engine, rows, validation, plan, control)
        self._private = engine
        self._source = source
        self._rate = rate
        self._spend = spend
        self._left: list[Block] = []  # of a step that is larger than a block

    @property
    def taken(self) -> int:
        """Steps so far."""
        return self._epoch * self._steps + self._step

    def _train_epoch(self) -> None:
        while self._step < self._steps:
            block, ends = self._next_block()
            self._private.load_block(block)
            done = 0
            while done < len(ends):
                count = min(self._next_count(), len(ends) - done)
                first = ends[done - 1] if done else 0
                self._make(first, ends[done + count - 1] - first, count)
                done += count

    def _make(self, first: int, microbatches: int, count: int) -> None:
        """So many steps."""
        self._spend(self.taken + count)
        began = time.monotonic()
        self._engine.run(first, microbatches)
        while self._left:  # the rest of a step that is larger than a block
            block = self._left.pop(0)
            self._private.load_block(block)
            self._engine.run(0, block.used)
        self._check(0.0, (self._step + 1, self._step + count))
        self._made(count, began, {})

    def _check(self, loss: float, steps: tuple[int, int]) -> None:
        if not self._private.finite or not math.isfinite(loss):
            raise Diverged(self._epoch + 1, steps, self._engine.learning_rate)

    # --- samples -----------------------------------------------------------------------------

    def _next_block(self) -> tuple[Block, list[int]]:
        """The next steps' microbatches, and where each step ends among them."""
        room, most = self._private.room, self._private.most_steps
        samples: list[NDArray[np.int64]] = []
        size = 0
        while self._step + len(samples) < self._steps and len(samples) < most:
            places = self._source.sample(self.taken + len(samples), self._rows.size, self._rate)
            needed = self._needed(places)
            if samples and size + needed > room:
                break
            samples.append(places)
            size += needed
        if size > room:
            return self._in_parts(samples[0])
        ends = np.cumsum([self._needed(one) for one in samples]).tolist()
        return self._block(samples, self.taken), ends

    def _needed(self, places: NDArray[np.int64]) -> int:
        """Microbatches of a sample; one that is empty has noise all the same."""
        return max(1, -(-len(places) // self._private.microbatch))

    def _in_parts(self, places: NDArray[np.int64]) -> tuple[Block, list[int]]:
        """A step that does not fit into one block: the first, and the others in ``_left``."""
        most = self._private.room * self._private.microbatch
        parts = [places[at : at + most] for at in range(0, len(places), most)]
        blocks = []
        for at, part in enumerate(parts):
            block = self._block([part], self.taken, first=at * self._private.room)
            if at < len(parts) - 1:
                block.last[:] = False
            blocks.append(block)
        self._left = blocks[1:]
        return blocks[0], [blocks[0].used]

    def _block(self, samples: list[NDArray[np.int64]], step: int, first: int = 0) -> Block:
        room, size = self._private.room, self._private.microbatch
        places, mask = np.zeros((room, size), np.int64), np.zeros((room, size), np.float32)
        last, steps, parts = (
            np.zeros(room, bool),
            np.zeros(room, np.int32),
            np.zeros(room, np.int32),
        )
        at = 0
        for number, sample in enumerate(samples):
            end = at + self._needed(sample)
            places.reshape(-1)[at * size : at * size + len(sample)] = sample
            mask.reshape(-1)[at * size : at * size + len(sample)] = 1.0
            steps[at:end], parts[at:end] = step + number, first + np.arange(end - at)
            last[end - 1] = True
            at = end
        return Block(places, mask, last, steps, parts, at)
