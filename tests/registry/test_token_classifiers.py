"""Token classifiers become graphs that answer what transformers answers; odd ones are refused."""

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

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importers import encoder_reference, encoder_weights
from openmaas.registry.importing import import_model
from openmaas.registry.recognise import recognise
from tests.registry import golden, small_models

GOLDEN = json.loads(golden.FILE.read_text())
IDS, MASK = np.array(golden.IDS), np.array(golden.MASK)
LABELS = ("O", "B-P", "I-P")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def logits(folder: Path) -> NDArray[np.float32]:
    """[real tokens, labels]"""
    network = openvino.Core().compile_model(
        str(folder / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    given = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": IDS * 0}
    found: NDArray[np.float32] = network(
        {port.any_name: given[port.any_name] for port in network.inputs}
    )[0]
    return found[MASK == 1]


@pytest.mark.parametrize("family", small_models.TAGGERS)
def test_a_token_classifier_says_what_transformers_says(
    store: ArtifactStore, tmp_path: Path, family: str
) -> None:
    folder = small_models.tagger_folder(tmp_path / "m", family, *LABELS)
    assert recognise(folder).kind == "token_classifier"
    digest, manifest = import_model(folder, store)
    assert (manifest.format, manifest.task) == ("openvino-tagger", "tag")
    assert manifest.labels == [*LABELS]
    assert manifest.context_tokens == (38 if family == "roberta" else 40)
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1e-4
    wanted = np.array(GOLDEN[f"{family}-tagger"])[MASK == 1]
    assert np.abs(logits(store.open(digest)) - wanted).max() < 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {"id2label": {"0": "O", "1": "P"}},
        {"id2label": {"0": "O", "1": "O", "2": "P"}},
        {"id2label": None},
        {"id2label": ["O", "B-P", "I-P"]},
        {"hidden_size": 48},
    ],
)
def test_settings_that_do_not_fit_are_refused(
    store: ArtifactStore, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = small_models.tagger_folder(tmp_path / "m", "bert", *LABELS, **settings)
    with pytest.raises(ArtifactRefused):
        import_model(folder, store)
    assert store.digests() == []


# --- a head on a sentence encoder --------------------------------------------------------


def test_a_head_of_tokens_adds_to_the_encoders_weights(
    store: ArtifactStore, tmp_path: Path
) -> None:
    folder = small_models.encoder_folder(tmp_path / "m", "bert")
    own = small_models.token_head(folder, *LABELS)
    assert recognise(folder).kind == "token_classifier"
    encoder = encoder_weights.read(folder)
    digest, manifest = import_model(folder, store)
    assert (manifest.format, manifest.task, manifest.labels) == (
        "openvino-tagger",
        "tag",
        [*LABELS],
    )
    weight, bias = encoder.layers[1]["up"]
    encoder.layers[1]["up"] = (weight + own["adapter.1.up.up"] @ own["adapter.1.up.down"], bias)
    states = encoder_reference.states(encoder, IDS, MASK, IDS * 0)[MASK == 1]
    wanted = states @ own["head.0.weight"].T + own["head.0.bias"]
    assert np.abs(logits(store.open(digest)) - wanted).max() < 1e-3


def settings_of_head(**settings: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        old = json.loads((folder / "head.json").read_text())
        (folder / "head.json").write_text(json.dumps(old | settings))

    return edit


def weights_of_head(**changes: tuple[int, ...] | None) -> Callable[[Path], None]:
    """Tensors, whose names have ``_`` for a point, get other shapes; None takes them away."""

    def edit(folder: Path) -> None:
        weights = small_models.token_head(folder, *LABELS)
        for name, shape in changes.items():
            weights.pop(name.replace("_", "."), None)
            if shape is not None:
                weights[name.replace("_", ".")] = np.zeros(shape, np.float32)
        small_models.write_safetensors(folder / "head.safetensors", weights)

    return edit


@pytest.mark.parametrize(
    "harm",
    [
        settings_of_head(labels=["O", "P"]),
        settings_of_head(labels=None),
        settings_of_head(activation="relu"),
        weights_of_head(head_0_weight=(3, 9)),
        weights_of_head(head_0_bias=None),
        weights_of_head(adapter_1_up_up=None),
        weights_of_head(adapter_1_up_down=None),
        weights_of_head(adapter_1_up_down=(2, 9)),
        weights_of_head(adapter_7_up_down=(2, 24), adapter_7_up_up=(40, 2)),
        weights_of_head(adapter_1_pooler_down=(2, 24), adapter_1_pooler_up=(24, 2)),
        weights_of_head(adapter_1_up_up_more=(40, 2)),
        weights_of_head(adapter_x_up_up=(40, 2)),
        lambda folder: (folder / "head.safetensors").unlink(),
    ],
)
def test_damaged_heads_are_refused(
    store: ArtifactStore, tmp_path: Path, harm: Callable[[Path], Any]
) -> None:
    folder = small_models.encoder_folder(tmp_path / "m", "bert")
    small_models.token_head(folder, *LABELS)
    harm(folder)
    with pytest.raises(ArtifactRefused):
        import_model(folder, store)
    assert store.digests() == []


# --- ONNX --------------------------------------------------------------------------------


def onnx_folder(folder: Path, *, by_token: bool = True, **settings: Any) -> Path:
    """Logits of a token by a row of a table, and nothing at the padding."""
    folder.mkdir()
    table = np.random.default_rng(3).standard_normal((16, 3)).astype(np.float32)
    last = helper.make_node("Mul", ["rows", "weights"], ["logits"])
    if not by_token:
        last = helper.make_node("ReduceMax", ["rows"], ["logits"], axes=[1], keepdims=0)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["there"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["there", "last"], ["weights"]),
        last,
    ]
    shape: list[str | int] = ["batch", "tokens", 3] if by_token else ["batch", 3]
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([2]), "last")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(folder / "model.onnx"))
    config = small_models.encoder_config("bert") | {
        "architectures": ["BertForTokenClassification"],
        "id2label": {str(at): label for at, label in enumerate(LABELS)},
    }
    (folder / "config.json").write_text(json.dumps(config | settings))
    tokenizer = small_models.word_tokenizer(small_models.WORDS)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_an_onnx_token_classifier_with_its_tokenizer(store: ArtifactStore, tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path / "m")
    assert recognise(folder).kind == "onnx_token_classifier"
    digest, manifest = import_model(folder, store)
    assert (manifest.format, manifest.task, manifest.labels) == (
        "openvino-tagger",
        "tag",
        [*LABELS],
    )
    assert manifest.context_tokens == 40
    table = np.random.default_rng(3).standard_normal((16, 3)).astype(np.float32)
    assert np.abs(logits(store.open(digest)) - table[IDS[MASK == 1]]).max() < 1e-5


def test_onnx_that_answers_a_text_is_no_token_classifier(
    store: ArtifactStore, tmp_path: Path
) -> None:
    with pytest.raises(ConversionFailed, match="logits a token"):
        import_model(onnx_folder(tmp_path / "m", by_token=False), store)


def test_onnx_with_other_labels_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match="3 logits"):
        import_model(onnx_folder(tmp_path / "m", id2label={"0": "O"}), store)
