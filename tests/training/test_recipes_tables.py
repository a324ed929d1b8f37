"""The recipes of tables and images on little data: trained, exported, served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.registry.exports import predicted, rows, stored, tensor
from tests.training import canonical, jobs

from openmaas.errors import InvalidRequest
from openmaas.inference import Predict
from openmaas.registry.artifacts import ArtifactStore
from openmaas.training import parameters, task

TOWNS = ("Rome", "Oslo", "Lima", None)
FAST = {"epochs": 4, "batch_size": 16, "optimizer": {"learning_rate": 0.01}}


def people(count: int = 200) -> dict[str, list[Any]]:
    """Rows with gaps: who is warm depends on age and town."""
    random = np.random.default_rng(5)
    ages = random.integers(1, 90, count).tolist()
    towns = [TOWNS[at] for at in random.integers(0, 4, count)]
    heights = [None if at % 9 == 0 else 1.5 + at % 7 / 10 for at in range(count)]
    warm = [
        "yes" if age > 40 and town != "Oslo" else "no"
        for age, town in zip(ages, towns, strict=True)
    ]
    incomes = [1e6 + 1e4 * age for age in ages]
    return {"age": ages, "town": towns, "height": heights, "warm": warm, "income": incomes}


KINDS = {"age": "number", "town": "category", "height": "number"}


def table(folder: Path, target: str, kind: str) -> Path:
    given = {name: values for name, values in people().items() if name in (*KINDS, target)}
    return canonical.table(folder, given, KINDS | {target: kind}, target=target)


def asked(*given: dict[str, Any]) -> Predict:
    gaps = [np.nan if row["height"] is None else row["height"] for row in given]
    return Predict(
        inputs=[
            tensor("age", [float(row["age"]) for row in given]),
            tensor("town", [row["town"] or "" for row in given]),
            tensor("height", gaps),
        ]
    )


def trained(folder: Path, dataset: Path, **spec: Any) -> tuple[task.Result, Path]:
    made = jobs.job(folder, dataset, {"fit": FAST} | spec)
    return jobs.run(made), made / task.EXPORT


def test_classes_of_rows_with_gaps(tmp_path: Path) -> None:
    dataset = table(tmp_path / "data", "warm", "category")
    fit = FAST | {"epochs": 30, "class_weight": "balanced"}
    result, export = trained(tmp_path / "job", dataset, recipe="tabular_mlp", fit=fit)
    assert (result.kind, result.parameters["units"]) == ("keras_tabular", 64)
    assert result.metrics["accuracy"] > 0.85
    runtime, manifest = stored("keras_tabular", export, ArtifactStore(tmp_path / "store"))
    assert manifest.labels == ["no", "yes"]
    given = rows(export)
    assert None in [row["row"]["height"] for row in given]
    (answer,) = predicted(runtime, asked(*(row["row"] for row in given)))
    wanted = np.array([row["outputs"] for row in given])
    assert np.abs(answer["probabilities"] - wanted).max() < 1e-4
    elsewhere = {"age": 70, "town": "Paris", "height": None}  # a town that was not there
    assert predicted(runtime, asked(elsewhere))[0]["label"] in (["yes"], ["no"])
    runtime.close()


def test_numbers_of_their_own_size(tmp_path: Path) -> None:
    dataset = table(tmp_path / "data", "income", "number")
    fit = FAST | {"epochs": 30}
    result, export = trained(tmp_path / "job", dataset, recipe="tabular_mlp", fit=fit)
    assert result.metrics["r2"] > 0.9
    runtime, manifest = stored("keras_tabular", export, ArtifactStore(tmp_path / "store"))
    assert manifest.labels == []
    (answer,) = predicted(runtime, asked({"age": 50, "town": "Rome", "height": 1.8}))
    assert abs(float(answer["outputs"][0, 0]) - 1.5e6) < 1e5
    runtime.close()


def test_images_by_their_raw_pixels(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, 160)
    images = random.integers(0, 90, (160, 8, 10, 3)).astype(np.uint8)
    images[labels == 1, 2:6, 2:6] += 120
    given = {"image": images, "label": labels.astype(np.int64)}
    dataset = canonical.arrays(tmp_path / "data", given, target="label", classes=["cat", "dog"])
    small = {"filters": 4, "units": 8, "blocks": 1}
    result, export = trained(
        tmp_path / "job", dataset, recipe="image_cnn", parameters=small, fit=FAST | {"epochs": 8}
    )
    assert result.metrics["accuracy"] > 0.9
    runtime, manifest = stored("keras", export, ArtifactStore(tmp_path / "store"))
    assert manifest.labels == ["cat", "dog"]
    assert manifest.inputs[0].shape == [-1, 8, 10, 3]
    (answer,) = predicted(runtime, Predict(inputs=[tensor("image", images[:9].astype(float))]))
    assert (answer["probabilities"].argmax(1) == labels[:9]).all()
    runtime.close()


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"recipe": "image_cnn"}, "the data set is a table"),
        ({"recipe": "tabular_mlp", "inputs": ["age", "note"]}, "column note is text"),
        ({"recipe": "tabular_mlp", "parameters": {"task": "regression"}}, "warm is no number"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, spec: dict[str, Any], why: str) -> None:
    given = people(40) | {"note": [f"a note {at}" for at in range(40)]}
    kinds = KINDS | {"warm": "category", "income": "number", "note": "text"}
    dataset = canonical.table(tmp_path / "data", given, kinds, target="warm")
    process = jobs.start(jobs.job(tmp_path / "job", dataset, spec))
    jobs.events(process)
    assert process.returncode == task.FAILED
    assert why in (tmp_path / "job" / task.ERROR).read_text()


@pytest.mark.parametrize(
    ("recipe", "given", "why"),
    [
        ("tabular_mlp", {"units": 0}, "units"),
        ("tabular_mlp", {"depth": 3}, "depth"),
        ("image_cnn", {"blocks": 7}, "blocks"),
        ("image_cnn", {"dropout": 1}, "dropout"),
        ("seq2seq_rnn", {"cell": "lambda"}, "cell"),
        ("seq2seq_rnn", {"target_language": "en"}, "source_language"),
        ("seq2seq_rnn", {"source_language": "../de", "target_language": "en"}, "source_language"),
        ("seq2seq_transformer", {"dimensions": 30, "task": "summarize"}, "multiple of heads"),
    ],
)
def test_parameters_are_bounded(recipe: Any, given: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        parameters.parsed(recipe, given)
