"""From a source to a stored artifact, for every format, with real small models."""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.placement import sandbox
from openmaas.registry import conversion
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importers import decoder, decoder_ir, decoder_reference, encoder_reference
from openmaas.registry.importers import encoder_weights as encoders
from openmaas.registry.importers.safetensors_file import SafetensorsFolder
from openmaas.registry.importing import import_model
from openmaas.registry.manifest import Port
from tests.registry import golden, small_models

GOLDEN: dict[str, Any] = json.loads(golden.FILE.read_text())


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def left_behind(store: ArtifactStore) -> list[Path]:
    folders = [*(store.root / ".staging").iterdir(), *(store.root / ".downloads").iterdir()]
    return [path for path in folders if path.is_dir()]


# --- ordinary networks -------------------------------------------------------------------


def test_onnx_becomes_a_verified_network(store: ArtifactStore, tmp_path: Path) -> None:
    said: list[str] = []
    digest, manifest = import_model(
        small_models.onnx_file(tmp_path / "m.onnx"),
        store,
        progress=lambda done, total, text: said.append(text),
    )
    assert manifest.inputs == [Port("x", "FP32", [-1, 4])]
    assert manifest.outputs == [Port("y", "FP32", [-1, 3])]
    assert manifest.source == "file:m.onnx"
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1e-6
    assert "comparing it with ONNX's reference evaluator" in said
    assert "confined by " + ", ".join(sandbox.available()) in said
    network = openvino.Core().compile_model(str(store.open(digest) / "openvino_model.xml"), "CPU")
    row = np.array([[1, 2, 3, 4]], dtype=np.float32)
    weights = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    assert np.allclose(network(row)[0], np.tanh(row @ weights), atol=1e-2)
    assert left_behind(store) == []
    again, _ = import_model(tmp_path / "m.onnx", store)
    assert again == digest


def test_openvino_ir_is_stored_anew(store: ArtifactStore, tmp_path: Path) -> None:
    digest, manifest = import_model(small_models.openvino_ir(tmp_path / "ir"), store)
    assert manifest.architecture == "openvino"
    assert manifest.inputs == [Port("x", "FP32", [-1, 4])]
    names = sorted(path.name for path in store.open(digest).iterdir())
    assert names == ["manifest.json", "openvino_model.bin", "openvino_model.xml"]


def external(folder: Path, location: str, **entries: int) -> Path:
    folder.mkdir()
    model = small_models.network()
    tensor = model.graph.initializer[0]
    (folder / "weights.data").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder


def test_onnx_with_weights_beside_it(store: ArtifactStore, tmp_path: Path) -> None:
    folder = external(tmp_path / "m", "weights.data", offset=0, length=48)
    _, manifest = import_model(folder, store)
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1e-6


@pytest.mark.parametrize(
    ("location", "entries"),
    [
        *(("../weights.data", {}), ("/etc/passwd", {}), ("a/../weights.data", {}), ("", {})),
        *((".hidden", {}), ("absent.data", {}), ("weights.data\0x", {})),
        *(("weights.data", {"length": 49}), ("weights.data", {"offset": 1, "length": 48})),
        *(("weights.data", {"offset": -1}), ("weights.data", {"basepath": 1})),
    ],
)
def test_onnx_with_weights_elsewhere_is_refused(
    store: ArtifactStore, tmp_path: Path, location: str, entries: dict[str, int]
) -> None:
    folder = external(tmp_path / "m", location, **entries)
    (tmp_path / "weights.data").write_bytes(bytes(48))
    with pytest.raises(ArtifactRefused, match="weights"):
        import_model(folder, store)
    assert store.digests() == []
    assert left_behind(store) == []


def test_hidden_external_tensors_are_found(store: ArtifactStore, tmp_path: Path) -> None:
    """Not only initializers name files: an attribute inside a branch of an If does, too."""
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/hostname"
    constant = helper.make_node("Constant", [], ["z"], value=tensor)
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])
    branch = helper.make_graph([constant], "branch", [], [out])
    model = small_models.network()
    model.graph.node.append(
        helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactRefused, match="etc/hostname"):
        import_model(tmp_path / "m.onnx", store)


