"""Clipping against the loop over rows that it takes the place of."""

from __future__ import annotations

import json
import sys

from openmaas.training import frameworks

frameworks.load("jax", 1)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tests.training.differential_privacy import networks  # noqa: E402

from openmaas.training.differential_privacy.clipping import Clipping  # noqa: E402

EXACT = 1 + 1e-6


def main(name: str) -> None:
    model, inputs, targets = networks.made(name)
    weights = [one.value for one in model.trainable_variables]
    fixed = [one.value for one in model.non_trainable_variables]

    def loss(weights, fixed, row):
        answers, _ = model.stateless_call(weights, fixed, row[0], training=True)
        return keras.losses.sparse_categorical_crossentropy(row[1], answers).mean()

    gradient = jax.jit(jax.grad(loss))
    programs = {}

    def summed(places, size, norm, scale):
        """In microbatches of so many rows."""
        if size not in programs:
            example = (weights, fixed, (inputs[:1], targets[:1]))
            variables = model.trainable_variables
            programs[size] = jax.jit(
                lambda norm, *given: Clipping(model, variables, loss, example, norm).sum(*given)
            )
        total = [jnp.zeros_like(one) for one in weights]
        own = [jnp.broadcast_to(one, (size, *one.shape)) for one in fixed]
        for start in range(0, len(places), size):
            here = np.zeros(size, int)
            part = places[start : start + size]
            here[: len(part)] = part
            mask = (np.arange(size) < len(part)).astype("f4")
            rows = (inputs[here] * scale if scale else inputs[here], targets[here])
            found = programs[size](norm, weights, own, rows, mask)
            total = [a + b for a, b in zip(total, found.gradients, strict=True)]
        return [np.asarray(one) for one in total]

    def length(arrays):
        return float(np.sqrt(sum(np.sum(np.square(one.astype("f8"))) for one in arrays)))

    integers = inputs.dtype.kind == "i"
    scales = st.sampled_from([0]) if integers else st.sampled_from([1e-3, 1.0, 30.0, 1e3])

    @settings(max_examples=8, deadline=None, database=None, derandomize=True)
    @given(
        st.lists(st.integers(0, len(inputs) - 1), min_size=1, max_size=9),
        st.sampled_from([1, 4]),
        st.sampled_from([1e-3, 0.5, 1e6]),
        scales,
    )
    def holds(places, size, norm, scale):
        typed = np.float32(scale).astype(inputs.dtype) if scale else None
        loop = [np.zeros(one.shape) for one in weights]
        for at in places:
            alone = summed([at], size, norm, typed)
            assert length(alone) <= norm * EXACT, (length(alone), norm)
            row = (inputs[[at]] * typed if scale else inputs[[at]], targets[[at]])
            plain = [np.asarray(one, "f8") for one in gradient(weights, fixed, row)]
            factor = min(1.0, norm / max(length(plain), 1e-30))
            loop = [a + factor * b for a, b in zip(loop, plain, strict=True)]
        together = summed(places, size, norm, typed)
        for one, wanted in zip(together, loop, strict=True):
            far = np.abs(one - wanted).max()
            assert far <= 2e-5 * max(length(loop), 1e-9), (far, length(loop))

    holds()
    untouched = [
        one.path
        for one, value in zip(
            model.trainable_variables, summed(range(len(inputs)), 4, 1e6, None), strict=True
        )
        if not np.abs(value).max() > 0
    ]
    plain_again = all("call" not in layer.__dict__ for layer in model._flatten_layers())
    print(json.dumps({"untouched": untouched, "plain_again": plain_again}))


if __name__ == "__main__":
    main(sys.argv[1])
