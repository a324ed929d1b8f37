"""Translation models of a few random weights, as Hugging Face folders lay them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.registry import small_models

WIDTH, INNER, HEADS, VOCABULARY, LAYERS = 16, 24, 2, 64, 2
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
Shapes = dict[str, tuple[int, ...]]


def write(folder: Path, family: str, **changes: Any) -> Path:
    """``config.json`` and ``model.safetensors`` of a marian, m2m_100 or t5."""
    folder.mkdir(parents=True, exist_ok=True)
    config, shapes = (_t5 if family == "t5" else _bart)(family)
    (folder / "config.json").write_text(json.dumps(config | changes))
    weights = small_models.random_weights(shapes)
    if "final_logits_bias" in weights:
        weights["final_logits_bias"][0, 0] += 2.5  # some answers end before they are cut
    small_models.write_safetensors(folder / "model.safetensors", weights)
    return folder


def _bart(family: str) -> tuple[dict[str, Any], Shapes]:
    marian = family == "marian"
    config = {
        "model_type": family,
        "architectures": ["MarianMTModel" if marian else "M2M100ForConditionalGeneration"],
        "d_model": WIDTH,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "max_position_embeddings": 40,
        "vocab_size": VOCABULARY,
        "activation_function": "swish" if marian else "relu",
        "scale_embedding": True,
        "eos_token_id": 0 if marian else 2,
        "pad_token_id": VOCABULARY - 1 if marian else 1,
        "decoder_start_token_id": VOCABULARY - 1 if marian else 2,
    }
    shapes: Shapes = {"model.shared.weight": (VOCABULARY, WIDTH)}
    if marian:
        shapes["final_logits_bias"] = (1, VOCABULARY)
    for side in ("encoder", "decoder"):
        attentions = ["self_attn"] + ["encoder_attn"] * (side == "decoder")
        for number in range(LAYERS):
            at = f"model.{side}.layers.{number}."
            for attention in attentions:
                for one in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    shapes |= _pair(f"{at}{attention}.{one}", WIDTH, WIDTH)
                shapes |= _norm(f"{at}{attention}_layer_norm")
            shapes |= _pair(at + "fc1", INNER, WIDTH) | _pair(at + "fc2", WIDTH, INNER)
            shapes |= _norm(at + "final_layer_norm")
        if not marian:
            shapes |= _norm(f"model.{side}.layer_norm")
    return config, shapes


def _t5(family: str) -> tuple[dict[str, Any], Shapes]:
    config = {
        "model_type": family,
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": WIDTH,
        "d_kv": WIDTH // HEADS,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "feed_forward_proj": "gated-gelu",
        "relative_attention_max_distance": 16,
        "vocab_size": VOCABULARY,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "task_specific_params": {
            "translation_en_to_de": {"prefix": "translate English to German: "},
            "summarization": {"prefix": "summarize: "},
        },
    }
    shapes: Shapes = {"shared.weight": (VOCABULARY, WIDTH)}
    for side in ("encoder", "decoder"):
        for number in range(LAYERS):
            layers = ["SelfAttention"] + ["EncDecAttention"] * (side == "decoder")
            at = f"{side}.block.{number}.layer."
            for place, attention in enumerate(layers):
                for one in "qkvo":
                    shapes[f"{at}{place}.{attention}.{one}.weight"] = (WIDTH, WIDTH)
                shapes[f"{at}{place}.layer_norm.weight"] = (WIDTH,)
            dense = f"{at}{len(layers)}.DenseReluDense."
            shapes[dense + "wi_0.weight"] = shapes[dense + "wi_1.weight"] = (INNER, WIDTH)
            shapes[dense + "wo.weight"] = (WIDTH, INNER)
            shapes[f"{at}{len(layers)}.layer_norm.weight"] = (WIDTH,)
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shapes[bias] = (8, HEADS)
        shapes[f"{side}.final_layer_norm.weight"] = (WIDTH,)
    return config, shapes


def _pair(name: str, out: int, width: int) -> Shapes:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def _norm(name: str) -> Shapes:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
