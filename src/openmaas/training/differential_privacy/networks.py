"""Which networks can be trained privately: those in which each row goes its own way."""

from __future__ import annotations

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


def _changing(model: Any) -> list[str]:
    """Variables other than weights and dropout's seeds that one pass in training changes."""
    trainable = [one.value for one in model.trainable_variables]
    fixed = [one.value for one in model.non_trainable_variables]
    shapes = [tuple(1 if side is None else side for side in one.shape) for one in model.inputs]
    given = [
        jnp.zeros(shape, one.dtype) for shape, one in zip(shapes, model.inputs, strict=True)
    ]
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
