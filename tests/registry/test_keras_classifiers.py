"""Classifiers trained in Keras answer here with the probabilities that Keras gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConversionFailed, InvalidRequest
from openmaas.inference import Score, Scored
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importing import import_model
from openmaas.registry.recognise import recognise
from openmaas.runtimes import openvino_classifier
from tests.registry.harms import Harm, absent, setting, text

LENGTH = 12
WORDS = ["[PAD]", "[UNK]", *(f"w{number}" for number in range(30))]
TEXTS = [
    " ".join(f"w{(at * 7 + step * (1 + at % 3)) % 30}" for step in range(1 + at % LENGTH))
    for at in range(40)
]

# Each network is trained to tell whose words a text is made of: w0–w9, w10–w19 or w20–w29.
MAKE = """
import json
import sys
import keras
import numpy as np
from keras import layers as L
from pathlib import Path
place, length = Path(sys.argv[1]), int(sys.argv[2])
texts = json.loads((place / "texts.json").read_text())
keras.utils.set_random_seed(1)
rng = np.random.default_rng(1)
counts = rng.integers(1, length + 1, 300)
groups = rng.integers(0, 3, 300)
rows = [2 + 10 * g + rng.integers(0, 10, n) for g, n in zip(groups, counts)]

def padded(rows, side):
    return keras.utils.pad_sequences(rows, length, padding=side)

def made(name, inputs, loss, side, *layers, dtype="int64"):
    i = L.Input((inputs,), dtype=dtype, name="tokens")
    x = i
    for layer in layers:
        x = layer(x)
    model = keras.Model(i, x)
    one = x.shape[-1] == 1
    wanted = groups == 2 if one else np.eye(3)[groups] if loss in (several, "mse") else groups
    model.compile(keras.optimizers.Adam(0.1), loss)
    model.fit(padded(rows, side), np.asarray(wanted, "float32"), 100, epochs=5, verbose=0)
    model.save(place / f"{name}.keras")
    if inputs is None:
        found = [model.predict_on_batch(np.array([row]))[0] for row in texts]
    else:
        found = model.predict_on_batch(padded(texts, side))
    (place / f"{name}.json").write_text(json.dumps(np.asarray(found).tolist()))

single, several = "sparse_categorical_crossentropy", "binary_crossentropy"
made("mean", length, single, "post", L.Embedding(32, 8), L.GlobalAveragePooling1D(),
     L.Dense(3, "softmax"), dtype="float32")
made("lstm", length, several, "pre", L.Embedding(32, 8, mask_zero=True), L.LSTM(6),
     L.Dense(1, "sigmoid"))
made("free", None, single, "post", L.Embedding(32, 8, mask_zero=True),
     L.GlobalAveragePooling1D(), L.Dense(3), L.Softmax())
made("several", length, several, "post", L.Embedding(32, 8, mask_zero=True),
     L.GlobalAveragePooling1D(), L.Dense(3, "sigmoid"))
made("logits", length, keras.losses.SparseCategoricalCrossentropy(from_logits=True), "post",
     L.Embedding(32, 8), L.Conv1D(8, 3, activation="relu"), L.GlobalMaxPooling1D(), L.Dense(3))
made("hidden", length, "mse", "post", L.Embedding(32, 8), L.GlobalAveragePooling1D(),
     L.Dense(3, "softmax"), L.UnitNormalization())
