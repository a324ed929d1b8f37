"""Networks over tables, and encoders with decoders, that were trained on JAX."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openmaas.columns import decode
from openmaas.errors import ArtifactRefused, ConversionFailed, InvalidRequest
from openmaas.inference import Predict, Tokenize, Tokenized, Translate, Translated
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importing import import_trained
from tests.registry import exports
from tests.registry.exports import predicted, stored, tensor

TOLERANCE = 1e-4
NAMES = ("age", "town", "sun hours")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exports.made(tmp_path_factory.mktemp("trained"), "tabular", "rnn", "transformer")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


# --- tables ----------------------------------------------------------------------------------


def asked(*rows: dict[str, Any], outputs: tuple[str, ...] = ()) -> Predict:
    """Rows as the API brings them: NaN and the empty text are missing."""
    ages, towns, suns = ([row[name] for row in rows] for name in NAMES)
    return Predict(
        inputs=[
            tensor("town", [town or "" for town in towns]),
            tensor("age", [float(age) for age in ages]),
            tensor("sun hours", [np.nan if sun is None else float(sun) for sun in suns]),
        ],
        outputs=list(outputs),
    )


@pytest.mark.parametrize(
    ("name", "labels"),
    [("tabular", ["a", "b", "c"]), ("tabular_binary", ["no", "yes"]), ("tabular_number", [])],
)
def test_tables(trained: Path, store: ArtifactStore, name: str, labels: list[str]) -> None:
    runtime, manifest = stored("keras_tabular", trained / name, store)
    assert (manifest.format, manifest.labels) == ("openvino-tabular", labels)
    specs = [(port.name, port.datatype, port.shape) for port in manifest.inputs]
    assert specs == [
        ("age", "FP32", [-1, 1]), ("town", "BYTES", [-1, 1]), ("sun hours", "FP32", [-1, 1])
    ]  # fmt: skip
    assert [(one.name, one.datatype, one.shape) for one in runtime.info.inputs] == specs
    rows = exports.rows(trained / name)
    wanted = np.array([row["outputs"] for row in rows])
    if name == "tabular_binary":
        wanted = np.concatenate([1 - wanted, wanted], axis=1)
    requests = [asked(row["row"]) for row in rows[:3]] + [asked(*(r["row"] for r in rows[3:]))]
    answers = predicted(runtime, *requests)
    key = "probabilities" if labels else "outputs"
    found = np.concatenate([answer[key] for answer in answers])
    assert np.abs(found - wanted).max() < TOLERANCE
    if labels:
        said = [label for answer in answers for label in answer["label"]]
        assert said == [labels[at] for at in wanted.argmax(1)]
        (only,) = predicted(runtime, asked(rows[0]["row"], outputs=("label",)))
        assert only == {"label": said[:1]}
    runtime.close()


def test_rows_that_no_table_takes(trained: Path, store: ArtifactStore) -> None:
    runtime, _ = stored("keras_tabular", trained / "tabular", store)
    good = asked({"age": 30, "town": "Rome", "sun hours": 3})
    town, age, sun = good.inputs
    for inputs, why in (
        ([town, age], "columns missing: sun hours; unknown: none"),
        ([town, age, sun, tensor("x", [1.0])], "unknown: x"),
        ([town, age, age, sun], "twice"),
        ([tensor("town", [1.0]), age, sun], "'town' takes BYTES, got FP32"),
        ([town, tensor("age", ["old"]), sun], "'age' takes FP32, got BYTES"),
        ([town, tensor("age", [1.0, 2.0]), sun], r"'age' takes the shape \[1, 1\]"),
        ([town, tensor("age", [np.nan]), sun], "'age', row 0: a number is missing"),
        ([town, tensor("age", [np.inf]), sun], "no finite number"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            runtime.size(Predict(inputs=inputs))
    with pytest.raises(InvalidRequest, match="no output 'x'; there are: probabilities, label"):
        runtime.size(Predict(inputs=good.inputs, outputs=["x"]))
    runtime.close()


@pytest.mark.parametrize(
    "columns",
    [
        [],
        [{"name": "a", "kind": "number"}] * 2,
        [{"name": "a", "kind": "number", "values": ["x"]}],
        [{"name": "a", "kind": "category", "missing": 1}],
        [{"name": "a", "kind": "category", "values": ["x", "x"]}],
        [{"name": "a", "kind": "category", "values": [""]}],
        [{"name": "a", "kind": "date"}],
        [{"name": "a", "kind": "number", "more": 1}],
        [{"name": "a", "kind": "number"}, {"name": "b", "kind": "number", "input": "a"}],
    ],
)
def test_columns_that_make_no_sense(columns: Any) -> None:
    with pytest.raises(ArtifactRefused):
        decode(json.dumps(columns).encode())


# --- texts to texts --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "task"), [("rnn", "translate"), ("transformer", "summarize")])
def test_greedy_answers_are_the_trained_network_s(
    trained: Path, store: ArtifactStore, name: str, task: str
) -> None:
    said: list[str] = []
    runtime, manifest = stored("keras_seq2seq", trained / name, store, said)
    assert not any("torch" in text for text in said)
    assert (manifest.format, manifest.task) == ("openvino-seq2seq", task)
    assert runtime.info.source_languages == (["de"] if name == "rnn" else [])
    rows = exports.rows(trained / name)
    texts = [row["text"] for row in rows]
    wanted = [row["output"] for row in rows]
    assert len(set(wanted)) > 2
    requests = [Translate(inputs=texts), *(Translate(inputs=[text]) for text in texts)]
    assert runtime.size(requests[0]) == sum(1 + len(text.split()) for text in texts)
    together, *alone = runtime.run([*requests, Tokenize(inputs=["w1 w2"])])
    assert isinstance(together, Translated)
    assert together.outputs == wanted
    assert [answer.outputs for answer in alone[:-1]] == [[text] for text in wanted]
    assert np.allclose(together.logprobs, [answer.logprobs[0] for answer in alone[:-1]], atol=1e-4)
    assert all(logprob < 0 for logprob in together.logprobs)
    assert isinstance(alone[-1], Tokenized)
    assert alone[-1].outputs == [[(5, b"w1"), (6, b"w2")]]
    with pytest.raises(InvalidRequest, match="has 9 tokens, the limit is 8"):
        runtime.size(Translate(inputs=["w1 " * 8]))
    with pytest.raises(InvalidRequest, match="no target language 'pt'"):
        runtime.size(Translate(inputs=["w1"], target="pt"))
    runtime.close()


def setting(**settings: Any) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))

    return edit


@pytest.mark.parametrize(
    ("name", "harm", "why"),
    [
        ("rnn", setting(source_length=9), "lengths of 9 and 10 tokens"),
        ("transformer", setting(target_length=11), "lengths of 8 and 11 tokens"),
        ("rnn", setting(state=["state_0"]), "other states"),
        ("rnn", setting(target_language=""), "source and a target language"),
        ("rnn", setting(padding_id=1), "damaged"),
        ("rnn", setting(more=1), "damaged"),
        ("rnn", lambda folder: (folder / "target.json").unlink(), "no target.json"),
        ("rnn", lambda folder: (folder / "rows.json").write_text("[]"), "no rows"),
        (
            "transformer",
            lambda folder: shutil.copy(folder / "encoder.keras", folder / "decoder.keras"),
            "The decoder takes source, not",
        ),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    trained: Path,
    store: ArtifactStore,
    tmp_path: Path,
    name: str,
    harm: Callable[[Path], Any],
    why: str,
) -> None:
    folder = Path(shutil.copytree(trained / name, tmp_path / "export"))
    harm(folder)
    with pytest.raises(ArtifactRefused, match=why):
        import_trained("keras_seq2seq", folder, store, source="job:x")
    assert store.digests() == []


def test_other_words_than_were_trained_are_refused(
    trained: Path, store: ArtifactStore, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained / "rnn", tmp_path / "export"))
    rows = exports.rows(folder)
    rows[1]["output"] += " w1"
    (folder / "rows.json").write_text(json.dumps(rows))
    with pytest.raises(ConversionFailed, match="Text 1 becomes"):
        import_trained("keras_seq2seq", folder, store, source="job:x")
    assert store.digests() == []
