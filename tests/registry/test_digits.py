"""The network that ships with the package is the one that its card describes."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from openmaas.registry.catalog import SHIPPED, Catalog

FOLDER = SHIPPED.parent / "starter"


def test_the_catalog_names_the_shipped_bytes() -> None:
    entry = Catalog.read().entry("digits")
    content = (SHIPPED.parent / entry.source.removeprefix("file:")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry.sha256
    assert len(content) == entry.size


def test_it_tells_digits_apart() -> None:
    model = onnx.load(str(FOLDER / "digits.onnx"))
    images = {0: ZERO, 1: ONE, 4: FOUR}
    pixels = np.array(
        [[int(digit, 17) for digit in text.split()] for text in images.values()], dtype=np.float32
    )
    (probabilities,) = ReferenceEvaluator(model).run(None, {"pixels": pixels})
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert probabilities.argmax(1).tolist() == list(images)
    assert probabilities.max(1).min() > 0.9


def test_the_card_gives_data_licence_and_accuracy() -> None:
    card = (FOLDER / "digits.md").read_text()
    accuracy = re.search(r"held-out images: (0\.\d+)", card)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.98
    assert "UCI" in card
    assert "Apache-2.0" in card


# The first images of their kind in the data set; pixels from 0 to g (16).
ZERO = """
0 0 5 d 9 1 0 0
0 0 d f a f 5 0
0 3 f 2 0 b 8 0
0 4 c 0 0 8 8 0
0 5 8 0 0 9 8 0
0 4 b 0 1 c 7 0
0 2 e 5 a c 0 0
0 0 6 d a 0 0 0
"""
ONE = """
0 0 0 c d 5 0 0
0 0 0 b g 9 0 0
0 0 3 f g 6 0 0
0 7 f g g 2 0 0
0 0 1 g g 3 0 0
0 0 1 g g 6 0 0
0 0 1 g g 6 0 0
0 0 0 b g a 0 0
"""
FOUR = """
0 0 0 1 b 0 0 0
0 0 0 7 8 0 0 0
0 0 1 d 6 2 2 0
0 0 7 f 0 9 8 0
0 5 g a 0 g 6 0
0 4 f g d g 1 0
0 0 0 3 f a 0 0
0 0 0 2 g 4 0 0
"""
