"""Configs of Keras networks, as ``json.loads(model.to_json())`` gives them, without Keras."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def sequential(inputs: int, *layers: Config) -> Config:
    first = _layer("InputLayer", batch_shape=[None, inputs], dtype="float32", name="pixels")
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "network", "layers": [first, *layers]},
        "registered_name": None,
    }


def dense(units: int, activation: str = "linear") -> Config:
    return _layer("Dense", units=units, activation=activation)


def dropout(rate: float) -> Config:
    return _layer("Dropout", rate=rate)


def normalization() -> Config:
    return _layer("BatchNormalization")


def _layer(kind: str, **config: Any) -> Config:
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": config,
        "registered_name": None,
    }


def functional(**inputs: int) -> Config:
    """Inputs of these names and widths, joined, to three classes."""
    starts = [
        _layer("InputLayer", batch_shape=[None, width], dtype="float32", name=name)
        | {"name": name, "inbound_nodes": []}
        for name, width in inputs.items()
    ]
    both = [_tensor(name, width) for name, width in inputs.items()]
    width = sum(inputs.values())
    joined = _layer("Concatenate", axis=-1, name="joined") | {
        "name": "joined",
        "inbound_nodes": [{"args": [both], "kwargs": {}}],
    }
    last = _layer("Dense", units=3, activation="softmax", name="last") | {
        "name": "last",
        "inbound_nodes": [{"args": [_tensor("joined", width)], "kwargs": {}}],
    }
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": "two",
            "layers": [*starts, joined, last],
            "input_layers": [[name, 0, 0] for name in inputs],
            "output_layers": [["last", 0, 0]],
        },
        "registered_name": "Functional",
    }


def _tensor(layer: str, width: int) -> Config:
    config = {"shape": [None, width], "dtype": "float32", "keras_history": [layer, 0, 0]}
    return {"class_name": "__keras_tensor__", "config": config}