def test_damaged_and_unknown_onnx(store: ArtifactStore, tmp_path: Path) -> None:
    model = small_models.network()
    model.graph.node[1].op_type = "NoSuchOperation"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises((ArtifactRefused, ConversionFailed)):
        import_model(tmp_path / "m.onnx", store)
    content = bytearray(small_models.onnx_file(tmp_path / "n.onnx").read_bytes())
    content[10:14] = b"\xff\xff\xff\xff"
    (tmp_path / "n.onnx").write_bytes(content)
    with pytest.raises((ArtifactRefused, ConversionFailed)):
        import_model(tmp_path / "n.onnx", store)
    graph = small_models.network()
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 40
    (tmp_path / "o.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises((ArtifactRefused, ConversionFailed)):
        import_model(tmp_path / "o.onnx", store)
    assert left_behind(store) == []


def test_a_network_that_computes_otherwise_is_not_stored(
    store: ArtifactStore, tmp_path: Path
) -> None:
    """Nothing is accepted unseen: an operation that gives chance results fails the comparison."""
    model = small_models.network()
    model.graph.node[1].op_type = "Multinomial"
    model.graph.node[1].attribute.append(helper.make_attribute("sample_size", 3))
    del model.graph.node[1].attribute[1:]
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT32
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConversionFailed):
        import_model(tmp_path / "m.onnx", store)


# --- sentence encoders -------------------------------------------------------------------


@pytest.mark.parametrize("family", small_models.ENCODERS)
def test_the_reference_says_what_transformers_says(tmp_path: Path, family: str) -> None:
    encoder = encoders.read(small_models.encoder_folder(tmp_path / "m", family))
    found = encoder_reference.forward(encoder, np.array(golden.IDS), np.array(golden.MASK))
    assert np.abs(found - np.array(GOLDEN[family])).max() < 1e-5


@pytest.mark.parametrize("family", small_models.ENCODERS)
def test_an_encoder_becomes_a_graph(store: ArtifactStore, tmp_path: Path, family: str) -> None:
    digest, manifest = import_model(small_models.encoder_folder(tmp_path / "m", family), store)
    assert (manifest.format, manifest.task) == ("openvino-encoder", "embed")
    assert manifest.dimensions == 24
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 1e-5
    network = openvino.Core().compile_model(
        str(store.open(digest) / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    given = {"input_ids": np.array(golden.IDS), "attention_mask": np.array(golden.MASK)}
    if "token_type_ids" in {port.any_name for port in network.inputs}:
        given["token_type_ids"] = np.zeros_like(given["input_ids"])
    assert np.abs(network(given)[0] - np.array(GOLDEN[family])).max() < 1e-5


def test_settings_of_sentence_transformers(store: ArtifactStore, tmp_path: Path) -> None:
    folder = small_models.encoder_folder(tmp_path / "m", "bert")
    kinds = ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True}))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["truncation"] = {"max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    digest, manifest = import_model(folder, store)
    assert manifest.context_tokens == 20
    assert json.loads((store.open(digest) / "tokenizer.json").read_text())["truncation"] is None
    pooling.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ConversionFailed, match="Pooling"):
        import_model(folder, store)
    modules[1]["path"] = "../../etc"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ArtifactRefused, match="elsewhere"):
        import_model(folder, store)


def change(**settings: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))

    return edit


def lying_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 1 << 40) + content[8:])


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_finite(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", float("nan")))


@pytest.mark.parametrize(
    "harm",
    [
        *(change(hidden_size=48), change(num_attention_heads=5), change(num_hidden_layers=3)),
        *(change(vocab_size=1 << 40), change(num_hidden_layers=-1), change(hidden_size="24")),
        *(change(layer_norm_eps=0), lying_header, cut, not_finite),
    ],
)
def test_damaged_encoders_are_refused(
    store: ArtifactStore, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    folder = small_models.encoder_folder(tmp_path / "m", "bert")
    harm(folder)
    with pytest.raises(ArtifactRefused):
        import_model(folder, store)
    assert store.digests() == []


# --- decoders ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", small_models.DECODERS)
def test_the_decoders_reference_says_what_transformers_says(tmp_path: Path, family: str) -> None:
    folder = small_models.decoder_folder(tmp_path / "m", family)
    config = small_models.decoder_config(family)
    shape = decoder._shape(config)
    weights = decoder.HubWeights(SafetensorsFolder(folder), 2, config["tie_word_embeddings"])
    found = decoder_reference.scores(shape, weights, [golden.TOKENS])[0]
    assert np.abs(np.array(found) - np.array(GOLDEN[family])).max() < 1e-4


@pytest.mark.parametrize("family", small_models.DECODERS)
def test_a_decoder_becomes_ir(store: ArtifactStore, tmp_path: Path, family: str) -> None:
    folder = small_models.decoder_folder(tmp_path / "m", family)
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    digest, manifest = import_model(folder, store)
    assert (manifest.format, manifest.task) == ("openvino-llm", "chat")
    assert manifest.architecture == family
    assert manifest.context_tokens == 256
    assert manifest.eos_token_ids == [258]
    assert manifest.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    assert manifest.generation == {"temperature": 0.6, "top_k": 20}
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < decoder_ir.language_check.TOLERANCE
    names = {path.name for path in store.open(digest).iterdir()}
    assert names == {
        *("manifest.json", "openvino_model.xml", "openvino_model.bin"),
        *("tokenizer.json", "chat_template.jinja"),
    }


def ir_folder(store: ArtifactStore, folder: Path) -> Path:
    """A decoder as optimum-intel exports it: IR beside the settings of its hub folder."""
    small_models.decoder_folder(folder, "llama")
    made = store.open(import_model(folder, store)[0])
    (folder / "model.safetensors").unlink()
    for name in ("openvino_model.xml", "openvino_model.bin"):
        shutil.copy(made / name, folder / name)
    return folder


def test_a_language_models_folder_of_ir_is_kept_as_it_is(
    store: ArtifactStore, tmp_path: Path
) -> None:
    folder = ir_folder(store, tmp_path / "m")
    digest, manifest = import_model(folder, store)
    assert (manifest.format, manifest.task) == ("openvino-llm", "chat")
    assert manifest.eos_token_ids == [258]
    kept = store.open(digest)
    for name in ("openvino_model.xml", "openvino_model.bin"):
        assert (kept / name).read_bytes() == (folder / name).read_bytes()
    assert (kept / "chat_template.jinja").read_text() == "{{ 1 }}"


def test_a_language_models_folder_without_a_tokenizer_is_refused(
    store: ArtifactStore, tmp_path: Path
) -> None:
    folder = ir_folder(store, tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ArtifactRefused, match=r"tokenizer\.json"):
        import_model(folder, store)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (change(rope_scaling={"rope_type": "llama3", "factor": 8.0}), "rotary"),
        (change(hidden_act="gelu"), "SiLU"),
        (change(model_type="mamba"), "family 'mamba'"),
        (change(quantization_config={"bits": 4}), "quantised"),
        (change(num_hidden_layers=1), "not known here"),
    ],
)
def test_decoders_that_are_not_read_say_what_to_do(
    store: ArtifactStore, tmp_path: Path, harm: Callable[[Path], None], why: str
) -> None:
    folder = small_models.decoder_folder(tmp_path / "m", "llama")
    harm(folder)
    with pytest.raises(ConversionFailed, match=why):
        import_model(folder, store)


