"""The steps of a private session: the server draws the rows, and what is told of them is noised.

Each ``forward_backward`` takes a Poisson sample, sums its rows' clipped gradients and adds noise.
That sum is all that leaves: the gradients that wait for a step, their norms, the weights after it
and all that is made of them cost nothing more.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from openmaas.errors import InvalidRequest, TrainingFailed
from openmaas.training import session_frames as frames
from openmaas.training.differential_privacy import networks, noise
from openmaas.training.differential_privacy.clipping import Clipping
from openmaas.training.differential_privacy.engine import microbatch_of
from openmaas.training.differential_privacy.private import check_rows, mechanism
from openmaas.training.recipes.base import Prepared
from openmaas.training.session_network import Learned, SessionNetwork
from openmaas.training.spec import SessionPrivacy

Leaves = list[Any]


class PrivateSession:
    """
    Raises:
        InvalidRequest: the network mixes rows, none are held out, or no noise keeps to ε.
    """

    def __init__(
        self,
        network: SessionNetwork,
        prepared: Prepared | None,
        privacy: SessionPrivacy,
        seed: int,
        folder: Path,
    ) -> None:
        assert prepared is not None  # checked when it was asked for
        check_rows(privacy, prepared)
        networks.check(network.model)
        self._network = network
        self._rows = prepared.train
        self._norm = privacy.max_grad_norm
        self._batch = min(privacy.batch_size, self._rows.size)
        self.mechanism = mechanism(privacy, self._batch / self._rows.size, privacy.steps)
        self._source = noise.source(privacy, seed, folder)
        self._dropout = jax.random.key(seed)
        self._penalties = networks.Penalties(network.model)
        weights = [one.shape for one in network.state.trainable]
        self._shapes = [tuple(one) for one in weights]
        self._count = sum(math.prod(one) for one in self._shapes)
        self._size = microbatch_of(self._batch, self._count, self._rows.size)
        example = (network.state.trainable, network.state.fixed, self._data(np.zeros(1, np.int64)))
        self._clipping = Clipping(
            network.model, network.model.trainable_variables, self._loss, example, self._norm
        )
        self._sum: Any = jax.jit(self._microbatch)
        self._add: Any = jax.jit(self._noised)

    def forward_backward(self, call: frames.ForwardBackward) -> Learned:
        """Adds a sample's noised gradients to those that wait for the next step.

        Raises:
            InvalidRequest: the call names rows, or asks for what would tell of single ones.
            TrainingFailed: weights or gradients are no numbers.
        """
        batch = call.batch
        if not batch.empty:
            raise InvalidRequest(
                "a private session learns from its data set alone, of which the server draws the "
                "rows: leave inputs, targets, weights and rows out",
                param="rows" if batch.rows is not None else "inputs",
            )
        if call.per_example:
            raise InvalidRequest(
                "a private session tells no loss of single rows", param="per_example"
            )
        assert call.draw is not None
        state = self._network.state
        sums = self._sums(state, call.draw)
        drawn = self._source.words(call.draw, self._count)
        fine, rows, gradients, *squares = self._add(state, sums, np.int32(call.draw), drawn)
        if not fine:
            raise TrainingFailed(
                "the weights are so large that gradients are no numbers; they were not added. "
                "Load a checkpoint, and take a smaller learning rate",
                cause="not_finite",
            )
        learned = state._replace(gradients=gradients, rows=rows)
        return self._network.learned(learned, [float(one) for one in squares])

    # --- one sample --------------------------------------------------------------------------

    def _sums(self, state: Any, draw: int) -> Leaves:
        places = self._source.sample(draw, self._rows.size, self.mechanism.rate)
        sums = [jnp.zeros_like(one) for one in state.trainable]
        for part, start in enumerate(range(0, len(places), self._size)):
            chosen = np.zeros(self._size, np.int64)
            here = places[start : start + self._size]
            chosen[: len(here)] = here
            mask = (np.arange(self._size) < len(here)).astype(np.float32)
            key = jax.random.fold_in(jax.random.fold_in(self._dropout, draw), part)
            sums = self._sum(state.trainable, state.fixed, self._data(chosen), mask, key, sums)
        return sums

    def _data(self, places: Any) -> Any:
        taken = self._rows.take(places)
        inputs = [
            one.astype(str(port.dtype))
            for one, port in zip(taken.inputs, self._network.model.inputs, strict=True)
        ]
        return inputs, taken.targets

    # --- what is compiled --------------------------------------------------------------------

    def _microbatch(
        self, trainable: Leaves, fixed: Leaves, rows: Any, mask: Any, key: Any, sums: Leaves
    ) -> Leaves:
        variables = self._network.model.non_trainable_variables
        own = networks.seeded(variables, fixed, key, self._size)
        found = self._clipping.sum(trainable, own, rows, mask)
        return [a + b for a, b in zip(sums, found.gradients, strict=True)]

    def _loss(self, trainable: Leaves, fixed: Leaves, row: Any) -> Any:
        inputs, targets = row
        return self._network.loss_of(trainable, fixed, inputs, targets)

    def _noised(self, state: Any, sums: Leaves, draw: Any, drawn: Any) -> tuple[Any, ...]:
        """The running mean with this sample's gradients, over the rows of a sample as they are
        on average: how many there were is not told."""
        if drawn is None:
            assert self._source.key is not None
            normal = noise.of_key(self._source.key, draw, self._shapes)
        else:
            normal = noise.of_words(drawn, self._shapes)
        deviation = self.mechanism.noise_multiplier * self._norm
        penalties = self._penalties.gradients(state.trainable)
        gradients = [
            (total + deviation * one) / self._batch + penalty
            for total, one, penalty in zip(sums, normal, penalties, strict=True)
        ]
        rows = state.rows + self._batch
        mean = [
            old + self._batch / rows * (new - old)
            for old, new in zip(state.gradients, gradients, strict=True)
        ]
        squares = [jnp.sum(jnp.square(one)) for one in gradients]
        fine = jnp.all(jnp.isfinite(jnp.stack(squares)))
        return fine, rows, mean, *squares
