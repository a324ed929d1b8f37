"""What sessions are compared with, each in a process of its own: ``fit`` of Keras on JAX, and
finite differences in float64.

python -m tests.training.session_reference fit FOLDER
python -m tests.training.session_reference differences
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def fit(folder: Path) -> None:
    """Fits ``config.json`` from ``start.npz`` on ``x`` and ``y`` of it, once for each optimizer,
    and writes the weights to ``NAME.npz``."""
    import keras

    told = json.loads((folder / "config.json").read_text())
    start = np.load(folder / "start.npz")
    model: Any = keras.saving.deserialize_keras_object(told["network"])
    paths = [one.path.removeprefix(f"{model.name}/") for one in model.weights]
    for name in told["optimizers"]:
        for one, path in zip(model.weights, paths, strict=True):
            one.assign(start[path])
        model.compile(name, told["loss"])
        model.fit(
            start["x"], start["y"], batch_size=32, epochs=told["epochs"], shuffle=False, verbose=0
        )
        weights = {path: np.array(one) for one, path in zip(model.weights, paths, strict=True)}
        np.savez(folder / f"{name}.npz", **weights)


def differences() -> None:
    """Prints for each kind of network how far gradients are from central differences, relative to
    the largest of each array."""
    import keras

    from openmaas.training.precision import compute_in

    compute_in("float64")
    layers = keras.layers
    attended = keras.Input((5, 6))
    attention = layers.MultiHeadAttention(2, 3)(attended, attended)
    networks = {
        "dense": keras.Sequential([keras.Input((6,)), layers.Dense(5, "tanh"), layers.Dense(3)]),
        "convolution": keras.Sequential(
            [keras.Input((6, 6, 2)), layers.Conv2D(3, 3, activation="tanh"), layers.Flatten(),
             layers.Dense(3)]
        ),
        "lstm": keras.Sequential([keras.Input((5, 4)), layers.LSTM(4), layers.Dense(3)]),
        "attention": keras.Model(
            attended, layers.Dense(3)(layers.GlobalAveragePooling1D()(attention))
        ),
    }  # fmt: skip
    print(json.dumps({name: _difference(model) for name, model in networks.items()}))


def _difference(model: Any) -> float:
    import jax.numpy as jnp
    import keras

    from openmaas.training.session_network import Rows, SessionNetwork

    random = np.random.default_rng(5)
    x = random.normal(size=(7, *model.inputs[0].shape[1:]))
    batch = Rows([x], random.normal(size=(7, 3)), random.uniform(0.5, 2, 7))
    network = SessionNetwork(model, keras.optimizers.SGD(), "mse")
    start = [np.array(one) for one in network.state.trainable]

    def loss(index: int, at: tuple[int, ...], by: float) -> float:
        moved = [one.copy() for one in start]
        moved[index][at] += by
        network.state = network.state._replace(trainable=[jnp.asarray(one) for one in moved])
        return network.forward(batch)[1]

    network.forward_backward(batch)
    gradients = [np.array(one) for one in network.state.gradients]
    worst = 0.0
    for index, gradient in enumerate(gradients):
        assert gradient.dtype == np.float64
        number = min(5, gradient.size)
        for place in random.choice(gradient.size, number, replace=False):
            at = tuple(int(one) for one in np.unravel_index(place, gradient.shape))
            step = 1e-5
            found = (loss(index, at, step) - loss(index, at, -step)) / (2 * step)
            scale = max(np.abs(gradient).max(), 1e-3)
            worst = max(worst, abs(float(found - gradient[at])) / scale)
    return worst


if __name__ == "__main__":
    os.environ.update(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    if sys.argv[1] == "fit":
        fit(Path(sys.argv[2]))
    else:
        differences()
