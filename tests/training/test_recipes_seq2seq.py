"""Texts to texts on little data: trained, exported, served; the score that they are judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sacrebleu
from tests.registry.exports import rows, stored
from tests.training import canonical, jobs

from openmaas.inference import Translate, Translated
from openmaas.registry.artifacts import ArtifactStore
from openmaas.training import pieces, task
from openmaas.training.chrf import chrf

GERMAN = ("rot", "blau", "Haus", "Hund", "Baum", "alt", "neu", "Weg")
ENGLISH = ("red", "blue", "house", "dog", "tree", "old", "new", "way")
SMALL = {"vocabulary": 120, "source_length": 12, "target_length": 8, "dimensions": 32, "units": 32}
GERMAN_TO_ENGLISH = {"task": "translate", "source_language": "de", "target_language": "en"}


def dataset(folder: Path, count: int = 320) -> Path:
    """Word for word."""
    random = np.random.default_rng(4)
    drawn = [random.integers(0, 8, random.integers(1, 5)) for _ in range(count)]
    given = {
        "de": [" ".join(GERMAN[at] for at in words) for words in drawn],
        "en": [" ".join(ENGLISH[at] for at in words) for words in drawn],
    }
    return canonical.table(folder, given, {"de": "text", "en": "text"}, target="en")


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        ("seq2seq_rnn", {"cell": "lstm", "attention": "bahdanau", "layers": 2} | GERMAN_TO_ENGLISH),
        pytest.param(
            *("seq2seq_transformer", {"layers": 1, "heads": 2, "task": "summarize"}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_served_is_what_was_learnt(
    tmp_path: Path, recipe: str, parameters: dict[str, Any]
) -> None:
    spec = {
        "recipe": recipe,
        "parameters": SMALL | {"dropout": 0.0} | parameters,
        "fit": {"epochs": 14, "batch_size": 16, "optimizer": {"learning_rate": 0.01}},
    }
    made = jobs.job(tmp_path / "job", dataset(tmp_path / "data"), spec)
    result = jobs.run(made)
    assert result.kind == "keras_seq2seq"
    assert ("chrf_of_copying" in result.metrics) == (parameters["task"] == "translate")
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 2
    export = made / task.EXPORT
    runtime, manifest = stored("keras_seq2seq", export, ArtifactStore(tmp_path / "store"))
    assert (manifest.task, manifest.architecture) == (parameters["task"], recipe)
    known = rows(export)
    assert len({row["output"] for row in known}) > 1
    (told,) = runtime.run([Translate(inputs=[row["text"] for row in known])])
    assert isinstance(told, Translated)
    assert told.outputs == [row["output"] for row in known]
    runtime.close()


@pytest.mark.parametrize(
    ("fit", "why"),
    [
        ({"class_weight": "balanced"}, "class_weight is for classes"),
        ({"loss": "mse"}, "the recipe's loss is"),
        ({"metrics": ["auc"]}, "the recipe's metric is"),
    ],
)
def test_fits_of_classes_are_refused(tmp_path: Path, fit: dict[str, Any], why: str) -> None:
    spec = {"recipe": "seq2seq_rnn", "parameters": SMALL | GERMAN_TO_ENGLISH, "fit": fit}
    process = jobs.start(jobs.job(tmp_path / "job", dataset(tmp_path / "data", 40), spec))
    jobs.events(process)
    assert process.returncode == task.FAILED
    error = msgspec.json.decode((tmp_path / "job" / task.ERROR).read_bytes(), type=task.Failure)
    assert why in error.message


def test_pieces_end_and_are_padded() -> None:
    texts = ["ein alter Hund", "ein neues Haus, ein Baum"] * 4
    tokenizer = pieces.trained(texts, 60, ends=True)
    ids = pieces.encoded(tokenizer, [texts[0], texts[1] * 9], 12)
    whole = tokenizer.encode(texts[0]).ids
    assert ids[0].tolist() == (whole + [pieces.PADDING] * 12)[:12]
    assert whole[-1] == ids[1][-1] == pieces.END  # a source that is cut ends none the less
    assert pieces.encoded(tokenizer, [texts[1] * 9], 12, cut_end=True)[0][-1] != pieces.END
    assert tokenizer.decode(tokenizer.encode(texts[1]).ids, skip_special_tokens=True) == texts[1]


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (["a red house", "the old dog"], ["a red horse", "an old dog"]),
        (["", "x"], ["something", "xylophone library"]),
        (["ab"], ["abc def ghi"]),
        (["long answers to short texts", "a"], ["long", "b"]),
        (["the same"], ["the same"]),
    ],
)
def test_chrf_is_sacrebleu_s(told: list[str], wanted: list[str]) -> None:
    assert chrf(told, wanted) == pytest.approx(sacrebleu.corpus_chrf(told, [wanted]).score)
