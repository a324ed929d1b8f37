"""Which networks can be trained privately: those in which each row goes its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from openmaas.errors import InvalidRequest

# layer → what is taken instead
_MIXING = {
    "BatchNormalization": "LayerNormalization or GroupNormalization",
    "SpectralNormalization": "the layer without it",
    "MixUp": "RandomTranslation, RandomRotation or the like",
    "CutMix": "RandomErasing, RandomCrop or the like",
    "Discretization": "the numbers themselves",
}
_SEEDS = "seed_generator"


def check(model: Any) -> None:
    """
    Raises:
        InvalidRequest: rows of a batch act on one another, or the network keeps what it has seen
            of them outside of the weights whose steps are private.
    """
    for layer in model._flatten_layers():
        name = type(layer).__name__
        if name in _MIXING and layer.trainable:
            raise InvalidRequest(
                f"{name} ({layer.name}) mixes the rows of a batch or keeps numbers of them, which "
                f"no clipping bounds; take {_MIXING[name]}",
                param="network",
            )
        if getattr(layer, "stateful", False):
            raise InvalidRequest(
                f"{name} ({layer.name}) is stateful: a row would act on the next; take "
                "stateful=False",
                param="network",
            )
    kept = _changing(model)
    if kept:
        raise InvalidRequest(
            f"the network changes {kept[0]} by itself as it learns, outside of private steps; "
            "take layers that keep nothing of what they have seen",
            param="network",
        )
    other = [one for one in model.trainable_variables if str(one.dtype) != "float32"]
    if other:
        raise InvalidRequest(
            f"{other[0].path} is of {other[0].dtype}; private training is in float32",
            param="network",
        )
    if not model.trainable_variables:
        raise InvalidRequest("the network has no weights to train", param="network")


class Penalties:
    """Those of weights. They know no rows: their gradients are neither clipped nor hidden.

    Args:
        model: it has none of its own from now on, until ``give_back``.
    """

    def __init__(self, model: Any) -> None:
        self._variables = list(model.trainable_variables)
        self._penalties = [one.regularizer for one in self._variables]
        for one in self._variables:
            one.regularizer = None

    def gradients(self, weights: list[Any]) -> list[Any]:
        """Of each weight; 0 where it has none."""
        return [
            jnp.zeros_like(one) if penalty is None else jax.grad(lambda w, f=penalty: f(w))(one)
            for one, penalty in zip(weights, self._penalties, strict=True)
        ]

    def give_back(self) -> None:
        for one, penalty in zip(self._variables, self._penalties, strict=True):
            one.regularizer = penalty


def seeded(variables: Sequence[Any], values: Sequence[Any], key: Any, rows: int) -> list[Any]:
    """Variables that are not trained, for each of so many rows: seeds of dropout are its own."""
    found = []
    for at, (variable, value) in enumerate(zip(variables, values, strict=True)):
        if _SEEDS in variable.path:
            bits = jax.random.bits(jax.random.fold_in(key, at), (rows, *value.shape))
            found.append(bits.astype(value.dtype))
        else:
            found.append(jnp.broadcast_to(value, (rows, *value.shape)))
    return found


def _changing(model: Any) -> list[str]:
    """Variables other than weights and dropout's seeds that one pass in training changes."""
    trainable = [one.value for one in model.trainable_variables]
    fixed = [one.value for one in model.non_trainable_variables]
    shapes = [tuple(1 if side is None else side for side in one.shape) for one in model.inputs]
    given = [jnp.zeros(shape, one.dtype) for shape, one in zip(shapes, model.inputs, strict=True)]
    functional = getattr(model, "_functional", None) or model  # within a Sequential one
    arranged = keras.tree.pack_sequence_as(functional._inputs_struct, given)

    def after(fixed: Any) -> Any:
        return model.stateless_call(trainable, fixed, arranged, training=True)[1]

    traced = jax.make_jaxpr(after)(fixed).jaxpr
    return [
        variable.path
        for variable, before, then in zip(
            model.non_trainable_variables, traced.invars, traced.outvars, strict=True
        )
        if before is not then and _SEEDS not in variable.path
    ]
