"""A Hugging Face folder of a decoder (config.json, safetensors) → OpenVINO IR.

No framework takes part, so nothing of the folder is run: the weights are renamed, packed into
8 bits and read by OpenVINO GenAI, and the result is compared with a forward pass in NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import decoder_ir, language_folder
from openmaas.registry.importers.decoder_reference import Array, Shape
from openmaas.registry.importers.safetensors_file import SafetensorsFolder
from openmaas.registry.manifest import Description
from openmaas.registry.recognise import read_json

# model_type of config.json → the architecture as GGUF calls it
FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
MAX_LAYERS, MAX_WIDTH = 512, 1 << 18

_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHERWISE = (
    "Convert it to GGUF with llama.cpp's convert_hf_to_gguf.py and push that file; "
    "llama.cpp then serves it."
)


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: settings or weights are damaged or missing.
        ConversionFailed: a variant that is not read here, or the IR says something else.
    """
    config = read_json(source / "config.json")
    tokenizer = read_json(source / "tokenizer.json")
    tokenizer["truncation"] = tokenizer["padding"] = None
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    _check_family(config)
    shape = _shape(config)
    weights = HubWeights(SafetensorsFolder(source), shape.layers, _tied(config))
    metadata = _metadata(config, shape, weights) | _vocabulary(tokenizer, weights)
    place = source.parent / "genai"
    place.mkdir()
    stored = Permuted(weights, shape) if FAMILIES[config["model_type"]] == "llama" else weights
    verification, versions = decoder_ir.build(
        place,
        out,
        decoder_ir.Model(metadata, shape, weights, stored),
        "the safetensors' weights in NumPy, float32",
        say,
    )
    return language_folder.describe(source, out, verification, versions)


class HubWeights:
    """``decoder_reference.Weights`` over safetensors."""

    def __init__(self, tensors: SafetensorsFolder, layers: int, tied: bool) -> None:
        known = dict(_OUTER)
        for at in range(layers):
            for ours, theirs in _INNER.items():
                for end in ("weight", "bias"):
                    known[f"blk.{at}.{ours}.{end}"] = f"model.layers.{at}.{theirs}.{end}"
        if tied:
            del known["output.weight"]
        self._tensors = tensors
        self._where = {ours: theirs for ours, theirs in known.items() if theirs in tensors}
        tied_head = {"lm_head.weight"} if tied else set()
        left = set(tensors.names()) - set(self._where.values()) - tied_head
        left = {name for name in left if not name.endswith("rotary_emb.inv_freq")}
        if left:
            raise ConversionFailed(f"It has weights that are not known here: {min(left)[:100]}.")

    def names(self) -> list[str]:
        return list(self._where)

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors.shape(self._named(name))

    def __call__(self, name: str) -> Array:
        return self._tensors(self._named(name))

    def rows(self, name: str, at: list[int]) -> Array:
        return self(name)[at]

    def _named(self, name: str) -> str:
        if name not in self._where:
            raise ArtifactRefused(f"The safetensors lack {name}.")
        return self._where[name]


class Permuted:
    """The same, with queries and keys in the order that GGUF has for Llama: pairs that are
    rotated together lie side by side, not half a head apart."""

    def __init__(self, weights: HubWeights, shape: Shape) -> None:
        self._weights = weights
        self._heads = {"attn_q": shape.heads, "attn_k": shape.key_heads}

    def names(self) -> list[str]:
        return self._weights.names()

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights.shape(name)

    def __call__(self, name: str) -> Array:
        values = self._weights(name)
        heads = self._heads.get(name.split(".")[-2])
        if heads is None:
            return values
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))

    def rows(self, name: str, at: list[int]) -> Array:
        return self(name)[at]


