"""Weights → CTranslate2's own model files, by its specification classes; no framework's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# CTranslate2's specifications look for PyTorch, whose import costs seconds, and do without it.
_absent = "torch" not in sys.modules
if _absent:
    sys.modules["torch"] = None  # type: ignore[assignment]
from ctranslate2.specs import common_spec, transformer_spec  # noqa: E402

if _absent:
    del sys.modules["torch"]

from openmaas.registry.importers.translator_weights import Side, Translator  # noqa: E402

_ACTIVATIONS = {
    "relu": common_spec.Activation.RELU,
    "swish": common_spec.Activation.SWISH,
    "gelu": common_spec.Activation.GELU,
    "gelu_tanh": common_spec.Activation.GELUTanh,
}


def save(model: Translator, out: Path, quantization: str | None) -> None:
    """Writes ``model.bin``, ``config.json`` and ``shared_vocabulary.json`` into ``out``.

    The vocabulary's words are the token ids in decimal: texts are the tokenizer's business.

    Args:
        quantization: ``int8`` or ``None``: float32.
    """
    spec = transformer_spec.TransformerSpec.from_config(
        (len(model.encoder.layers), len(model.decoder.layers)),
        model.encoder.heads,
        pre_norm=model.pre_norm,
        activation=_ACTIVATIONS[model.activation],
        relative_attention_bias=model.encoder.relative is not None,
        ffn_glu="gate" in model.encoder.layers[0],
        rms_norm=model.encoder.layers[0]["output_norm"][1] is None,
    )
    spec.decoder.num_heads = np.dtype("int16").type(model.decoder.heads)
    # Copies, here and below: quantization would change the arrays that the reference reads next.
    spec.encoder.embeddings[0].weight = model.encoder.words.copy()
    spec.decoder.embeddings.weight = model.decoder.words.copy()
    spec.decoder.start_from_zero_embedding = model.start_from_zero
    for side, made in ((model.encoder, spec.encoder), (model.decoder, spec.decoder)):
        _side(model, side, made)
    _linear(spec.decoder.projection, [model.head])
    if model.output_scale != 1:
        spec.decoder.scale_outputs = model.output_scale
    words = [str(at) for at in range(len(model.encoder.words))]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    # No text is ever looked up in this vocabulary, so that nothing is unknown; CTranslate2
    # wants a name all the same.
    spec.config.bos_token = spec.config.decoder_start_token = str(model.start)
    spec.config.eos_token = spec.config.unk_token = str(model.end)
    spec.config.layer_norm_epsilon = model.epsilon
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(out))


def _side(model: Translator, side: Side, made: Any) -> None:
    made.scale_embeddings = model.word_scale if model.word_scale != 1 else False
    if side.positions is not None:
        made.position_encodings.encodings = side.positions
    if side.norm is not None:
        _norm(made.layer_norm, side.norm)
    for layer, of in zip(side.layers, made.layer, strict=True):
        own = of.self_attention
        _linear(own.linear[0], [layer[name] for name in ("query", "key", "value")])
        _linear(own.linear[1], [layer["attended"]])
        _norm(own.layer_norm, layer["attention_norm"])
        if side.relative is not None:
            own.relative_attention_bias = side.relative
            own.relative_attention_max_distance = np.dtype("int32").type(model.max_distance)
        attentions = [own]
        if "cross_query" in layer:
            _linear(of.attention.linear[0], [layer["cross_query"]])
            _linear(of.attention.linear[1], [layer["cross_key"], layer["cross_value"]])
            _linear(of.attention.linear[2], [layer["cross_attended"]])
            _norm(of.attention.layer_norm, layer["cross_norm"])
            attentions.append(of.attention)
        if model.query_scale is not None:
            for attention in attentions:
                attention.queries_scale = model.query_scale
        _linear(of.ffn.linear_0, [layer["up"]])
        if "gate" in layer:
            _linear(of.ffn.linear_0_noact, [layer["gate"]])
        _linear(of.ffn.linear_1, [layer["down"]])
        _norm(of.ffn.layer_norm, layer["output_norm"])


def _linear(made: Any, pairs: list[Any]) -> None:
    made.weight = np.concatenate([weight for weight, _ in pairs])
    if pairs[0][1] is not None:
        made.bias = np.concatenate([bias for _, bias in pairs])


def _norm(made: Any, pair: Any) -> None:
    made.gamma = pair[0]
    if pair[1] is not None:
        made.beta = pair[1]
