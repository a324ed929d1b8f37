"""GGUF: what OpenVINO GenAI reads rightly becomes IR, the rest is kept for llama.cpp."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importers import bpe_tokenizer, decoder, gguf_writer
from openmaas.registry.importers.safetensors_file import SafetensorsFolder
from openmaas.registry.importing import import_model
from tests.registry import small_models


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def gguf(folder: Path, **changes: Any) -> Path:
    """The small Llama as a GGUF with a byte-level tokenizer; ``changes`` add to its metadata,
    with None taking away and ``architecture`` renaming."""
    hub = small_models.decoder_folder(folder / "hub", "llama")
    config = small_models.decoder_config("llama")
    shape = decoder._shape(config)
    weights = decoder.HubWeights(SafetensorsFolder(hub), 2, True)
    tokenizer = json.loads((hub / "tokenizer.json").read_text())
    metadata = decoder._metadata(config, shape, weights) | decoder._vocabulary(tokenizer, weights)
    metadata |= {
        "general.file_type": 7,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 257,
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }
    architecture = changes.pop("architecture", "llama")
    metadata = {
        key.replace("llama.", f"{architecture}.") if key.startswith("llama.") else key: value
        for key, value in (metadata | changes).items()
        if value is not None
    } | {"general.architecture": architecture}
    gguf_writer.write(folder / "m.gguf", metadata, decoder.Permuted(weights, shape))
    return folder / "m.gguf"


def test_a_llama_becomes_ir(store: ArtifactStore, tmp_path: Path) -> None:
    digest, manifest = import_model(gguf(tmp_path), store)
    assert manifest.format == "openvino-llm"
    assert manifest.special_tokens["eos_token"] == "</s>"
    assert manifest.eos_token_ids == [258]
    assert manifest.add_bos_token
    assert manifest.context_tokens == 256
    assert manifest.verification is not None
    # Its matrices are in 8 bits already, and packing them anew changes nothing.
    assert manifest.verification.max_abs_error < 0.02
    folder = store.open(digest)
    assert (folder / "chat_template.jinja").read_text() == "{{ messages[0].content }}"
    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert reader.encode("the</s>").tokens == ["th", "e", "</s>"]


def test_matrices_that_read_the_same_are_one(store: ArtifactStore, tmp_path: Path) -> None:
    digest, _ = import_model(gguf(tmp_path), store)
    nodes = ov.Core().read_model(store.open(digest) / "openvino_model.xml").get_ops()
    kinds = Counter(node.get_type_name() for node in nodes)
    layers = small_models.decoder_config("llama")["num_hidden_layers"]
    assert kinds["VariadicSplit"] == 2 * layers  # query, key, value; gate and up
    stored = [n for n in nodes if n.get_type_name() == "Constant" and len(n.shape) == 3]
    kept = {n.get_element_type().get_type_name() for n in stored if n.shape[-1] == 32}
    assert kept == {"i8"}


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "gemma3"},
        {"tokenizer.ggml.pre": "never-heard-of"},
        {"llama.rope.scaling.type": "yarn"},
    ],
)
def test_what_genai_would_get_wrong_is_kept_for_llama_cpp(
    store: ArtifactStore, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = gguf(tmp_path, **changes)
    said: list[str] = []
    digest, manifest = import_model(
        path, store, progress=lambda done, total, text: said.append(text)
    )
    assert manifest.format == "gguf"
    assert manifest.verification is None
    assert (store.open(digest) / "model.gguf").read_bytes() == path.read_bytes()
    assert any(text.startswith("keeping the GGUF as it is") for text in said)


def test_a_damaged_gguf_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    path = gguf(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactRefused, match="beyond the file's end"):
        import_model(path, store)
    path.write_bytes(whole[:8] + b"\xff" * 8 + whole[16:])
    with pytest.raises(ArtifactRefused, match="damaged"):
        import_model(path, store)
    assert store.digests() == []


def test_numbers_out_of_bounds_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match="block_count"):
        import_model(gguf(tmp_path, **{"llama.block_count": 1 << 30}), store)


def test_a_gguf_without_a_tokenizer_is_no_language_model(
    store: ArtifactStore, tmp_path: Path
) -> None:
    path = gguf(tmp_path, **{"tokenizer.ggml.tokens": None, "tokenizer.ggml.token_type": None})
    with pytest.raises(ConversionFailed, match="no language model"):
        import_model(path, store)


@pytest.mark.parametrize("pre", bpe_tokenizer.PRE)
def test_tokenizers_give_every_text_back(pre: str) -> None:
    tokens = [*small_models.byte_alphabet(), "th", "<s>"]
    built = bpe_tokenizer.build(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": ["t h"],
            "tokenizer.ggml.token_type": [1] * 257 + [3],
        }
    )
    reader = Tokenizer.from_str(json.dumps(built))
    for text in ("the  other\n\n12345 they're", "naïve — 你好 🙂", "<s>\t x"):
        ids = reader.encode(text, add_special_tokens=False).ids
        assert reader.decode(ids, skip_special_tokens=False) == text
    assert reader.encode("<s>").ids == [257]


def test_unknown_tokenizers_are_not_guessed() -> None:
    known = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["t", "h", "th"],
        "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.token_type": [1, 1, 1],
    }
    assert bpe_tokenizer.build(known) is not None
    for change in (
        {"tokenizer.ggml.model": "llama"},
        {"tokenizer.ggml.pre": "other"},
        {"tokenizer.ggml.merges": ["th"]},
        {"tokenizer.ggml.token_type": [1]},
        {"tokenizer.ggml.tokens": ["t", "t", "th"]},
    ):
        assert bpe_tokenizer.build(known | change) is None


def test_the_starter_says_what_its_gguf_says(starters: Path) -> None:
    """SmolLM2, as the server has it: not the distorted reading of Q4_1, and its own tokens."""
    store = ArtifactStore(next(starters.rglob(".staging")).parent)
    manifests = [store.manifest(digest) for digest in store.digests()]
    manifest = next(found for found in manifests if found.format == "openvino-llm")
    assert manifest.licence == "Apache-2.0"
    assert manifest.verification is not None
    assert manifest.verification.max_abs_error < 0.3
    folder = store.open(store.digests()[manifests.index(manifest)])
    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert reader.encode("<|im_start|>").ids == [1]
    assert np.array_equal(reader.encode("12").ids, [33, 34])  # digits stand alone