def _check_family(config: dict[str, Any]) -> None:
    family = str(config.get("model_type"))[:40]
    if family not in FAMILIES:
        raise ConversionFailed(f"Decoders of the family {family!r} are not read here. {_OTHERWISE}")
    windowed = config.get("use_sliding_window", family == "mistral")
    obstacles = {
        "scaled rotary positions": _rope(config).get("rope_type", "default") != "default",
        "a sliding window": bool(windowed and config.get("sliding_window")),
        "biases": bool(config.get("mlp_bias")) or bool(config.get("attention_bias")),
        "an activation other than SiLU": config.get("hidden_act", "silu") != "silu",
        "quantised weights": "quantization_config" in config,
    }
    for what, present in obstacles.items():
        if present:
            raise ConversionFailed(f"Decoders with {what} are not read here. {_OTHERWISE}")


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary settings, which newer files keep in an object and older ones beside the others."""
    for name in ("rope_parameters", "rope_scaling"):
        found = config.get(name)
        if isinstance(found, dict):
            return {"rope_type": found.get("type", "default")} | found
    return {}


def _shape(config: dict[str, Any]) -> Shape:
    def number(name: str, most: int, default: int | None = None) -> int:
        value = config.get(name) or default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ArtifactRefused(f"config.json: {name} must be a number from 1 to {most}.")
        return value

    heads = number("num_attention_heads", MAX_WIDTH)
    key_heads = number("num_key_value_heads", heads, heads)
    width = number("hidden_size", MAX_WIDTH)
    base = _rope(config).get("rope_theta", config.get("rope_theta", 10_000.0))
    epsilon = config.get("rms_norm_eps", 1e-6)
    if heads % key_heads or not isinstance(base, int | float) or not 1 <= base <= 1e12:
        raise ArtifactRefused("config.json: the numbers of heads or rope_theta are not possible.")
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ArtifactRefused("config.json: rms_norm_eps must lie between 0 and 1.")
    return Shape(
        layers=number("num_hidden_layers", MAX_LAYERS),
        heads=heads,
        key_heads=key_heads,
        head_width=number("head_dim", MAX_WIDTH, width // heads),
        epsilon=epsilon,
        rope_base=float(base),
        interleaved=False,
    )


def _tied(config: dict[str, Any]) -> bool:
    return config.get("tie_word_embeddings", False) is True


def _metadata(config: dict[str, Any], shape: Shape, weights: HubWeights) -> dict[str, Any]:
    family = FAMILIES[config["model_type"]]
    rows, width = weights.shape("token_embd.weight")
    values: dict[str, Any] = {
        "vocab_size": rows,
        "context_length": language_folder.context_tokens(config),
        "embedding_length": width,
        "block_count": shape.layers,
        "feed_forward_length": weights.shape("blk.0.ffn_up.weight")[0],
        "rope.dimension_count": shape.head_width,
        "rope.freq_base": shape.rope_base,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.key_heads,
        "attention.key_length": shape.head_width,
        "attention.value_length": shape.head_width,
        "attention.layer_norm_rms_epsilon": shape.epsilon,
    }
    return {"general.architecture": family} | {f"{family}.{k}": v for k, v in values.items()}


def _vocabulary(tokenizer: dict[str, Any], weights: HubWeights) -> dict[str, Any]:
    """A vocabulary for the reader's sake: text is encoded by ``tokenizer.json`` alone."""
    model = tokenizer.get("model", {})
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocabulary, dict) or not isinstance(merges, list) or not merges:
        raise ConversionFailed(f"Its tokenizer is no byte-pair encoding. {_OTHERWISE}")
    rows = weights.shape("token_embd.weight")[0]
    tokens = [f"[unused{at}]" for at in range(rows)]
    added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", [])}
    for text, at in (vocabulary | added).items():
        if not isinstance(at, int) or not 0 <= at < rows:
            raise ArtifactRefused("tokenizer.json has more tokens than the model has rows.")
        tokens[at] = text
    normal = set(vocabulary.values()) - set(added.values())
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1 if at in normal else 3 for at in range(rows)],
        "tokenizer.ggml.merges": [
            pair if isinstance(pair, str) else " ".join(pair) for pair in merges
        ],
        **{f"tokenizer.ggml.{name}_token_id": 0 for name in ("bos", "eos", "padding", "unknown")},
    }
