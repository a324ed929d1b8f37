"""The loop's engine for private steps on JAX: DP-SGD (Abadi et al. 2016), many microbatches in one
compiled call.

A step is made of as many microbatches as its sample needs, of which the last may be filled up with
rows that count for nothing. So samples of any size are one compiled program, and none is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from openmaas.training.differential_privacy import networks, noise
from openmaas.training.differential_privacy.clipping import Clipping
from openmaas.training.differential_privacy.noise import Source
from openmaas.training.loop import BLOCK_BYTES, Metrics
from openmaas.training.loop_jax import JaxEngine
from openmaas.training.rows import Array, Rows

GRADIENT_BYTES = 64 << 20  # of the rows' gradients of one microbatch
NOISE_BYTES = 16 << 20  # that are drawn at a time
SHARE = 4  # microbatches of a step, about: so many that few rows only fill up
LEAST = 8  # rows of a microbatch


class Step(NamedTuple):
    """What makes a step private."""

    batch: int  # rows that are taken on average, by which the sum is divided
    norm: float  # to which each row's gradient is clipped
    noise_multiplier: float


class Block(NamedTuple):
    """Microbatches of one or several steps; all arrays have one row for each microbatch."""

    places: Array  # [microbatches, rows] of the training rows
    mask: Array  # the same; 0: it fills up
    last: Array  # whether a step ends with it
    step: Array  # which one, counted from the beginning of the run
    part: Array  # which one of its step
    used: int  # microbatches that are meant; the others fill up


class Ahead(NamedTuple):
    """Noise of steps that are to come."""

    first: int
    steps: int
    noise: Future[jax.Array]


class PrivateEngine(JaxEngine):
    """
    Args:
        rows: what it is trained on.
        step: what each step is.
        source: of noise.
        seed: of dropout, which is no secret.
    """

    def __init__(
        self,
        model: Any,
        rows: Rows,
        step: Step,
        source: Source,
        seed: int,
        later: Sequence[Rows] = (),
        answers: bool = False,
    ) -> None:
        self._rows = rows
        self._step = step
        self._source = source
        self._dropout = jax.random.key(seed)
        self._penalties = networks.Penalties(model)
        self._finite = True
        self._ahead: Ahead | None = None
        self._sums: list[Any] = []  # of the rows' gradients, while a step is not at its end
        self._weights: int = sum(math.prod(one.shape) for one in model.trainable_variables)
        self.microbatch: int = microbatch_of(step.batch, self._weights, rows.size)
        self.room: int = _room(rows, self.microbatch, step.batch)
        super().__init__(model, rows, min(step.batch, rows.size), later, answers)

    # --- training ----------------------------------------------------------------------------

    @property
    def most_steps(self) -> int:
        """Of one block, so that their noise fits."""
        if self._source.key is not None:
            return self.room
        fitting = NOISE_BYTES // (4 * noise.words_of(self._weights))
        usual = self.room // -(-self._step.batch // self.microbatch)
        return max(1, min(fitting, usual))

    @property
    def finite(self) -> bool:
        """Whether all weights are numbers."""
        return self._finite

    def load_block(self, block: Block) -> None:
        """The microbatches that come next."""
        data = self._data(self._rows.take(block.places.ravel()))
        shape = block.places.shape
        data = jax.tree.map(lambda one: jnp.asarray(one.reshape(*shape, *one.shape[1:])), data)
        counted = (block.mask, block.last, block.step, block.part, self._place_of(block))
        self._block = (data, *(jnp.asarray(one) for one in counted), self._drawn(block))

    def run(self, first: int, count: int) -> None:
        """Makes microbatches ``first`` … of the block."""
        program = self._programs["private"].result()
        self._state, self._sums, finite = program(
            self._state, self._sums, self._block, np.int32(first), np.int32(first + count)
        )
        self._finite = bool(finite)

    def metrics(self) -> Metrics:
        """None: what the rows that are trained on come to would tell of them."""
        return {}

    def finish(self) -> None:
        super().finish()
        self._penalties.give_back()

    # --- what is compiled --------------------------------------------------------------------

    def _compile(self, rows: Rows) -> None:
        trainable = self._state[0]
        self._sums = [jnp.zeros_like(one) for one in trainable]
        row = jax.tree.map(lambda one: one[:1], self._sample)
        example = (trainable, self._state[1], row)
        self._clipping = Clipping(
            self._model, self._model.trainable_variables, self._loss, example, self._step.norm
        )
        shape: Any = jax.ShapeDtypeStruct
        data = jax.tree.map(
            lambda one: shape((self.room, self.microbatch, *one.shape[1:]), one.dtype),
            self._sample,
        )
        integers = [shape((self.room,), np.int32)] * 3
        block = (
            data,
            shape((self.room, self.microbatch), np.float32),
            shape((self.room,), np.bool_),
            *integers,
            None if self._source.key is not None else shape(self._noise_shape, np.uint32),
        )
        run = jax.jit(self._program, donate_argnums=(0, 1))
        lowered = run.lower(self._state, self._sums, block, np.int32(0), np.int32(1))
        self._programs["private"] = self._pool.submit(lowered.compile)

    def _program(self, state: Any, sums: Any, block: Any, first: Any, end: Any) -> Any:
        data, mask, last, steps, parts, places, drawn = block

        def microbatch(at: Any, carry: Any) -> Any:
            state, sums = carry
            rows = jax.tree.map(lambda one: one[at], data)
            key = jax.random.fold_in(jax.random.fold_in(self._dropout, steps[at]), parts[at])
            fixed = networks.seeded(self._variables[1], state[1], key, self.microbatch)
            found = self._clipping.sum(state[0], fixed, rows, mask[at])
            sums = [a + b for a, b in zip(sums, found.gradients, strict=True)]

            # Taken out here: what a branch reaches for by itself is copied for it, as a whole.
            words = None if drawn is None else drawn[places[at]]
            return lax.cond(
                last[at],
                lambda state, sums, words: self._descend(state, sums, steps[at], words),
                lambda state, sums, words: (state, sums),
                state,
                sums,
                words,
            )

        state, sums = lax.fori_loop(first, end, microbatch, (state, sums))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(one)) for one in state[0]]))
        return state, sums, finite

    def _descend(self, state: Any, sums: Any, step: Any, drawn: Any) -> Any:
        """Noise, the mean, the optimizer's step; sums begin anew."""
        trainable, fixed, optimizer, metrics = state
        shapes = [one.shape for one in trainable]
        if drawn is None:
            assert self._source.key is not None
            normal = noise.of_key(self._source.key, step, shapes)
        else:
            normal = noise.of_words(drawn, shapes)
        penalties = self._penalties.gradients(trainable)
        deviation = self._step.noise_multiplier * self._step.norm
        gradients = [
            (total + deviation * one) / self._step.batch + penalty
            for total, one, penalty in zip(sums, normal, penalties, strict=True)
        ]
        trainable, optimizer = self._model.optimizer.stateless_apply(
            optimizer, gradients, trainable
        )
        zeros = [jnp.zeros_like(one) for one in sums]
        return (list(trainable), fixed, list(optimizer), metrics), zeros

    def _loss(self, trainable: Any, fixed: Any, row: Any) -> Any:
        x, y, weight = (*row, None)[:3]
        loss, _ = self._model.compute_loss_and_updates(
            trainable,
            fixed,
            self._state[3],
            x,
            y,
            weight,
            training=True,
            optimizer_variables=self._state[2],
        )
        return loss

    # --- noise that is drawn outside -----------------------------------------------------------

    @property
    def _noise_shape(self) -> tuple[int, int]:
        return self.most_steps, noise.words_of(self._weights)

    def _place_of(self, block: Block) -> Array:
        """Of each microbatch, where the noise of its step lies."""
        return np.asarray(block.step - block.step[0], np.int32)

    def _drawn(self, block: Block) -> Any:
        """Of the block's steps; that of the next ones is drawn while these are made."""
        if self._source.key is not None:
            return None
        first, count = int(block.step[0]), int(block.last[: block.used].sum())
        ahead = self._ahead
        if ahead is not None and ahead.first == first and ahead.steps >= count:
            found = ahead.noise.result()
        else:
            found = self._draw(first, count)
        if count:
            usual = count if ahead is None else max(count, ahead.steps)
            drawing = self._pool.submit(self._draw, first + count, usual)
            self._ahead = Ahead(first + count, usual, drawing)
        return found

    def _draw(self, first: int, count: int) -> jax.Array:
        found = np.empty(self._noise_shape, np.uint32)
        for at in range(count):
            words = self._source.words(first + at, self._weights)
            assert words is not None
            found[at] = words
        return jnp.asarray(found)


def microbatch_of(batch: int, weights: int, rows: int) -> int:
    """Rows whose gradients are in memory at one time."""
    most = max(1, GRADIENT_BYTES // (4 * max(1, weights)))
    return max(1, min(max(LEAST, batch // SHARE), most, rows))


def _room(rows: Rows, microbatch: int, batch: int) -> int:
    """Microbatches of a block: those of an epoch, if they fit."""
    size = max(1, rows.bytes // rows.size) * microbatch
    step = -(-batch // microbatch) + 1
    epoch = step * max(1, -(-rows.size // batch))
    return max(1, min(epoch, BLOCK_BYTES // size))
