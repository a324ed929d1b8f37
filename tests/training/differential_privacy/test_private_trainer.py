"""Private jobs in their process: each recipe, and a run that is paused or killed."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.training import canonical, jobs
from tests.training.networks import dense, dropout, sequential
from tests.training.test_trainer_resumes import left, until

from openmaas.training.differential_privacy import guarantee
from openmaas.training.task import Result

PRIVACY = {"epsilon": 5.0, "delta": 1e-4, "noise": "pseudorandom"}
SPEC = {
    "network": {"config": sequential(20, dense(32, "relu"), dropout(0.3), dense(3, "softmax"))},
    "fit": {
        "optimizer": "adam",
        "epochs": 4,
        "batch_size": 100,
        "seed": 5,
        "callbacks": [{"name": "reduce_lr_on_plateau", "patience": 1}],
    },
    "privacy": PRIVACY | {"delta": 1e-6},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows that an epoch takes some tenths of a second."""
    chance = np.random.default_rng(2)
    x = chance.normal(size=(60_000, 20)).astype(np.float32)
    given = {"pixels": x, "label": x[:, :3].argmax(1)}
    return canonical.arrays(tmp_path_factory.mktemp("rows") / "d", given, target="label")


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = jobs.job(tmp_path_factory.mktemp("whole") / "job", data, SPEC)
    result = jobs.run(folder)
    assert result.metrics["accuracy"] > 0.8  # type: ignore[operator]
    return left(folder) | {"privacy": result.privacy}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["paused", "killed"])
def test_a_run_that_is_taken_up_again_is_the_very_same(
    data: Path, uninterrupted: dict[str, Any], tmp_path: Path, how: str
) -> None:
    """Steps that are made again after a kill count once: their samples and noise are the same."""
    folder = jobs.job(tmp_path / "job", data, SPEC)
    process = jobs.start(folder)
    until(process, "epoch", 2)
    process.send_signal(signal.SIGUSR1 if how == "paused" else signal.SIGKILL)
    jobs.events(process)
    begun = guarantee.read(folder)
    assert begun is not None
    assert 2 * 480 <= begun.steps <= 4 * 480
    result = jobs.run(folder)
    assert left(folder) | {"privacy": result.privacy} == uninterrupted
    done = guarantee.read(folder)
    assert done is not None
    assert result.privacy is not None
    assert done.steps == result.privacy["steps"] == 4 * 480


WORDS = {"good": "fine bright kind great".split(), "bad": "poor dull rude awful".split()}


def texts(folder: Path) -> Path:
    chance = np.random.default_rng(0)
    labels = ["good" if one else "bad" for one in chance.integers(0, 2, 240)]
    rows = [" ".join(chance.choice(WORDS[label], 6)) for label in labels]
    given = {"text": rows, "label": labels}
    return canonical.table(folder, given, {"text": "text", "label": "category"}, target="label")


def pairs(folder: Path) -> Path:
    chance = np.random.default_rng(0)
    rows = [" ".join(chance.choice(WORDS["good"], 3)) for _ in range(240)]
    given = {"en": rows, "de": [" ".join(f"{one}e" for one in row.split()) for row in rows]}
    return canonical.table(folder, given, {"en": "text", "de": "text"}, target="de")


def numbers(folder: Path) -> Path:
    chance = np.random.default_rng(0)
    x = chance.normal(size=240)
    given = {"x": x.tolist(), "side": ["l" if one < 0 else "r" for one in x], "y": x.tolist()}
    kinds = {"x": "number", "side": "category", "y": "number"}
    return canonical.table(folder, given, kinds, target="y")


def images(folder: Path) -> Path:
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 2, 240)
    pixels = chance.integers(0, 90, (240, 8, 8)) + 120 * labels[:, None, None]
    return canonical.arrays(
        folder, {"image": pixels.astype(np.uint8), "label": labels}, target="label"
    )


SMALL = {"dimensions": 8, "units": 8}
TEXT = {"source_language": "en", "target_language": "de", "source_length": 12, "target_length": 8}
RECIPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "text_embeddings": (texts, {"dimensions": 8}),
    "text_lstm": (texts, SMALL),
    "text_gru": (texts, SMALL),
    "text_transformer": (texts, SMALL | {"heads": 2}),
    "seq2seq_rnn": (pairs, SMALL | TEXT | {"vocabulary": 60}),
    "seq2seq_transformer": (pairs, SMALL | TEXT | {"vocabulary": 60, "heads": 2, "layers": 1}),
    "tabular_mlp": (numbers, {"units": 8, "layers": 1}),
    "image_cnn": (images, {"filters": 8, "units": 8}),
}


SOON = ("text_embeddings", "tabular_mlp")


@pytest.mark.parametrize(
    "names",
    [SOON, pytest.param([one for one in RECIPES if one not in SOON], marks=pytest.mark.slow)],
)
def test_every_recipe_trains_privately(tmp_path: Path, names: Sequence[str]) -> None:
    """But for that of an encoder, which needs one: see the journeys."""
    folders = []
    for name in names:
        made, parameters = RECIPES[name]
        spec = {"recipe": name, "parameters": parameters, "privacy": PRIVACY,
                "fit": {"epochs": 2, "batch_size": 64, "callbacks": []}}  # fmt: skip
        folders.append(jobs.job(tmp_path / name, made(tmp_path / f"data-{name}"), spec))
    for name, told in zip(names, jobs.run_together(folders), strict=True):
        assert isinstance(told, Result), (name, told)
        assert told.privacy is not None
        assert told.privacy["steps"] == told.privacy["planned_steps"] == 6, name
        assert told.privacy["epsilon"] <= 5.0, name
        assert told.privacy["not_covered"][0] == guarantee.LOOKED_AT[name][0], name
        assert not {"loss", "accuracy"} & {key for row in told.history for key in row}, name


def test_a_pretrained_encoders_head_looks_at_nothing() -> None:
    assert "text_encoder" not in guarantee.LOOKED_AT
