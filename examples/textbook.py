"""The textbook's network, built and fitted with TensorFlow, then served by OpenMaaS.

Needs the extra `tensorflow` and a server: OPENMAAS_URL and OPENMAAS_API_KEY say which.
"""

import os

import numpy as np
from tensorflow.keras import Sequential
from tensorflow.keras.layers import Dense

from openmaas.client import Client


def data(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 100 numbers, each with one of ten classes."""
    directions = np.random.default_rng(0).standard_normal((100, 10))
    x = np.random.default_rng(seed).standard_normal((rows, 100)).astype(np.float32)
    return x, (x @ directions).argmax(axis=1)


x_train, y_train = data(20_000, seed=1)
x_test, y_test = data(1_000, seed=2)

model = Sequential([
    Dense(64, activation="relu", input_shape=(100,)),
    Dense(64, activation="relu"),
    Dense(10, activation="softmax"),
])  # fmt: skip
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=int(os.environ.get("EPOCHS", "10")), verbose=2)
_, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"TensorFlow: accuracy {accuracy:.3f}")

with Client(os.environ["OPENMAAS_URL"], os.environ["OPENMAAS_API_KEY"]) as client:
    pushed = client.training.push("textbook", model, deploy=True)
    (served,) = client.predict("textbook", x_test.tolist(), version=pushed["version"]).values()
    mine = model.predict(x_test, verbose=0)
    worst = np.abs(np.array(served.rows()) - mine).max()
    print(f"OpenMaaS: version {pushed['version']}, largest difference {worst:.1e}")
