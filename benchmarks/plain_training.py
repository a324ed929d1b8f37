"""The same network with plain TensorFlow, as a script of its own: what a data scientist runs.

    plain_training.py DATA.npz NETWORK EPOCHS BATCH

Prints JSON: seconds of each epoch. The whole script, imports too, is timed by whoever starts it.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def main(data: str, network: str, epochs: int, batch: int) -> None:
    import tensorflow as tf
    from tensorflow.keras.layers import LSTM, Dense, Embedding

    with np.load(data) as arrays:
        x, y = arrays["x"], arrays["y"]
    train, validation, test = split(len(x))
    layers = {
        "textbook": [
            tf.keras.Input((100,)), Dense(64, activation="relu"), Dense(64, activation="relu"),
            Dense(10, activation="softmax"),
        ],
        "lstm": [
            tf.keras.Input((40,), dtype="int32"), Embedding(2000, 32), LSTM(32),
            Dense(10, activation="softmax"),
        ],
    }  # fmt: skip
    model = tf.keras.Sequential(layers[network])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    seconds: list[float] = []

    class Clock(tf.keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            seconds.append(time.perf_counter() - self.began)

    model.fit(
        x[train], y[train], validation_data=(x[validation], y[validation]),
        epochs=epochs, batch_size=batch, verbose=0, callbacks=[Clock()],
    )  # fmt: skip
    _, accuracy = model.evaluate(x[test], y[test], verbose=0)
    model.save(data + ".keras")
    print(json.dumps({"seconds": seconds, "accuracy": accuracy}))


def split(rows: int) -> list[slice]:
    """Train, validation and test, as large as the service makes them by default."""
    ends = [int(rows * 0.7), int(rows * 0.8)]
    return [slice(0, ends[0]), slice(ends[0], ends[1]), slice(ends[1], rows)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
