"""Sentiment on held-out texts, beside VADER."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from quality.tables import Table, percent
from sklearn.metrics import f1_score

from openmaas.client import Client
from openmaas.registry import sources
from openmaas.registry.fetching import silent

BATCH = 128
MORE = 0.15  # of macro-F1 that is asked for beyond VADER
TRAIN = Path(__file__).parents[2] / "models" / "sentiment" / "train.py"


def training() -> ModuleType:
    """The starter's own training script: its data, its split, its VADER."""
    spec = importlib.util.spec_from_file_location("train_sentiment", TRAIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def tweets(train: ModuleType) -> tuple[list[str], NDArray[np.int64]]:
    """Graded tweets and the places of their labels, by the script's own rules."""
    with (
        tempfile.TemporaryDirectory() as place,
        sources.fetched(train.DATA, Path(place) / "data", progress=silent) as fetched,
    ):
        texts, labels = train.read(fetched.path)
        return texts, labels


def run(client: Client) -> Table:
    train = training()
    with tempfile.TemporaryDirectory() as place:
        data = train.gather(*tweets(train), train.fetch_rated(Path(place)))
    rows = []
    for kind, places in data.held_out.items():
        texts, truth = [data.texts[at] for at in places], data.labels[places]
        told = []
        for at in range(0, len(texts), BATCH):
            found = client.sentiment(texts[at : at + BATCH], model="sentiment")
            told += [train.LABELS.index(one.label) for one in found]
        figures = [
            ((truth == guesses).mean(), f1_score(truth, guesses, average="macro"))
            for guesses in (told, train.vader(texts))
        ]
        (accuracy, f1), (peer_accuracy, peer_f1) = figures
        row = [kind, str(len(texts)), percent(accuracy), percent(f1)]
        row += [percent(peer_accuracy), percent(peer_f1), f"{100 * (f1 - peer_f1):+.1f}"]
        if kind == train.GRADED:
            row[-1] += " (meets +15)" if f1 - peer_f1 >= MORE else " (**misses +15**)"
        rows.append(row)
        print(f"  {kind}: {row}", flush=True)
    return Table(
        "Sentiment, three classes",
        "Starter `sentiment` at `/v1/sentiment` beside VADER 3.3.2, on what "
        "`models/sentiment/train.py` holds out. VADER's authors found its rules in some of the "
        "rated tweets.",
        ["held out", "texts", "accuracy", "macro-F1", "VADER acc.", "VADER F1", "F1, points"],
        rows,
    )
