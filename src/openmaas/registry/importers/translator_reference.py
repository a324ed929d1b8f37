"""A translation model's forward pass in NumPy, float32: what a conversion is compared with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmaas.registry.importers import encoder_reference
from openmaas.registry.importers.translator_weights import Array, Linear, Norm, Side, Translator


def logprobs(model: Translator, source: list[int], target: list[int]) -> Array:
    """Natural log-probabilities [tokens of target + 1, vocabulary] of what follows each part of
    ``target``, from nothing of it to all, when ``source`` was read (teacher forcing)."""
    read = _side(model, model.encoder, model.encoder.words[source] * model.word_scale, None)
    words = model.decoder.words[[model.start, *target]] * np.float32(model.word_scale)
    if model.start_from_zero:
        words[0] = 0
    hidden = _side(model, model.decoder, words, read) * np.float32(model.output_scale)
    logits = _dense(hidden, model.head)
    logits = logits - logits.max(-1, keepdims=True)
    result: Array = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return result


def _side(model: Translator, side: Side, hidden: Array, read: Array | None) -> Array:
    """``hidden`` [tokens, H] through all layers; ``read``: what the encoder made, for a decoder."""
    bias: Any = 0.0
    count = len(hidden)
    if side.positions is not None:
        hidden = hidden + side.positions[:count]
    if side.relative is not None:
        bias = _relative(side.relative, count, model.max_distance, both_ways=read is None)
    if read is not None:
        bias = bias + np.triu(np.full((count, count), -np.inf, np.float32), 1)
    for layer in side.layers:
        hidden = _block(
            model,
            hidden,
            layer["attention_norm"],
            lambda x, of=layer: _attend(model, side.heads, x, x, of, "", bias),
        )
        if read is not None:
            hidden = _block(
                model,
                hidden,
                layer["cross_norm"],
                lambda x, of=layer: _attend(model, side.heads, x, read, of, "cross_", 0.0),
            )
        hidden = _block(
            model, hidden, layer["output_norm"], lambda x, of=layer: _feed(model, x, of)
        )
    return hidden if side.norm is None else _norm(hidden, side.norm, model.epsilon)


def _block(model: Translator, hidden: Array, norm: Norm, inner: Any) -> Array:
    if model.pre_norm:
        result: Array = hidden + inner(_norm(hidden, norm, model.epsilon))
        return result
    return _norm(hidden + inner(hidden), norm, model.epsilon)


def _attend(
    model: Translator, heads: int, asking: Array, asked: Array, layer: Any, prefix: str, bias: Any
) -> Array:
    query, key, value = (
        _dense(inputs, layer[prefix + name]).reshape(len(inputs), heads, -1)
        for name, inputs in (("query", asking), ("key", asked), ("value", asked))
    )
    scale = model.query_scale or 1 / math.sqrt(query.shape[-1])
    scores = np.einsum("qhd,khd->hqk", query, key) * np.float32(scale) + bias
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    shares = powers / powers.sum(-1, keepdims=True)
    merged = np.einsum("hqk,khd->qhd", shares, value).reshape(len(asking), -1)
    return _dense(merged.astype(np.float32), layer[prefix + "attended"])


def _feed(model: Translator, inputs: Array, layer: Any) -> Array:
    inner = activate(_dense(inputs, layer["up"]), model.activation)
    if "gate" in layer:
        inner = inner * _dense(inputs, layer["gate"])
    return _dense(inner, layer["down"])


def activate(inputs: Array, name: str) -> Array:
    """relu, gelu, gelu_tanh, or swish: x·σ(x)."""
    if name == "swish":
        result: Array = inputs / (1 + np.exp(-np.clip(inputs, -60, None)))
        return result
    return encoder_reference.activate(inputs, name)


def _relative(table: Array, count: int, most: int, *, both_ways: bool) -> Array:
    """[heads, count, count]: T5's bias by the distance from query to key, in buckets that grow
    with it (Raffel et al. 2020, section 2.1)."""
    places = np.arange(count)
    distance = places[None, :] - places[:, None]
    buckets = len(table)
    first: NDArray[Any] = np.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first = (distance > 0) * buckets
        distance = np.abs(distance)
    else:
        distance = -np.minimum(distance, 0)
    exact = buckets // 2
    far = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / math.log(most / exact)
    far_bucket = np.minimum(exact + (far * (buckets - exact)).astype(int), buckets - 1)
    chosen = first + np.where(distance < exact, distance, far_bucket)
    bias: Array = table[chosen].transpose(2, 0, 1)
    return bias


def _dense(inputs: Array, pair: Linear) -> Array:
    weight, bias = pair
    result: Array = inputs @ weight.T
    return result if bias is None else result + bias


def _norm(inputs: Array, pair: Norm, epsilon: float) -> Array:
    scale, shift = pair
    if shift is None:
        spread = np.sqrt((inputs**2).mean(-1, keepdims=True) + epsilon)
        rms: Array = inputs / spread * scale
        return rms
    mean = inputs.mean(-1, keepdims=True)
    spread = np.sqrt(((inputs - mean) ** 2).mean(-1, keepdims=True) + epsilon)
    result: Array = (inputs - mean) / spread * scale + shift
    return result
