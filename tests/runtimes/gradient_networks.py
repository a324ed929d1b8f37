"""Makes artifacts of the networks that the training recipes build, as they are served: ``FOLDER``.

On Keras's backend ``openvino``, in a process of its own; nothing is trained.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace as Given
from typing import Any

os.environ["KERAS_BACKEND"] = "openvino"

from openmaas.registry.importers import keras_export

keras = keras_export.library()

import msgspec  # noqa: E402
import numpy as np  # noqa: E402
import openvino as ov  # noqa: E402
from keras import layers as L  # noqa: E402, N812

from openmaas.columns import Column  # noqa: E402
from openmaas.registry.importers import keras_classifier_graph  # noqa: E402
from openmaas.training.recipes.image_cnn import ImageCnn  # noqa: E402
from openmaas.training.recipes.tabular_mlp import TabularMlp  # noqa: E402
from openmaas.training.recipes.text_embeddings import TextEmbeddings  # noqa: E402
from openmaas.training.recipes.text_gru import TextGru  # noqa: E402
from openmaas.training.recipes.text_lstm import TextLstm  # noqa: E402
from openmaas.training.recipes.text_transformer import TextTransformer  # noqa: E402
from tests.runtimes import small_networks  # noqa: E402

place = Path(sys.argv[1])
chance = np.random.default_rng(3)
reader = small_networks.without_mask(place / "words")  # whose tokenizer the texts are read by
LENGTH = 12
LABELS = ["a", "b", "c"]
WORDS = Given(
    dimensions=8, units=6, layers=1, heads=2, dropout=0.1, bidirectional=True, vocabulary=64
)


def recipe(kind: Any, parameters: Any, **own: Any) -> Any:
    """A network as a recipe builds it, without data."""
    made = object.__new__(kind)
    made.asked = Given(
        parameters=parameters,
        fit=Given(seed=0),
        private=False,
        data=Given(description=Given(kind="table")),
    )
    made.labels = LABELS
    for name, value in own.items():
        setattr(made, name, value)
    return made.build()


def exported(name: str, model: Any, **manifest: Any) -> ov.Model:
    """Its graph, with weights of a trained network's size everywhere."""
    for variable in model.weights:
        if variable.name not in ("seed_generator_state", "mean", "variance", "count"):
            noise = chance.normal(0, 0.4, variable.shape).astype("float32")
            variable.assign(noise**2 + 0.5 if "variance" in variable.path else noise)
    folder = place / name
    folder.mkdir()
    model.save(folder / "model.keras")
    graph = keras_export.graph(keras_export.load(folder / "model.keras"), folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return graph


def save(name: str, graph: ov.Model) -> Path:
    ov.save_model(graph, place / name / "openvino_model.xml", compress_to_fp16=False)
    return place / name


def text(name: str, model: Any, length: int | None = LENGTH) -> None:
    graph = exported(
        name, model, format="openvino-classifier", context_tokens=LENGTH, labels=LABELS
    )
    padding = keras_classifier_graph.Padding(0, left=name == "text_gru")
    folder = save(name, keras_classifier_graph.build(graph, length, padding))
    shutil.copy(reader / "tokenizer.json", folder)


def texts() -> None:
    own = {"length": LENGTH, "tokenizer": Given(get_vocab_size=lambda: 64)}
    for name, kind in {
        "text_embeddings": TextEmbeddings,
        "text_lstm": TextLstm,
        "text_gru": TextGru,
        "text_transformer": TextTransformer,
    }.items():
        words = Given(**vars(WORDS) | {"bidirectional": kind is TextLstm})
        text(name, recipe(kind, words, **own))
    # Without a mask Keras writes LSTMSequence; with one, and of any length, a loop.
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    x = L.Bidirectional(L.LSTM(5, return_sequences=True))(L.Embedding(64, 6)(ids))
    answer = L.Dense(3, "softmax")(L.GlobalMaxPooling1D()(x))
    text("sequence_lstm", keras.Model(ids, answer), None)
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    x = L.GRU(5)(L.Embedding(64, 6, mask_zero=True)(ids))
    text("loop_gru", keras.Model(ids, L.Dense(3, "softmax")(x)), None)


def images() -> None:
    given = Given(blocks=2, filters=4, units=8, dropout=0.1, augment=False)
    model = recipe(ImageCnn, given, _shape=(8, 8), _scale=1 / 16, _offset=-0.5)
    save("image_cnn", exported("image_cnn", model, format="openvino-ir", labels=LABELS))


def tables() -> None:
    known = [
        Column(name="age", kind="number", missing=40.0, input="column_0"),
        Column(name="town", kind="category", values=["Oslo", "Rome"], input="column_1"),
        Column(name="sun", kind="number", input="column_2"),
    ]
    columns = [chance.normal(at, 3, (50, 1)).astype("float32") for at in (40, 1, 5)]
    model = recipe(
        TabularMlp,
        Given(layers=2, units=8, dropout=0.1, dimensions=4),
        _served=known,
        _trained=Given(inputs=columns, places=np.arange(50)),
    )
    graph = exported("tabular_mlp", model, format="openvino-tabular", labels=LABELS)
    folder = save("tabular_mlp", graph)
    (folder / "columns.json").write_bytes(msgspec.json.encode(known))


texts()
images()
tables()
