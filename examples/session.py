"""Digits in a training loop of one's own whose steps run on the server; then the result is served.

Needs scikit-learn for the images, and a server whose training is installed: OPENMAAS_URL and
OPENMAAS_API_KEY say which.
"""

import os
import time

import numpy as np
from sklearn.datasets import load_digits

from openmaas.client import ApiError, Client

EPOCHS, BATCH = int(os.environ.get("EPOCHS", "15")), 32
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
x, y = (images[order] / 16).astype(np.float32), digits[order]
held_out = slice(0, 360)


def layer(kind: str, **config: object) -> dict:
    return {"module": "keras.layers", "class_name": kind, "config": config}


layers = [
    layer("InputLayer", batch_shape=[None, 64], dtype="float32", name="pixels"),
    layer("Dense", units=64, activation="relu", name="hidden"),
    layer("Dropout", rate=0.1, name="dropout"),
    layer("Dense", units=10, activation="softmax", name="probabilities"),
]
network = {
    "module": "keras", "class_name": "Sequential", "config": {"name": "digits", "layers": layers}
}  # fmt: skip

with (
    Client(os.environ["OPENMAAS_URL"], os.environ["OPENMAAS_API_KEY"]) as client,
    client.sessions.open(
        network, loss="sparse_categorical_crossentropy", optimizer="adam", model="digits-by-hand"
    ) as session,
):
    for epoch in range(EPOCHS):
        places = np.random.default_rng([1, epoch]).permutation(np.arange(360, len(x)))
        steps = []
        for at in range(0, len(places), BATCH):
            batch = places[at : at + BATCH]
            steps.append(session.forward_backward_async(x[batch], y[batch]))
            session.optim_step_async(learning_rate=3e-3 * 0.85**epoch)
        loss = np.mean([one.result().loss for one in steps])
        found = np.asarray(session.predict(x[held_out])).argmax(axis=1)
        right = (found == y[held_out]).mean()
        print(f"epoch {epoch + 1}: loss {loss:.4f}, held-out accuracy {right:.3f}")

    version = session.publish(deploy=True, description="trained by examples/session.py")
    print(f"published as {version['model']} version {version['version']}")
    while True:  # until it is loaded
        try:
            (served,) = client.predict(version["model"], x[held_out].tolist()).values()
            break
        except ApiError as error:
            if error.status not in (404, 503):
                raise
            time.sleep(0.2)
    print(f"served: accuracy {(np.array(served.rows()).argmax(axis=1) == y[held_out]).mean():.3f}")
