"""The recipes of texts on little data: trained, exported, served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.registry.exports import rows, stored
from tests.registry.small_models import encoder_folder
from tests.training import canonical, jobs
from tokenizers import Tokenizer

from openmaas.errors import InvalidRequest
from openmaas.inference import Score, Scored
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importing import import_model
from openmaas.training import parameters, task
from openmaas.training.task import Failure, Result

WORDS = {"sea": ["boat", "wave", "salt", "fish"], "wood": ["tree", "moss", "owl", "leaf"]}
OTHER = "the a of and was near we saw it there".split()
SMALL = {"dimensions": 16, "length": 16, "dropout": 0.1}
RECIPES = {
    "text_embeddings": SMALL,
    "text_lstm": SMALL | {"units": 8},
    "text_gru": SMALL | {"units": 8, "bidirectional": False},
    "text_transformer": SMALL | {"heads": 2, "units": 16},
    "text_encoder": {"length": 16},
}
FIT = {"epochs": 8, "batch_size": 16, "optimizer": {"learning_rate": 0.02}}
Done = dict[str, tuple[Result | Failure, Path]]


def texts(count: int = 240) -> tuple[list[str], list[str]]:
    chance = np.random.default_rng(9)
    found, labels = [], []
    for _ in range(count):
        label = str(chance.choice(list(WORDS)))
        words = [*chance.choice(OTHER, chance.integers(2, 14)), *chance.choice(WORDS[label], 3)]
        chance.shuffle(words)
        found.append(" ".join(words).capitalize() + ".")
        labels.append(label)
    return found, labels


def data(folder: Path) -> Path:
    found, labels = texts()
    given = {"said": found, "where": labels}
    return canonical.table(folder, given, {"said": "text", "where": "category"}, target="where")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    place = tmp_path_factory.mktemp("texts")
    store = ArtifactStore(place / "store")
    digest, _ = import_model(encoder_folder(place / "bert", "bert"), store)
    found = data(place / "data")
    wanted: dict[str, dict[str, Any]] = {
        name: {"recipe": name, "parameters": given, "fit": FIT} for name, given in RECIPES.items()
    }
    wanted["no class"] = wanted["text_embeddings"] | {"target": "said", "inputs": ["where"]}
    folders = [
        jobs.job(place / name, found, spec, encoder=str(store.open(digest)))
        for name, spec in wanted.items()
    ]
    return dict(zip(wanted, zip(jobs.run_together(folders), folders, strict=True), strict=True))


@pytest.mark.parametrize("recipe", ["text_embeddings", "text_lstm", "text_gru", "text_transformer"])
def test_texts_are_told_apart(done: Done, recipe: str) -> None:
    result, folder = done[recipe]
    assert isinstance(result, Result), result
    assert result.kind == "keras_classifier"
    assert (result.metrics["accuracy"] or 0) > 0.9
    assert result.parameters.items() >= RECIPES[recipe].items()
    assert result.parameters["vocabulary"] in (10_000, 20_000)  # what was not said
    export = folder / task.EXPORT
    config = json.loads((export / "config.json").read_text())
    assert config["id2label"] == {"0": "sea", "1": "wood"}
    shown = rows(export)
    assert len(shown) == 24
    assert [len(row["probabilities"]) for row in shown] == [2] * 24
    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    assert all(len(tokenizer.encode(row["text"]).ids) <= 16 for row in shown)
    assert tokenizer.token_to_id("[PAD]") == 0
    assert tokenizer.encode("Boat UNHEARDOF").ids == [tokenizer.token_to_id("boat"), 1]


def test_words_are_those_of_the_training_rows(tmp_path: Path) -> None:
    found = ["alpha beta"] * 60 + ["gamma beta"] * 60
    splits = np.zeros(120, np.uint8)
    splits[::6] = 2
    given = {"text": [text + (" omega" if splits[at] else "") for at, text in enumerate(found)]}
    given["label"] = ["one"] * 60 + ["two"] * 60
    kinds = {"text": "text", "label": "category"}
    dataset = canonical.table(tmp_path / "data", given, kinds, target="label", splits=splits)
    spec = {"recipe": "text_embeddings", "parameters": SMALL, "fit": FIT}
    result = jobs.run(jobs.job(tmp_path / "job", dataset, spec))
    assert result.rows == {"train": 100, "validation": 0, "test": 20}
    assert not any(name.startswith("val_") for name in result.history[0])
    tokenizer = Tokenizer.from_file(str(tmp_path / "job" / task.EXPORT / "tokenizer.json"))
    assert tokenizer.token_to_id("alpha") is not None
    assert tokenizer.token_to_id("omega") is None


@pytest.mark.parametrize("recipe", ["text_embeddings", "text_transformer", "text_encoder"])
def test_what_is_served_answers_the_same(done: Done, recipe: str, tmp_path: Path) -> None:
    result, folder = done[recipe]
    assert isinstance(result, Result), result
    export = folder / task.EXPORT
    shown = rows(export)
    runtime, manifest = stored(result.kind, export, ArtifactStore(tmp_path / "store"))
    assert manifest.labels == ["sea", "wood"]
    (answer,) = runtime.run([Score(inputs=[row["text"] for row in shown])])
    assert isinstance(answer, Scored)
    logits = np.frombuffer(answer.data, "<f4").reshape(len(shown), 2)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    wanted = [row["probabilities"] for row in shown]
    np.testing.assert_allclose(powers / powers.sum(1, keepdims=True), wanted, atol=1e-4)
    runtime.close()


def test_vectors_are_made_once(done: Done) -> None:
    result, folder = done["text_encoder"]
    assert isinstance(result, Result), result
    assert result.kind == "encoder_head"
    (kept,) = (folder / task.PREPARED).glob("vectors-*.npy")
    vectors = np.load(kept, allow_pickle=False)
    assert len(vectors) == 240
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_what_is_different_in_every_row_is_no_class(done: Done) -> None:
    result, _ = done["no class"]
    assert isinstance(result, Failure), result
    assert result.code == "invalid_request"
    assert "240 different values in 240 rows" in result.message


@pytest.mark.parametrize(
    ("recipe", "given", "words"),
    [
        ("text_lstm", {"unit": 3}, "there are: vocabulary, length"),
        ("text_lstm", {"units": 0}, ">= 1"),
        ("text_transformer", {"dimensions": 30, "heads": 4}, "multiple of heads"),
        ("text_encoder", {"dropout": 0.1}, "dropout"),
    ],
)
def test_parameters_are_bounded(recipe: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parameters.parsed(recipe, given)
