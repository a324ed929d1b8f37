"""Small networks of every kind of layer whose gradients are made of what goes in and out, and of
some whose are not; with rows for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

Array = NDArray[Any]
CLASSES = 4


def _dense(chance: np.random.Generator) -> tuple[Any, Array]:
    given = keras.Input((6,))
    x = layers.Dense(5, activation="relu")(given)
    x = layers.LayerNormalization()(x)
    x = layers.Dense(5, use_bias=False, activation="tanh")(x)
    return keras.Model(given, _answer(x)), chance.normal(size=(12, 6)).astype("f4")


def _image(**options: Any) -> Callable[[np.random.Generator], tuple[Any, Array]]:
    def made(chance: np.random.Generator) -> tuple[Any, Array]:
        given = keras.Input((7, 6, 2))
        x = layers.Conv2D(4, 3, activation="relu", **options)(given)
        x = layers.GroupNormalization(2)(x)
        x = layers.Conv2D(3, (2, 1), use_bias=False)(x)
        x = layers.Flatten()(x)
        return keras.Model(given, _answer(x)), chance.normal(size=(12, 7, 6, 2)).astype("f4")

    return made


def _series(chance: np.random.Generator) -> tuple[Any, Array]:
    given = keras.Input((9, 3))
    x = layers.Conv1D(4, 3, padding="same", activation="relu")(given)
    x = layers.Dense(4, activation="relu")(x)  # at each place
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(given, _answer(x)), chance.normal(size=(12, 9, 3)).astype("f4")


def _words(cell: Any, **options: Any) -> Callable[[np.random.Generator], tuple[Any, Array]]:
    def made(chance: np.random.Generator) -> tuple[Any, Array]:
        given = keras.Input((7,), dtype="int32")
        x = layers.Embedding(10, 4, mask_zero=True)(given)
        x = layers.Bidirectional(cell(3, return_sequences=True, **options))(x)
        x = cell(3, go_backwards=True, **options)(x)
        ids = chance.integers(1, 10, (12, 7)).astype("i4")
        ids[:6, 4:] = 0
        ids[2] = 3  # one word, again and again
        return keras.Model(given, _answer(x)), ids

    return made


def _attention(chance: np.random.Generator) -> tuple[Any, Array]:
    given = keras.Input((5,), dtype="int32")
    x = layers.Embedding(10, 4)(given)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 2)(x, x)])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(given, _answer(x)), chance.integers(0, 10, (12, 5)).astype("i4")


def _shared(chance: np.random.Generator) -> tuple[Any, Array]:
    """A layer that is called twice, and a network within the network."""
    given = keras.Input((4,))
    twice = layers.Dense(4, activation="tanh")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu")])
    x = inner(twice(twice(given)))
    return keras.Model(given, _answer(x)), chance.normal(size=(12, 4)).astype("f4")


def _answer(x: Any) -> Any:
    return layers.Dense(CLASSES, activation="softmax")(x)


MADE: dict[str, Callable[[np.random.Generator], tuple[Any, Array]]] = {
    "dense": _dense,
    "image": _image(),
    "image, same, strides": _image(padding="same", strides=2),
    "image, same, dilated": _image(padding="same", dilation_rate=2),
    "series": _series,
    "lstm": _words(layers.LSTM),
    "lstm, dropout within": _words(layers.LSTM, recurrent_dropout=0.3, seed=1),
    "gru": _words(layers.GRU),
    "gru, reset before": _words(layers.GRU, reset_after=False),
    "attention": _attention,
    "shared": _shared,
}


def made(name: str, seed: int = 0) -> tuple[Any, Array, Array]:
    """A network, inputs and targets of twelve rows."""
    keras.utils.set_random_seed(seed)
    chance = np.random.default_rng(seed)
    model, inputs = MADE[name](chance)
    # Biases begin at zero, where an error in them would not be seen.
    for one in model.trainable_variables:
        one.assign(one + chance.normal(scale=0.1, size=one.shape).astype("f4"))
    return model, inputs, chance.integers(0, CLASSES, len(inputs)).astype("i4")
