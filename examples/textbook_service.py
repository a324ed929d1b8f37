"""The textbook's network, trained by the service from data that are sent to it: one call.

Needs a server whose training is installed: OPENMAAS_URL and OPENMAAS_API_KEY say which.
"""

import os

import numpy as np

from openmaas.client import Client

directions = np.random.default_rng(0).standard_normal((100, 10))
x = np.random.default_rng(1).standard_normal((20_000, 100)).astype(np.float32)
y = (x @ directions).argmax(axis=1)


def dense(units: int, activation: str) -> dict:
    return {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {"units": units, "activation": activation},
    }


# What `Sequential([...]).to_json()` says, so that no framework is needed here.
first = {
    "module": "keras.layers",
    "class_name": "InputLayer",
    "config": {"batch_shape": [None, 100], "dtype": "float32"},
}
layers = [first, dense(64, "relu"), dense(64, "relu"), dense(10, "softmax")]
network = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {"name": "net", "layers": layers},
}

with Client(os.environ["OPENMAAS_URL"], os.environ["OPENMAAS_API_KEY"]) as client:
    job = client.training.train(
        "textbook",
        {"x": x, "y": y},
        network={"config": network},
        target="y",
        fit={
            "optimizer": "adam",
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["accuracy"],
            "epochs": int(os.environ.get("EPOCHS", "10")),
        },
        promote=True,
        tell=lambda event: print(event["kind"], event["data"]),
    )
    version = job.card()
    worst = version["verification"]["max_abs_error"]  # of what is served from what was trained
    print(f"OpenMaaS: version {job.version}, largest difference {worst:.1e}")
    print(version["card"]["metrics"])
    print(client.predict("textbook", x[:3].tolist(), version=job.version))
