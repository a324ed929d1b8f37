"""Trains the starter model ``digits`` and writes it, with its card, where the package ships it.

    pip install scikit-learn==1.9.1 numpy onnx
    python models/digits/train.py

A network 64 → 64 → 64 → 10 (ReLU, softmax) on scikit-learn's bundled 8 × 8 images of
handwritten digits (UCI Optical Recognition of Handwritten Digits, test part). Plain NumPy, Adam
(Kingma and Ba 2014), one seed: the same numbers on every run of one machine.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

SEED = 7
SIZES = (64, 64, 64, 10)
EPOCHS, BATCH, RATE, DECAY = 120, 32, 2e-3, 1e-4
TARGET = Path(__file__).parents[2] / "src/openmaas/registry/starter"

Array = NDArray[np.float32]


def main() -> None:
    digits = load_digits()
    split = train_test_split(
        digits.data.astype(np.float32),
        digits.target,
        test_size=0.2,
        random_state=SEED,
        stratify=digits.target,
    )
    train_x, test_x, train_y, test_y = split
    weights = train(train_x / 16, train_y)
    accuracy = float((forward(weights, test_x / 16)[-1].argmax(1) == test_y).mean())
    print(f"accuracy on {len(test_y)} held-out images: {accuracy:.4f}")
    # The file takes pixels as the data set has them, 0 … 16: the scale is part of layer one.
    weights[0] = (weights[0][0] / np.float32(16), weights[0][1])
    TARGET.mkdir(exist_ok=True)
    onnx.save(network(weights), str(TARGET / "digits.onnx"))
    (TARGET / "digits.md").write_text(CARD.format(accuracy=accuracy, test=len(test_y)))


def train(inputs: Array, labels: NDArray[np.int64]) -> list[tuple[Array, Array]]:
    """Weights [in, out] and biases [out] of each layer, He-initialised (He et al. 2015)."""
    random = np.random.default_rng(SEED)
    weights = [
        (
            (random.standard_normal((a, b)) * np.sqrt(2 / a)).astype(np.float32),
            np.zeros(b, np.float32),
        )
        for a, b in itertools.pairwise(SIZES)
    ]
    moments = [[np.zeros_like(part) for part in pair * 2] for pair in weights]
    step = 0
    for _ in range(EPOCHS):
        for rows in np.array_split(random.permutation(len(inputs)), len(inputs) // BATCH):
            step += 1
            gradients = backward(weights, inputs[rows], labels[rows])
            for at, pair in enumerate(gradients):
                weights[at] = adam(weights[at], pair, moments[at], step)
    return weights


def forward(weights: list[tuple[Array, Array]], inputs: Array) -> list[Array]:
    """What enters each layer, and the probabilities [rows, 10] last."""
    layers = [inputs]
    for matrix, bias in weights[:-1]:
        layers.append(np.maximum(layers[-1] @ matrix + bias, 0))
    scores = layers[-1] @ weights[-1][0] + weights[-1][1]
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return [*layers, powers / powers.sum(1, keepdims=True)]


def backward(
    weights: list[tuple[Array, Array]], inputs: Array, labels: NDArray[np.int64]
) -> list[tuple[Array, Array]]:
    """Gradients of the mean cross-entropy with L2 decay."""
    *layers, shares = forward(weights, inputs)
    error = shares.copy()
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    gradients = []
    for at in reversed(range(len(weights))):
        matrix = weights[at][0]
        gradients.append((layers[at].T @ error + DECAY * matrix, error.sum(0)))
        error = (error @ matrix.T) * (layers[at] > 0)
    return gradients[::-1]


def adam(
    pair: tuple[Array, Array], gradient: tuple[Array, Array], moments: list[Array], step: int
) -> tuple[Array, Array]:
    moved = []
    for at, (value, slope) in enumerate(zip(pair, gradient, strict=True)):
        moments[at] = 0.9 * moments[at] + 0.1 * slope
        moments[at + 2] = 0.999 * moments[at + 2] + 0.001 * slope**2
        mean = moments[at] / (1 - 0.9**step)
        spread = moments[at + 2] / (1 - 0.999**step)
        moved.append((value - RATE * mean / (np.sqrt(spread) + 1e-8)).astype(np.float32))
    return moved[0], moved[1]


def network(weights: list[tuple[Array, Array]]) -> onnx.ModelProto:
    """ONNX: ``pixels`` float32 [batch, 64] → ``probabilities`` float32 [batch, 10]."""
    nodes, constants, last = [], [], "pixels"
    for at, (matrix, bias) in enumerate(weights):
        names = [f"layer{at}_weight", f"layer{at}_bias"]
        constants += [
            numpy_helper.from_array(value.astype(np.float32), name)
            for value, name in zip((matrix, bias), names, strict=True)
        ]
        nodes.append(helper.make_node("Gemm", [last, *names], [f"layer{at}"]))
        last = f"layer{at}"
        if at < len(weights) - 1:
            nodes.append(helper.make_node("Relu", [last], [f"relu{at}"]))
            last = f"relu{at}"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="openmaas"
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


CARD = """# digits

Tells which digit an 8 × 8 grey image shows. A network 64 → 64 → 64 → 10 (ReLU, softmax).

- Input `pixels`: float32 [batch, 64], row by row from the top left, 0 (white) to 16 (black).
- Output `probabilities`: float32 [batch, 10], of the digits 0 to 9.
- Data: scikit-learn's `load_digits`, 1,797 images (E. Alpaydin and C. Kaynak, "Optical
  Recognition of Handwritten Digits", UCI Machine Learning Repository 1998, CC BY 4.0);
  80 % for training, {test} images held out by a fixed split, balanced by digit.
- Accuracy on the held-out images: {accuracy:.4f}. It was chosen by nothing but the fixed seed.
- Made by `models/digits/train.py`. Licence: Apache-2.0.
- Meant for trying the server out, not for reading real mail.
"""


if __name__ == "__main__":
    main()
