"""The three steps of learning as pure functions on JAX: forward, backward, descend.

Sources: Keras's ``stateless_call`` and ``stateless_apply``, which ``fit`` is made of; Rumelhart,
Hinton & Williams 1986. Gradients of several calls before one step are averaged over their rows
(those that a mask leaves out not counted), so that k small batches give what one big one gives.
Everything is compiled once a shape of batch; nothing is padded, so that what a layer sees, its
dropout's noise and its batch's statistics are those of ``fit``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras.src.losses.loss import reduce_weighted_values
from keras.src.losses.losses import LossFunctionWrapper
from numpy.typing import NDArray

from openmaas.errors import Conflict, InvalidRequest, TrainingFailed
from openmaas.training.network import arranged

MOST_SHAPES = 64  # of batches, that stay compiled

Array = NDArray[Any]
Leaves = list[Any]  # arrays of JAX, one for each variable


class Rows(NamedTuple):
    """A batch as the network takes it; the first dimension of each is the row."""

    inputs: list[Array]
    targets: Array | None = None
    weights: Array | None = None  # of each row's loss; None: 1


class State(NamedTuple):
    """All that learning changes."""

    trainable: Leaves
    fixed: Leaves  # statistics of batches, seeds of dropout
    optimizer: Leaves
    gradients: Leaves  # the mean over rows since the last step
    rows: Any  # over how many


class Learned(NamedTuple):
    loss: float
    per_example: Any  # an array of JAX
    norms: dict[str, float]  # of each layer's gradients
    rows: float  # that wait for the next step, with these


class SessionNetwork:
    """A network, an optimizer and a loss.

    Args:
        model: a built Keras network of one output.
        loss: one of ``fitting.LOSSES``.

    Raises:
        InvalidRequest: there is nothing to train.
    """

    def __init__(self, model: Any, optimizer: Any, loss: str) -> None:
        if not model.trainable_variables:
            raise InvalidRequest("the network has no weights to train", param="network")
        self.model = model
        self.optimizer = optimizer
        self.loss_name = loss
        self._loss = LossFunctionWrapper(keras.losses.get(loss), name=loss)
        optimizer.build(model.trainable_variables)
        self.learning_rate = float(np.asarray(optimizer.learning_rate))
        self._rate_at = next(
            index
            for index, one in enumerate(optimizer.variables)
            if one is optimizer._learning_rate
        )
        self.names = _names(model)
        self.state = State(
            [one.value for one in model.trainable_variables],
            [one.value for one in model.non_trainable_variables],
            [one.value for one in optimizer.variables],
            [jnp.zeros_like(one.value) for one in model.trainable_variables],
            jnp.zeros((), keras.config.floatx()),
        )
        self.step = 0
        self._rows = 0.0  # that ``state.rows`` is
        self._shapes: set[tuple[object, ...]] = set()
        self._forward: Any = jax.jit(self._run)
        self._backward: Any = jax.jit(self._accumulate)
        self._descend: Any = jax.jit(self._apply)

    # --- calls -----------------------------------------------------------------------------

    def predict(self, batch: Rows) -> Array:
        """Outputs as in use, ``[rows, …]``."""
        return np.asarray(self._called(self._forward, batch, self.state, batch.inputs)[0])

    def forward(self, batch: Rows) -> tuple[Array, float, Array]:
        """Outputs, the loss and that of each row, as in use."""
        self._check(batch)
        given = (self.state, batch.inputs, batch.targets, batch.weights)
        outputs, loss, each = self._called(self._forward, batch, *given)
        self._finite(float(loss), np.asarray(each), batch)
        return np.asarray(outputs), float(loss), np.asarray(each)

    def forward_backward(self, batch: Rows) -> Learned:
        """Adds a batch's gradients.

        Raises:
            InvalidRequest: shapes do not fit.
            TrainingFailed: the loss or a gradient is no number; nothing was changed by it.
        """
        self._check(batch)
        given = (self.state, batch.inputs, batch.targets, batch.weights)
        told, each, state = self._called(self._backward, batch, *given)
        fine, loss, rows, *squares = np.asarray(told).tolist()
        if not fine:
            self._finite(loss, np.asarray(each), batch)
            raise TrainingFailed(
                "the loss is finite, but its gradients are not; they were not added. A smaller "
                "learning rate, clipping or another initialisation may help",
                cause="not_finite",
            )
        self.state, self._rows = state, rows
        return Learned(loss, each, self._layers(squares), rows)

    def learned(self, state: State, squares: Sequence[float]) -> Learned:
        """Takes gradients that were made elsewhere.

        Args:
            squares: the sum of squares of each weight's.
        """
        self.state, self._rows = state, float(state.rows)
        return Learned(math.nan, None, self._layers(squares), self._rows)

    def loss_of(self, trainable: Leaves, fixed: Leaves, inputs: Any, targets: Any) -> Any:
        """The loss of a batch as in training, to be differentiated."""
        outputs, _, losses = self._call(trainable, fixed, inputs, training=True)
        return self._loss_of(outputs, targets, None, losses)[0]

    def optim_step(self, learning_rate: float | None, clip_norm: float | None) -> float:
        """One step of the optimizer with the mean gradients; the norm of all of them together,
        before they were clipped.

        Raises:
            Conflict: there are no gradients.
            TrainingFailed: weights would be no numbers; the step was not made, and the gradients
                were dropped.
        """
        if not self._rows:
            raise Conflict("there are no gradients to apply; call forward_backward first")
        rate = self.learning_rate if learning_rate is None else learning_rate
        told, state = self._descend(self.state, rate, clip_norm or math.inf)
        fine, norm = np.asarray(told).tolist()
        self.state, self._rows = state, 0.0
        if not fine:
            raise TrainingFailed(
                f"this step would make weights that are no numbers (its gradients' norm is "
                f"{norm:g}); it was not made, and its gradients were dropped. Use a smaller "
                "learning rate, or clip_norm",
                cause="not_finite",
            )
        self.step += 1
        found: float = norm
        return found

    def tensors(self, which: str, names: Sequence[str] = ()) -> dict[str, Array]:
        """Weights or gradients by name.

        Args:
            which: "weights", with the statistics of batch normalisation, or "gradients".
            names: of those wanted; none: all.

        Raises:
            InvalidRequest: there is none of a name.
        """
        leaves = self.state.gradients
        known = self.names[: len(leaves)]
        if which == "weights":
            leaves, known = self.state.trainable + self.state.fixed, self.names
        found = {name: leaf for name, leaf in zip(known, leaves, strict=True) if name}
        for name in names:
            if name not in found:
                raise InvalidRequest(
                    f"no {name[:100]!r} among the {which}; there are: {', '.join(found)[:1000]}",
                    param="names",
                )
        return {name: np.asarray(found[name]) for name in names or found}

    def leaves(self) -> list[Array]:
        """All of the state, for ``restore``."""
        return [np.asarray(one) for one in jax.tree.leaves(self.state)]

    def restore(self, arrays: Sequence[Array]) -> None:
        """Takes the leaves of a state that was saved, in its order.

        Raises:
            InvalidRequest: they are of another network.
        """
        leaves, shape = jax.tree.flatten(self.state)
        if [(one.shape, one.dtype) for one in leaves] != [(a.shape, a.dtype) for a in arrays]:
            raise InvalidRequest("the checkpoint is of another network")
        self.state = jax.tree.unflatten(shape, [jnp.asarray(one) for one in arrays])
        self._rows = float(self.state.rows)

    def settle(self) -> Any:
        """The Keras network, with the weights as they are now: copies, as Keras's own loops take
        the memory of what they are given."""
        for one, value in zip(self.model.trainable_variables, self.state.trainable, strict=True):
            one.assign(np.array(value))
        for one, value in zip(self.model.non_trainable_variables, self.state.fixed, strict=True):
            one.assign(np.array(value))
        return self.model

    # --- what is compiled --------------------------------------------------------------------

    def _run(
        self, state: State, inputs: Any, targets: Any = None, weights: Any = None
    ) -> tuple[Any, ...]:
        outputs, _, losses = self._call(state.trainable, state.fixed, inputs, training=False)
        if targets is None:
            return (outputs,)
        loss, each, _ = self._loss_of(outputs, targets, weights, losses)
        return outputs, loss, each

    def _accumulate(self, state: State, inputs: Any, targets: Any, weights: Any) -> Any:
        def loss_of(trainable: Leaves) -> Any:
            outputs, fixed, losses = self._call(trainable, state.fixed, inputs, training=True)
            loss, each, rows = self._loss_of(outputs, targets, weights, losses)
            return loss, (each, rows, fixed)

        differentiate = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (each, rows, fixed)), gradients = differentiate(state.trainable)
        total = state.rows + rows
        # A running mean: of a single call it is its very gradient, to the last bit.
        part = jnp.where(total > 0, rows / jnp.maximum(total, 1e-30), 0)
        mean = [
            old + part.astype(old.dtype) * (new.astype(old.dtype) - old)
            for old, new in zip(state.gradients, gradients, strict=True)
        ]
        squares = [jnp.sum(jnp.square(one)) for one in gradients]
        fine = jnp.isfinite(loss) & jnp.all(jnp.isfinite(jnp.stack(squares)))
        # All numbers that are told of in one array: each by itself would be waited for.
        told = jnp.stack([one.astype(total.dtype) for one in (fine, loss, total, *squares)])
        learned = state._replace(fixed=fixed, gradients=mean, rows=total)
        kept = jax.tree.map(lambda new, old: jnp.where(fine, new, old), learned, state)
        return told, each, kept

    def _apply(self, state: State, rate: Any, clip_norm: Any) -> Any:
        gradients = state.gradients
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(one)) for one in gradients))
        scale = jnp.where(norm > clip_norm, clip_norm / norm, 1.0)
        gradients = [one * scale.astype(one.dtype) for one in gradients]
        optimizer = list(state.optimizer)
        optimizer[self._rate_at] = jnp.asarray(rate, optimizer[self._rate_at].dtype)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, state.trainable)
        fine = jnp.all(jnp.stack([jnp.all(jnp.isfinite(one)) for one in trainable]))
        stepped = state._replace(trainable=trainable, optimizer=optimizer)
        kept = jax.tree.map(lambda new, old: jnp.where(fine, new, old), stepped, state)
        zeros = [jnp.zeros_like(one) for one in state.gradients]
        told = jnp.stack([fine.astype(state.rows.dtype), norm.astype(state.rows.dtype)])
        return told, kept._replace(gradients=zeros, rows=jnp.zeros_like(state.rows))

    def _call(
        self, trainable: Leaves, fixed: Leaves, inputs: Any, *, training: bool
    ) -> tuple[Any, Leaves, Leaves]:
        given = arranged(self.model, inputs)
        outputs, fixed, losses = self.model.stateless_call(
            trainable, fixed, given, training=training, return_losses=True
        )
        return jax.tree.leaves(outputs)[0], fixed, losses

    def _loss_of(self, outputs: Any, targets: Any, weights: Any, losses: Leaves) -> Any:
        """As Keras reduces it: the mean, and that of each row without the penalties."""
        mask = keras.src.backend.get_keras_mask(outputs)
        dtype = self._loss.dtype
        values = self._loss.call(jnp.asarray(targets, dtype), jnp.asarray(outputs, dtype))
        if mask is not None and mask.ndim != values.ndim:
            mask = None
        loss = reduce_weighted_values(values, weights, mask, "sum_over_batch_size", dtype)
        loss = loss + sum(losses) if losses else loss
        kept = jnp.ones_like(values) if mask is None else mask.astype(values.dtype)
        inner = tuple(range(1, values.ndim))
        each = jnp.sum(values * kept, inner) / jnp.maximum(jnp.sum(kept, inner), 1)
        each = each if weights is None else each * weights
        rows = jnp.asarray(values.shape[0], dtype) if mask is None else jnp.sum(kept)
        return loss, each, rows

    # --- checks ------------------------------------------------------------------------------

    def _called(self, function: Any, batch: Rows, *given: Any) -> Any:
        shape = (
            function,
            *(one.shape for one in batch.inputs),
            getattr(batch.targets, "shape", ()),
        )
        if shape not in self._shapes:
            if len(self._shapes) >= MOST_SHAPES:
                for one in (self._forward, self._backward):
                    one.clear_cache()
                self._shapes.clear()
            self._shapes.add(shape)
        try:
            return function(*given)
        except (ValueError, TypeError, IndexError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason"]
            raise InvalidRequest(
                f"the network or its loss ({self.loss_name}) cannot take this batch: "
                f"{lines[0][:300]}"
            ) from None

    def _check(self, batch: Rows) -> None:
        """What Keras would broadcast in silence is refused."""
        assert batch.targets is not None
        targets, outputs = batch.targets.shape, self.model.outputs[0].shape
        sparse = "sparse" in self.loss_name.lower()
        wanted = tuple(outputs[:-1] if sparse else outputs)[1:]
        given = targets[1:]
        if given and given[-1] == 1 and len(given) == len(wanted) + 1:
            given = given[:-1]
        if len(wanted) == len(given) + 1 and wanted[-1] == 1:
            wanted = wanted[:-1]
        if len(given) != len(wanted) or any(
            side is not None and side != one for side, one in zip(wanted, given, strict=True)
        ):
            told = ", ".join("any" if side is None else str(side) for side in wanted)
            raise InvalidRequest(
                f"targets are of shape {list(targets)}; {self.loss_name} of this network takes "
                f"[rows{', ' if told else ''}{told}]",
                param="targets",
            )
        if sparse:
            _check_classes(np.asarray(batch.targets), int(outputs[-1]))

    def _finite(self, loss: float, each: Array, batch: Rows) -> None:
        if math.isfinite(loss) and np.isfinite(each).all():
            return
        bad = np.flatnonzero(~np.isfinite(each))
        inputs = [
            row
            for row in bad[:1000]
            if any(not np.isfinite(one[row]).all() for one in batch.inputs if one.dtype.kind == "f")
        ]
        why = f"; row {inputs[0]} of the inputs holds NaN or an infinity" if inputs else ""
        where = f" ({len(bad)} of {len(each)} rows, the first is {bad[0]})" if len(bad) else ""
        raise TrainingFailed(
            f"the loss is {loss}{where}{why}. Nothing was changed by this call", cause="not_finite"
        )

    def _layers(self, squares: Sequence[float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, square in zip(self.names, squares, strict=False):
            layer = name.rpartition("/")[0] or name
            found[layer] = found.get(layer, 0.0) + square
        return {layer: math.sqrt(square) for layer, square in found.items()}


def _check_classes(targets: Array, classes: int) -> None:
    """Keras on JAX takes a class that there is not as a row without loss."""
    whole = np.equal(np.mod(targets, 1), 0) if targets.dtype.kind == "f" else True
    bad = ~((targets >= 0) & (targets < classes) & whole)
    if bad.any():
        raise InvalidRequest(
            f"targets are classes, whole numbers from 0 to {classes - 1}; "
            f"one is {targets[bad].flat[0]}",
            param="targets",
        )


def _names(model: Any) -> list[str]:
    """Of trainable, then of other variables; "" for seeds, which are no weights."""
    found: list[str] = []
    for one in (*model.trainable_variables, *model.non_trainable_variables):
        name = one.path.removeprefix(f"{model.name}/")
        if "seed_generator" in name:
            name = ""
        elif name in found:
            name = f"{name}:{len(found)}"
        found.append(name)
    return found
