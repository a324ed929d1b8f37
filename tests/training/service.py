"""Small jobs on a real server, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from tests.processes import ServerProcess

from openmaas.client import Client
from openmaas.client.training import Job


def digits() -> dict[str, NDArray[Any]]:
    found = load_digits()
    return {"x": found.data.astype(np.float32), "y": found.target.astype(np.int64)}


def layer(name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": name, "config": config}


def dense(*units: int, inputs: int = 64) -> dict[str, Any]:
    """A classifier: hidden layers of so many units, and the last one's softmax."""
    first = layer("InputLayer", batch_shape=[None, inputs], dtype="float32")
    scale = layer("Rescaling", scale=1 / 16, offset=0.0)
    hidden = [layer("Dense", units=one, activation="relu") for one in units[:-1]]
    last = layer("Dense", units=units[-1], activation="softmax")
    layers = [first, scale, *hidden, last]
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "net", "layers": layers},
    }


def submit(client: Client, dataset: Any, model: str = "m", **more: Any) -> Job:
    """A job of a small network on digits that is not waited for."""
    fit = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], "epochs": 3}
    fit |= more.pop("fit", {})
    job = {"network": {"config": dense(32, 10)}, "target": "y", "fit": fit} | more
    return client.training.train(model, dataset, wait=False, **job)


def trainer(server: ServerProcess) -> int | None:
    """The process that trains now."""
    for pid in server.children():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"openmaas.training.trainer" in line:
            return pid
    return None
