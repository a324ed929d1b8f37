"""Keras archives: judged before Keras reads them, and exported exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importers import keras_archive
from openmaas.registry.importing import import_model
from openmaas.registry.manifest import Port

MAKE = """
import sys
import keras
from keras import layers as L
from pathlib import Path
place = Path(sys.argv[1])
keras.utils.set_random_seed(1)
mlp = keras.Sequential([L.Input((16,), name="features"), L.Dense(8, "relu"), L.Dropout(0.2),
                        L.Dense(3, "softmax", name="classes")])
mlp.compile("adam", "mse")
mlp.save(place / "mlp.keras")
i = L.Input((10,), dtype="int64", name="tokens")
x = L.LSTM(6)(L.Embedding(50, 8, mask_zero=True)(i))
keras.Model(i, L.Dense(2, name="scores")(x)).save(place / "lstm.keras")
i = L.Input((12, 12, 1), name="image")
x = L.Flatten()(L.MaxPooling2D()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(i))))
keras.Model(i, L.Dense(2, name="scores")(x)).save(place / "cnn.keras")
i = L.Input((10, 4), name="series")
x = L.LayerNormalization()(L.Bidirectional(L.GRU(6, return_sequences=True))(i))
x = L.GlobalAveragePooling1D()(L.MultiHeadAttention(2, 4)(x, x))
keras.Model(i, L.Dense(2, name="scores")(x)).save(place / "attention.keras")
a, b = L.Input((4,), name="a"), L.Input((4,), name="b")
keras.Model([a, b], [L.Add(name="sum")([a, b]), L.Dense(2, name="d")(a)]).save(place / "two.keras")
i = L.Input((None,), dtype="int64", name="tokens")
keras.Model(i, L.LSTM(6)(L.Embedding(50, 8)(i))).save(place / "free.keras")
keras.Sequential([L.Input((4,)), L.Lambda(lambda x: x * 2)]).save(place / "lambda.keras")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    subprocess.run(
        [sys.executable, "-c", MAKE, str(folder)],
        env=os.environ | {"KERAS_BACKEND": "torch"},
        check=True,
        timeout=300,
    )
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("mlp", [("features", "FP32", [-1, 16])], [("classes", [-1, 3])]),
        ("lstm", [("tokens", "INT64", [-1, 10])], [("scores", [-1, 2])]),
        ("cnn", [("image", "FP32", [-1, 12, 12, 1])], [("scores", [-1, 2])]),
        ("attention", [("series", "FP32", [-1, 10, 4])], [("scores", [-1, 2])]),
        (
            "two",
            [("a", "FP32", [-1, 4]), ("b", "FP32", [-1, 4])],
            [("sum", [-1, 4]), ("d", [-1, 2])],
        ),
    ],
)
def test_networks_are_exported_and_compared(
    models: Path, store: ArtifactStore, name: str, inputs: list[Any], outputs: list[Any]
) -> None:
    digest, manifest = import_model(models / f"{name}.keras", store)
    assert manifest.architecture == "keras"
    assert manifest.inputs == [Port(*port) for port in inputs]
    assert manifest.outputs == [Port(port, "FP32", shape) for port, shape in outputs]
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 5e-6
    assert store.open(digest)


def test_free_sequence_lengths_are_refused_not_mistaken(models: Path, store: ArtifactStore) -> None:
    """Keras exports a recurrent loop for one length; at others it would answer wrongly."""
    with pytest.raises(ConversionFailed, match=r"fix them|differs by"):
        import_model(models / "free.keras", store)


def test_lambda_is_refused_before_keras_sees_it(models: Path, store: ArtifactStore) -> None:
    said: list[str] = []
    with pytest.raises(ArtifactRefused, match=r"keras\.layers\.Lambda"):
        import_model(
            models / "lambda.keras", store, progress=lambda done, total, text: said.append(text)
        )
    assert "checking the archive" in said
    assert "loading it in Keras" not in said


def rewritten(models: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    with zipfile.ZipFile(models / "mlp.keras") as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                edit(config)
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return target


def layer(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["config"]["layers"][1]
    return found


@pytest.mark.parametrize(
    "edit",
    [
        lambda config: layer(config).update(module="os", class_name="system"),
        lambda config: layer(config).update(class_name="TorchModuleWrapper"),
        lambda config: layer(config).update(registered_name="Custom>Dense"),
        lambda config: layer(config)["config"].update(
            activation={"class_name": "function", "module": "builtins", "config": "eval"}
        ),
        lambda config: layer(config)["config"].update(
            kernel_initializer={"class_name": "__lambda__", "config": {"value": "x"}}
        ),
        lambda config: layer(config)["config"].update(units=1 << 40),
        lambda config: layer(config)["config"].update(name="x" * 5000),
        lambda config: config.update(class_name="StringLookup", module="keras.layers"),
        lambda config: config.update(module=["keras.layers"]),
    ],
)
def test_configs_that_name_more_than_plain_layers(
    models: Path, store: ArtifactStore, tmp_path: Path, edit: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(ArtifactRefused):
        import_model(rewritten(models, tmp_path / "m.keras", edit), store)


def test_nesting_is_bounded() -> None:
    deep: Any = []
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(ArtifactRefused, match="too deep"):
        keras_archive.check_config(deep)


def test_weights_that_lie_elsewhere(tmp_path: Path) -> None:
    import h5py

    def made(name: str, fill: Callable[[Any], None]) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            fill(file)
        return path

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset("x", layout)

    keras_archive.check_weights(made("good", lambda file: file.create_dataset("a/b", data=[1.0])))
    for name, fill in {
        "external link": lambda file: file.update({"x": h5py.ExternalLink("/etc/passwd", "/")}),
        "soft link": lambda file: file.update({"x": h5py.SoftLink("/y")}),
        "external data": lambda file: file.create_dataset(
            "x", (4,), "f4", external=[("/etc/passwd", 0, 16)]
        ),
        "virtual": virtual,
        "bomb": lambda file: file.create_dataset("x", (1 << 40,), "f4", chunks=(1024,)),
        "objects": lambda file: file.create_dataset("x", (1,), h5py.string_dtype()),
        "type": lambda file: file.update({"x": np.dtype("i4")}),
    }.items():
        with pytest.raises(ArtifactRefused, match="weights"):
            keras_archive.check_weights(made(name.replace(" ", ""), fill))
    (tmp_path / "noise").write_bytes(b"\x89HDF\r\n\x1a\n" + os.urandom(1000))
    with pytest.raises(ArtifactRefused, match="damaged"):
        keras_archive.check_weights(tmp_path / "noise")
