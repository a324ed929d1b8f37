"""Classifiers become graphs that answer what transformers answers; odd ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from openmaas.errors import ArtifactRefused, ConversionFailed, SourceUnavailable
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.catalog import Catalog
from openmaas.registry.importing import import_entry, import_model
from openmaas.registry.recognise import recognise
from openmaas.registry.sources import digest_of_folder
from tests.registry import golden, small_models

GOLDEN = json.loads(golden.FILE.read_text())
IDS, MASK, TYPES = (np.array(rows) for rows in (golden.IDS, golden.MASK, golden.TYPES))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def logits(folder: Path, types: Any = 0) -> NDArray[np.float32]:
    network = openvino.Core().compile_model(
        str(folder / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    given = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": IDS * 0 + types}
    found: NDArray[np.float32] = network(
        {port.any_name: given[port.any_name] for port in network.inputs}
    )[0]
    return found


# --- as transformers saves them ----------------------------------------------------------


@pytest.mark.parametrize("family", small_models.CLASSIFIERS)
def test_a_classifier_says_what_transformers_says(
    store: ArtifactStore, tmp_path: Path, family: str
) -> None:
    folder = small_models.classifier_folder(tmp_path / "m", family, "a", "b", "c")
    assert recognise(folder).kind == "text_classifier"
    digest, manifest = import_model(folder, store)
    assert (manifest.format, manifest.task) == ("openvino-classifier", "classify")
    assert (manifest.labels, manifest.multi_label, manifest.pairs) == (
        ["a", "b", "c"],
        False,
        False,
    )
    assert manifest.context_tokens == (38 if family == "roberta" else 40)
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1e-4
    found = logits(store.open(digest))
    assert np.abs(found - np.array(GOLDEN[f"{family}-classifier"])).max() < 1e-4


@pytest.mark.parametrize("family", small_models.CLASSIFIERS)
def test_one_label_makes_a_reader_of_pairs(
    store: ArtifactStore, tmp_path: Path, family: str
) -> None:
    folder = small_models.classifier_folder(tmp_path / "m", family, "LABEL_0")
    digest, manifest = import_model(folder, store)
    assert (manifest.labels, manifest.pairs) == (["LABEL_0"], True)
    assert manifest.verification is not None
    assert "pairs" in manifest.verification.compared
    found = logits(store.open(digest), TYPES)
    assert np.abs(found - np.array(GOLDEN[f"{family}-cross-encoder"])).max() < 1e-4


@pytest.mark.parametrize(
    ("labels", "settings", "multi", "pairs"),
    [
        (("x", "y"), {"problem_type": "multi_label_classification"}, True, False),
        (("x", "y"), {"problem_type": "single_label_classification"}, False, False),
        (("CONTRADICTION", "neutral", "Entailment"), {}, False, True),
        (("score",), {"problem_type": "regression"}, False, True),
    ],
)
def test_what_the_logits_stand_for(
    store: ArtifactStore,
    tmp_path: Path,
    labels: tuple[str, ...],
    settings: dict[str, Any],
    multi: bool,
    pairs: bool,
) -> None:
    folder = small_models.classifier_folder(tmp_path / "m", "bert", *labels, **settings)
    _, manifest = import_model(folder, store)
    assert (manifest.labels, manifest.multi_label, manifest.pairs) == (list(labels), multi, pairs)


def test_labels_without_names_are_numbered(store: ArtifactStore, tmp_path: Path) -> None:
    folder = small_models.classifier_folder(tmp_path / "m", "bert", "a", "b", id2label=None)
    assert import_model(folder, store)[1].labels == ["LABEL_0", "LABEL_1"]


@pytest.mark.parametrize(
    "settings",
    [
        {"id2label": {"0": "a"}},
        {"id2label": {"0": "a", "1": "a"}},
        {"id2label": {"0": "a", "1": ""}},
        {"id2label": {"0": "a", "1": 7}},
        {"id2label": {"0": "a", "1": "b" * 201}},
        {"id2label": ["a", "b"]},
        {"hidden_size": 48},
    ],
)
def test_settings_that_do_not_fit_are_refused(
    store: ArtifactStore, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = small_models.classifier_folder(tmp_path / "m", "bert", "a", "b", **settings)
    with pytest.raises(ArtifactRefused):
        import_model(folder, store)
    assert store.digests() == []


def test_regression_on_several_numbers_is_no_classifier(
    store: ArtifactStore, tmp_path: Path
) -> None:
    folder = small_models.classifier_folder(
        tmp_path / "m", "bert", "a", "b", problem_type="regression"
    )
    with pytest.raises(ConversionFailed, match="regression"):
        import_model(folder, store)


def test_a_head_that_is_missing_is_told(store: ArtifactStore, tmp_path: Path) -> None:
    folder = small_models.classifier_folder(tmp_path / "m", "bert", "a", "b")
    weights = small_models.encoder_weights("bert")
    small_models.write_safetensors(folder / "model.safetensors", weights)
    with pytest.raises(ArtifactRefused, match=r"classifier\.weight"):
        import_model(folder, store)


# --- a head on a sentence encoder --------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_head_reads_the_unit_vector(
    store: ArtifactStore, tmp_path: Path, activation: str
) -> None:
    folder = small_models.encoder_folder(tmp_path / "m", "bert")
    own = small_models.head(folder, "x", "y", "z", activation=activation, multi_label=True)
    digest, manifest = import_model(folder, store)
    assert (manifest.format, manifest.task) == ("openvino-classifier", "classify")
    assert (manifest.labels, manifest.multi_label) == (["x", "y", "z"], True)
    inner = np.array(GOLDEN["bert"]) @ own["head.0.weight"].T + own["head.0.bias"]
    inner = np.tanh(inner) if activation == "tanh" else np.maximum(inner, 0)
    wanted = inner @ own["head.1.weight"].T + own["head.1.bias"]
    assert np.abs(logits(store.open(digest)) - wanted).max() < 1e-4


def settings_of_head(**settings: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        old = json.loads((folder / "head.json").read_text())
        (folder / "head.json").write_text(json.dumps(old | settings))

    return edit


def other_width(folder: Path) -> None:
    weights = {
        "head.0.weight": np.zeros((2, 9), np.float32),
        "head.0.bias": np.zeros(2, np.float32),
    }
    small_models.write_safetensors(folder / "head.safetensors", weights)


@pytest.mark.parametrize(
    "harm",
    [
        *(settings_of_head(labels=["x"]), settings_of_head(labels=["x", "y", "z"])),
        *(settings_of_head(labels=None), settings_of_head(activation="exec")),
        *(settings_of_head(multi_label="no"), settings_of_head(pooling="cls"), other_width),
        lambda folder: (folder / "head.safetensors").unlink(),
        lambda folder: (folder / "head.json").write_text("[]"),
    ],
)
def test_damaged_heads_are_refused(
    store: ArtifactStore, tmp_path: Path, harm: Callable[[Path], Any]
) -> None:
    folder = small_models.encoder_folder(tmp_path / "m", "bert")
    small_models.head(folder, "x", "y")
    harm(folder)
    with pytest.raises(ArtifactRefused):
        import_model(folder, store)
    assert store.digests() == []


def catalog(folder: Path, **changes: Any) -> Catalog:
    """A catalog of one classifier: a sentence encoder, and a head beside the catalog."""
    encoder = small_models.encoder_folder(folder / "encoder", "bert")
    (folder / "heads").mkdir()
    small_models.head(folder / "heads", "x", "y")
    size, sha256 = digest_of_folder(encoder)
    entry: dict[str, Any] = {
        "name": "small",
        "task": "classify",
        "source": "file:encoder",
        "sha256": sha256,
        "size": size,
        "licence": "MIT",
        "description": "small",
        "head": "heads",
        "head_sha256": digest_of_folder(folder / "heads")[1],
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in (entry | changes).items()]
    (folder / "catalog.toml").write_text("\n".join(["[[model]]", *lines]))
    return Catalog.read(folder / "catalog.toml")


def test_a_catalog_lays_a_head_on_an_encoder(store: ArtifactStore, tmp_path: Path) -> None:
    small = catalog(tmp_path)
    digest, manifest = import_entry(small.entry("small"), small, store)
    assert manifest.labels == ["x", "y"]
    assert manifest.source == "file:encoder + file:heads"
    assert manifest.source_sha256 not in (
        small.entry("small").sha256,
        small.entry("small").head_sha256,
    )
    assert logits(store.open(digest)).shape == (2, 2)


def test_a_head_of_other_bytes_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    small = catalog(tmp_path, head_sha256="0" * 64)
    with pytest.raises(SourceUnavailable, match="head of small"):
        import_entry(small.entry("small"), small, store)
    assert store.digests() == []


# --- ONNX --------------------------------------------------------------------------------


def onnx_folder(folder: Path, labels: int = 3, **settings: Any) -> Path:
    """Logits by the mean of rows of a table, one a token."""
    folder.mkdir()
    table = np.random.default_rng(3).standard_normal((16, labels)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["there"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["there", "last"], ["weights"]),
        helper.make_node("Mul", ["rows", "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["weights", "tokens"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "tokens"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(folder / "model.onnx"))
    config = small_models.encoder_config("bert") | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {str(at): f"label {at}" for at in range(labels)},
    }
    (folder / "config.json").write_text(json.dumps(config | settings))
    tokenizer = small_models.word_tokenizer(small_models.WORDS)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_an_onnx_classifier_with_its_tokenizer(store: ArtifactStore, tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path / "m")
    assert recognise(folder).kind == "onnx_classifier"
    digest, manifest = import_model(folder, store)
    assert (manifest.format, manifest.task) == ("openvino-classifier", "classify")
    assert manifest.labels == ["label 0", "label 1", "label 2"]
    assert manifest.context_tokens == 40
    table = np.random.default_rng(3).standard_normal((16, 3)).astype(np.float32)
    wanted = (table[IDS] * MASK[..., None]).sum(1) / MASK.sum(1, keepdims=True)
    assert np.abs(logits(store.open(digest)) - wanted).max() < 1e-5


@pytest.mark.parametrize(
    "settings", [{"id2label": {"0": "a", "1": "b"}}, {"max_position_embeddings": None}]
)
def test_onnx_classifiers_whose_settings_do_not_fit(
    store: ArtifactStore, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(ArtifactRefused):
        import_model(onnx_folder(tmp_path / "m", **settings), store)


def test_onnx_without_a_tokenizer_is_an_ordinary_network(tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    assert recognise(folder).kind == "onnx"