# --- the process that converts -----------------------------------------------------------


def test_a_conversion_that_takes_too_long_is_ended(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "SECONDS", 0.01)
    with pytest.raises(ConversionFailed, match="longer than"):
        import_model(small_models.onnx_file(tmp_path / "m.onnx"), store)
    assert left_behind(store) == []


def test_a_conversion_that_dies_is_an_error(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(scratch: Path) -> list[str]:
        return ["/bin/sh", "-c", "cat > /dev/null; echo 'out of luck' >&2; kill -SEGV $$"]

    monkeypatch.setattr(conversion, "_command", command)
    with pytest.raises(ConversionFailed, match=r"signal 11.*out of luck"):
        import_model(small_models.onnx_file(tmp_path / "m.onnx"), store)
    assert left_behind(store) == []


def test_what_the_process_says_is_not_believed(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = (
        b"{}",
        b"[" * 100_000,
        b'{"description": {"format": "pickle", "task": "predict", "architecture": "x"}}',
        b'{"error": "no_such_code", "message": "\\u001b[31m"}',
    )
    for answer in answers:
        (tmp_path / "answer").write_bytes(answer)
        script = f"cat > /dev/null; cp {tmp_path}/answer result.json"
        monkeypatch.setattr(conversion, "_command", lambda scratch, s=script: ["/bin/sh", "-c", s])
        with pytest.raises((ConversionFailed, ArtifactRefused)) as caught:
            import_model(small_models.onnx_file(tmp_path / "m.onnx"), store)
        assert caught.value.message.isprintable()


def test_the_process_sees_no_secret(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENMAAS_ADMIN_KEY", "sk-secret")
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    with store.scratch() as scratch:
        environment = conversion._environment(scratch, "torch")
    assert "secret" not in str(environment)
    assert set(environment) == {
        *("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "HOME", "TMPDIR", "LANG", "PATH"),
        *("HF_HUB_OFFLINE", "KERAS_BACKEND"),
    }


def test_two_imports_at_once(store: ArtifactStore, tmp_path: Path) -> None:
    paths = [small_models.onnx_file(tmp_path / f"{at}.onnx") for at in range(2)]
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda path=path: found.append(import_model(path, store)[0]))
        for path in paths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    for digest in found:
        store.open(digest)


def test_a_named_pipe_is_no_model(store: ArtifactStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    from openmaas.errors import SourceUnavailable

    with pytest.raises(SourceUnavailable):
        import_model(tmp_path / "pipe", store)


def test_onnx_is_checked_by_its_own_checker(store: ArtifactStore, tmp_path: Path) -> None:
    model = small_models.network()
    del model.graph.node[0]  # "h" comes from nowhere now
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactRefused, match="invalid"):
        import_model(tmp_path / "m.onnx", store)
    assert onnx.__version__ >= "1.21"
