"""Handwritten digits, from arrays to answers over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tests.journeys.house import client_of, parted
from tests.processes import ServerProcess

from openmaas.client import Client

Place = tuple[Client, ServerProcess]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with client_of(tmp_path_factory.mktemp("digits") / "data") as found:
        yield found


def accuracy(place: Place, name: str, x: Any, y: Any) -> float:
    """Of a served version, over both protocols, which agree."""
    client, server = place
    (served,) = client.predict(name, x.tolist()).values()
    told = np.array(served.rows())
    body = {"instances": x[:5].tolist()}
    answer = server.client.post(f"/v1/models/{name}:predict", json=body).json()
    assert np.allclose(answer["predictions"], told[:5], atol=1e-5)
    return float((told.argmax(1) == y).mean())


def test_an_mlp_on_plain_arrays(place: Place) -> None:
    client, _ = place
    digits = load_digits()
    x, y = digits.data.astype(np.float32), digits.target
    known, new = parted(len(y))
    job = client.training.train(
        "mlp",
        {"x": x[known], "y": y[known]},
        recipe="tabular_mlp",
        parameters={"units": 128, "dropout": 0.3},
        target="y",
        promote={"metric": "accuracy", "at_least": 0.9},
    )
    assert job.card()["card"]["recipe"] == "tabular_mlp"
    assert accuracy(place, "mlp", x[new], y[new]) >= 0.96


def test_a_cnn_on_raw_pixels(place: Place) -> None:
    client, _ = place
    digits = load_digits()
    images, y = digits.images.astype(np.uint8), digits.target
    known, new = parted(len(y))
    job = client.training.train(
        "cnn",
        client.datasets.upload(
            {"image": images[known], "label": y[known]},
            name="images",
            split={"validation": 0.1, "test": 0.1},
        ),
        recipe="image_cnn",
        parameters={"filters": 24},
        fit={"epochs": 20},
        target="label",
        promote=True,
    )
    assert job.card()["card"]["metrics"]["accuracy"] >= 0.95
    assert accuracy(place, "cnn", images[new], y[new]) >= 0.98
