"""Gradients of networks as they are stored: what training makes, the starter model, encoders; and
of networks that were built in torch, as captum has them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from openvino import opset13 as ops

from openmaas.inference import Attribute, Attributed, Predict, Predicted, Score, Scored, Tensor
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importing import import_model
from openmaas.runtimes import (
    gradients,
    openvino_classifier,
    openvino_tabular,
    openvino_tensors,
)
from openmaas.runtimes.gradients import Gradients
from openmaas.runtimes.gradients_rolling import units
from openmaas.runtimes.gradients_steps import Roll
from tests.registry import small_models
from tests.runtimes import small_networks
from tests.runtimes.attributing import explained, values
from tests.runtimes.small_networks import tensor

Array = NDArray[Any]
STARTER = Path(small_models.__file__).parents[2] / "src/openmaas/registry/starter"
TEXT = "w3 w17 w4 w59 w8"
RECURRENT = ("text_lstm", "text_gru")
TEXTS = (
    "text_embeddings",
    *RECURRENT,
    "text_transformer",
    "sequence_lstm",
    "loop_gru",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    script = Path(__file__).with_name("gradient_networks.py")
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, script, folder],
        env=os.environ | {"PYTHONPATH": str(root)},
        check=True,
        timeout=600,
    )
    return folder


def adds_up(answer: Attributed) -> None:
    assert answer.error is not None
    assert answer.error <= 1e-3
    total = sum(float(values(answer, at).sum()) for at in range(len(answer.values)))
    assert total == pytest.approx(answer.instance_output - answer.baseline_output, abs=2e-3)


def probabilities(folder: Path, text: str) -> Array:
    served = openvino_classifier.open(folder, {"precision": "f32"})
    (scored,) = served.run([Score(inputs=[text])])
    served.close()
    assert isinstance(scored, Scored)
    powers: Array = np.exp(np.frombuffer(scored.data, "<f4").astype(np.float64))
    return powers / powers.sum()


def predicted(served: Any, inputs: list[Tensor]) -> Array:
    (answer,) = served.run([Predict(inputs=inputs)])
    served.close()
    assert isinstance(answer, Predicted)
    return np.frombuffer(answer.outputs[0].data, "<f4").reshape(answer.outputs[0].shape)


@pytest.mark.parametrize("name", TEXTS)
def test_recipes_of_texts(trained: Path, name: str) -> None:
    folder = trained / name
    runtime = gradients.open(folder, {})
    answer = explained(runtime, Attribute(method="integrated_gradients", text=TEXT, index=[1]))
    assert answer.instance_output == pytest.approx(probabilities(folder, TEXT)[1], abs=1e-5)
    adds_up(answer)
    found = values(answer)
    assert found.shape == (7,)
    assert found[0] == found[-1] == 0
    assert (np.abs(found[1:-1]) > 1e-7).all()
    if name in RECURRENT:  # compiled as a loop, as what was unrolled is too much to compile
        rolls = [one for one in units(runtime._network.plans.graph) if isinstance(one, Roll)]
        assert [len(one.steps) for one in rolls] == [9] * (2 if name == "text_lstm" else 1)


def test_recipe_of_images(trained: Path) -> None:
    image = np.random.default_rng(4).uniform(0, 16, (1, 8, 8)).astype(np.float32)
    inputs = [tensor(image, "image")]
    folder = trained / "image_cnn"
    answer = explained(
        gradients.open(folder, {}),
        Attribute(method="integrated_gradients", inputs=inputs, index=[2]),
    )
    wanted = predicted(openvino_tensors.open(folder, {}), inputs)
    assert answer.instance_output == pytest.approx(wanted[0, 2], abs=1e-5)
    adds_up(answer)
    assert values(answer).shape == (1, 8, 8)


def test_recipe_of_tables(trained: Path) -> None:
    folder = trained / "tabular_mlp"
    runtime = gradients.open(folder, {})
    assert runtime.info.tabular
    inputs = [
        tensor(np.float32([[43]]), "age"),
        Tensor(name="town", datatype="BYTES", shape=[1, 1], data=struct.pack("<I", 4) + b"Rome"),
        tensor(np.float32([[7]]), "sun"),
    ]
    request = Attribute(method="integrated_gradients", inputs=inputs, output="", index=[0])
    answer = explained(runtime, request)
    wanted = predicted(openvino_tabular.open(folder, {}), inputs)
    assert answer.instance_output == pytest.approx(wanted[0, 0], abs=1e-5)
    adds_up(answer)
    assert [(one.name, one.shape) for one in answer.values] == [
        ("age", [1, 1]),
        ("town", [1, 1]),
        ("sun", [1, 1]),
    ]
    # Missing values are what columns are compared with: then nothing is left to explain.
    missing = [
        tensor(np.float32([[np.nan]]), "age"),
        Tensor(name="town", datatype="BYTES", shape=[1, 1], data=struct.pack("<I", 0)),
        tensor(np.float32([[0]]), "sun"),
    ]
    nothing = explained(
        runtime, Attribute(method="integrated_gradients", inputs=missing, index=[0])
    )
    assert nothing.instance_output == pytest.approx(answer.baseline_output, abs=1e-6)
    assert not any(values(nothing, at).any() for at in range(3))


def test_the_starter_model(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    digest, _ = import_model(STARTER / "digits.onnx", store)
    image = np.random.default_rng(0).integers(0, 17, (1, 64)).astype(np.float32)
    inputs = [tensor(image, "pixels")]
    wanted = predicted(openvino_tensors.open(store.open(digest), {}), inputs)
    runtime = gradients.open(store.open(digest), {})
    answer = explained(runtime, Attribute(method="integrated_gradients", inputs=inputs, index=[3]))
    assert answer.instance_output == pytest.approx(wanted[0, 3], abs=1e-5)
    adds_up(answer)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_encoders_with_a_head(tmp_path: Path, family: str) -> None:
    store = ArtifactStore(tmp_path / "store")
    made = small_models.classifier_folder(tmp_path / family, family, "a", "b", "c")
    digest, _ = import_model(made, store)
    folder = store.open(digest)
    runtime = gradients.open(folder, {})
    for text in ("the cat sat", "on the mat"):
        answer = explained(runtime, Attribute(method="integrated_gradients", text=text, index=[0]))
        assert answer.instance_output == pytest.approx(probabilities(folder, text)[0], abs=1e-5)
        adds_up(answer)
        special = [at for at, (start, end) in enumerate(answer.offsets) if start == end]
        assert {0, len(answer.offsets) - 1} <= set(special)
        assert not values(answer)[special].any()


# --- as captum has it -----------------------------------------------------------------------


def captums(network: Any, x: Array, number: int) -> Array:
    import torch
    from captum.attr import IntegratedGradients

    found = IntegratedGradients(network).attribute(
        torch.from_numpy(x), target=number, n_steps=300, method="gausslegendre"
    )
    return np.asarray(found.detach().numpy())


def saved(folder: Path, shape: list[int], make: Callable[[Any], Any]) -> Gradients:
    made = small_networks.network(folder / "network", shape, make, np.float32)
    path = made / "manifest.json"
    path.write_text(json.dumps({"format": "openvino-ir"}))
    return gradients.open(made, {})


def constant(parameter: Any) -> Any:
    return ops.constant(np.ascontiguousarray(parameter.detach().numpy()))


@pytest.mark.filterwarnings("ignore")
def test_captum_says_the_same_of_a_network_of_layers(tmp_path: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    first, last = nn.Linear(6, 16), nn.Linear(16, 3)
    network = nn.Sequential(first, nn.Tanh(), last, nn.Softmax(-1)).eval()

    def make(x: Any) -> Any:
        for layer in (first, last):
            x = ops.matmul(x, constant(layer.weight), False, True)
            x = ops.add(x, constant(layer.bias))
            x = ops.tanh(x) if layer is first else ops.softmax(x, -1)
        return x

    x = np.random.default_rng(3).normal(size=(1, 6)).astype(np.float32) * 2
    answer = explained(
        saved(tmp_path, [-1, 6], make),
        Attribute(method="integrated_gradients", inputs=[tensor(x)], index=[1], tolerance=1e-5),
    )
    np.testing.assert_allclose(values(answer), captums(network, x, 1), atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_captum_says_the_same_of_convolutions(tmp_path: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    convolution, last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 3)
    network = nn.Sequential(
        convolution, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), last, nn.Softmax(-1)
    ).eval()

    def make(x: Any) -> Any:
        sides = [1, 1], [1, 1], [1, 1], [1, 1]
        x = ops.convolution(x, constant(convolution.weight), *sides)
        bias = constant(convolution.bias.reshape(1, -1, 1, 1))
        x = ops.relu(ops.add(x, bias))
        x = ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        x = ops.reshape(x, ops.constant(np.int64([0, -1])), True)
        x = ops.add(ops.matmul(x, constant(last.weight), False, True), constant(last.bias))
        return ops.softmax(x, -1)

    x = np.random.default_rng(3).normal(size=(1, 1, 8, 8)).astype(np.float32)
    answer = explained(
        saved(tmp_path, [-1, 1, 8, 8], make),
        Attribute(method="integrated_gradients", inputs=[tensor(x)], index=[2], tolerance=1e-4),
    )
    np.testing.assert_allclose(values(answer), captums(network, x, 2), atol=1e-3)