names = ("input_ids", "attention_mask")
ids, mask = (L.Input((None,), dtype="int64", name=name) for name in names)
wide = keras.initializers.RandomNormal(0, 1)
x = L.GlobalAveragePooling1D()(L.Embedding(32, 8, wide)(ids), mask=mask)
model = keras.Model([ids, mask], L.Dense(3, "softmax")(x))
model.save(place / "masked.keras")
found = [model.predict_on_batch([np.array([t]), np.ones((1, len(t)), "int64")])[0] for t in texts]
(place / "masked.json").write_text(json.dumps(np.asarray(found).tolist()))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    rows = [[WORDS.index(word) for word in text.split()] for text in TEXTS]
    (folder / "texts.json").write_text(json.dumps(rows))
    subprocess.run(
        [sys.executable, "-c", MAKE, str(folder), str(LENGTH)],
        env=os.environ | {"KERAS_BACKEND": "torch"},
        check=True,
        timeout=300,
    )
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def complete(models: Path, folder: Path, name: str, *labels: str, left: bool = False) -> Path:
    """A folder as it would be pushed."""
    folder.mkdir()
    shutil.copy(models / f"{name}.keras", folder / "classifier.keras")
    config: dict[str, Any] = {"id2label": dict(enumerate(labels))}
    if name in ("free", "masked"):
        config["max_position_embeddings"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {
        "version": "1.0",
        "padding": {
            "strategy": {"Fixed": LENGTH},
            "direction": "Left" if left else "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(WORDS)},
            "unk_token": "[UNK]",
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def served(folder: Path, *texts: str) -> NDArray[np.float64]:
    """Logits of the texts, asked for together."""
    runtime = openvino_classifier.open(folder, {})
    (answer,) = runtime.run([Score(inputs=list(texts))])
    runtime.close()
    assert isinstance(answer, Scored)
    rows = np.frombuffer(answer.data, "<f4").reshape(-1, answer.labels)
    return rows.astype(np.float64)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return shares


@pytest.mark.parametrize(
    ("name", "labels", "left", "multi", "context"),
    [
        ("mean", ["a", "b", "c"], False, False, LENGTH),
        ("lstm", ["no", "yes"], True, False, LENGTH),
        ("free", ["a", "b", "c"], False, False, 64),
        ("several", ["a", "b", "c"], False, True, LENGTH),
        ("logits", ["a", "b", "c"], False, False, LENGTH),
        ("masked", ["a", "b", "c"], False, False, 64),
    ],
)
def test_the_service_gives_keras_s_probabilities(
    models: Path,
    store: ArtifactStore,
    tmp_path: Path,
    name: str,
    labels: list[str],
    left: bool,
    multi: bool,
    context: int,
) -> None:
    folder = complete(models, tmp_path / "m", name, *labels, left=left)
    assert recognise(folder).kind == "keras_classifier"
    digest, manifest = import_model(folder, store)
    assert (manifest.format, manifest.task) == ("openvino-classifier", "classify")
    assert (manifest.labels, manifest.multi_label, manifest.pairs) == (labels, multi, False)
    assert (manifest.architecture, manifest.context_tokens) == ("keras", context)
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1e-5
    logits = served(store.open(digest), *TEXTS)
    wanted = np.array(json.loads((models / f"{name}.json").read_text()))
    if name == "lstm":
        wanted = np.concatenate([1 - wanted, wanted], axis=1)
    if name == "logits":
        found = logits
    elif multi:
        found = 1 / (1 + np.exp(-logits))
    else:
        found = softmax(logits)
    assert np.abs(found - wanted).max() < 1e-5
    assert np.ptp(wanted[:, 0]) > 0.2  # it tells texts apart
    alone = np.concatenate([served(store.open(digest), one) for one in TEXTS[:3]])
    assert np.abs(alone - logits[:3]).max() < 1e-4


def test_what_is_longer_than_the_network_reads_is_refused(
    models: Path, store: ArtifactStore, tmp_path: Path
) -> None:
    digest, _ = import_model(complete(models, tmp_path / "m", "mean", "a", "b", "c"), store)
    runtime = openvino_classifier.open(store.open(digest), {})
    assert runtime.size(Score(inputs=["w1 " * LENGTH])) == LENGTH
    with pytest.raises(InvalidRequest, match=f"the limit is {LENGTH}"):
        runtime.size(Score(inputs=["w1 " * (LENGTH + 1)]))
    runtime.close()


def no_layers(folder: Path) -> None:
    path = folder / "classifier.keras"
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    parts["config.json"] = parts["config.json"].replace(b'"Embedding"', b'"Lambda"')
    with zipfile.ZipFile(path, "w") as new:
        for name, content in parts.items():
            new.writestr(name, content)


def more_words(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["w30"] = 32
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def padding(said: Any) -> Harm:
    def edit(folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"padding": said}))

    return edit


@pytest.mark.parametrize(
    ("name", "harm", "error", "why"),
    [
        ("mean", setting(id2label={"0": "a", "1": "b"}), ArtifactRefused, "3 logits"),
        ("mean", setting(problem_type="multi_label_classification"), ConversionFailed, "Softmax"),
        ("several", setting(problem_type="single_label_classification"), ConversionFailed, "Sigm"),
        ("free", setting(max_position_embeddings=None), ArtifactRefused, "max_position"),
        ("mean", more_words, ArtifactRefused, "ids up to 32"),
        ("mean", padding({"direction": "Up"}), ArtifactRefused, "pads"),
        ("mean", padding("Left and right"), ArtifactRefused, "pads"),
        ("mean", no_layers, ArtifactRefused, "Lambda"),
        ("mean", text("tokenizer.json", "[]"), ArtifactRefused, "no object"),
        ("mean", text("tokenizer.json", "{}"), ArtifactRefused, "cannot be read"),
        ("hidden", lambda folder: None, ConversionFailed, "look like probabilities"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    models: Path,
    store: ArtifactStore,
    tmp_path: Path,
    name: str,
    harm: Harm,
    error: type[Exception],
    why: str,
) -> None:
    labels = ("no", "yes") if name == "lstm" else ("a", "b", "c")
    folder = complete(models, tmp_path / "m", name, *labels)
    harm(folder)
    with pytest.raises(error, match=why):
        import_model(folder, store)
    assert store.digests() == []


def test_without_a_tokenizer_it_is_an_ordinary_network(models: Path, tmp_path: Path) -> None:
    folder = complete(models, tmp_path / "m", "mean", "a", "b", "c")
    absent("tokenizer.json")(folder)
    assert recognise(folder).kind == "keras"
