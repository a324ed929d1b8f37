"""A decoder's forward pass in plain NumPy: Llama, Qwen 2 and Qwen 3.

Slow and simple on purpose: it says what a converted model must say. Sources: Touvron et al.
2023 (Llama), Su et al. 2021 (rotary positions), Ainslie et al. 2023 (grouped queries),
Zhang and Sennrich 2019 (RMSNorm), Shazeer 2020 (SwiGLU).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    layers: int
    heads: int
    key_heads: int  # shared by heads ÷ key_heads queries each
    head_width: int
    epsilon: float
    rope_base: float
    interleaved: bool  # rotary pairs are (0, 1), (2, 3) …; else (0, n/2), (1, n/2 + 1) …


class Weights(Protocol):
    """float32 by GGUF's names, matrices as [out, in]."""

    def names(self) -> list[str]: ...
    def __contains__(self, name: object) -> bool: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def __call__(self, name: str) -> Array: ...
    def rows(self, name: str, at: list[int]) -> Array: ...


def scores(shape: Shape, weights: Weights, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Log-probability of every token but the first of each text, given those before it."""
    streams = [weights.rows("token_embd.weight", list(text)) for text in texts]
    for at in range(shape.layers):
        # One layer's weights at a time, for all texts: a large model's do not fit at once.
        layer = _Layer(weights, f"blk.{at}.")
        streams = [_block(shape, layer, stream) for stream in streams]
    norm = weights("output_norm.weight")
    head = weights("output.weight" if "output.weight" in weights else "token_embd.weight")
    results = []
    for text, stream in zip(texts, streams, strict=True):
        logits = (_norm(stream[:-1], norm, shape.epsilon) @ head.T).astype(np.float64)
        top = logits.max(1, keepdims=True)
        chosen = logits[np.arange(len(text) - 1), list(text)[1:]]
        results.append((chosen - top[:, 0] - np.log(np.exp(logits - top).sum(1))).tolist())
    return results


class _Layer:
    def __init__(self, weights: Weights, prefix: str) -> None:
        names = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"]
        names += ["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
        self._of = {name: weights(f"{prefix}{name}.weight") for name in names}
        self._biases = {
            name: weights(f"{prefix}{name}.bias")
            for name in names
            if f"{prefix}{name}.bias" in weights
        }
        for name in ("attn_q_norm", "attn_k_norm"):
            if f"{prefix}{name}.weight" in weights:
                self._of[name] = weights(f"{prefix}{name}.weight")

    def __getitem__(self, name: str) -> Array:
        return self._of[name]

    def get(self, name: str) -> Array | None:
        return self._of.get(name)

    def dense(self, name: str, inputs: Array) -> Array:
        result: Array = inputs @ self._of[name].T
        return result + self._biases[name] if name in self._biases else result


def _block(shape: Shape, layer: _Layer, stream: Array) -> Array:
    inputs = _norm(stream, layer["attn_norm"], shape.epsilon)
    stream = stream + layer.dense("attn_output", _attention(shape, layer, inputs))
    inputs = _norm(stream, layer["ffn_norm"], shape.epsilon)
    gate = layer.dense("ffn_gate", inputs)
    gated: Any = gate / (1 + np.exp(-gate)) * layer.dense("ffn_up", inputs)
    result: Array = stream + layer.dense("ffn_down", gated)
    return result


def _attention(shape: Shape, layer: _Layer, inputs: Array) -> Array:
    tokens = len(inputs)
    parts = {}
    for part, heads in (("q", shape.heads), ("k", shape.key_heads), ("v", shape.key_heads)):
        flat = layer.dense(f"attn_{part}", inputs)
        parts[part] = flat.reshape(tokens, heads, shape.head_width).transpose(1, 0, 2)
        norm = layer.get(f"attn_{part}_norm")
        if norm is not None:
            parts[part] = _norm(parts[part], norm, shape.epsilon)
    query, key = _rotate(shape, parts["q"]), _rotate(shape, parts["k"])
    group = shape.heads // shape.key_heads
    key, value = np.repeat(key, group, 0), np.repeat(parts["v"], group, 0)
    affinity = query @ key.transpose(0, 2, 1) / math.sqrt(shape.head_width)
    affinity = np.where(np.tri(tokens, dtype=bool), affinity, -np.inf)
    powers = np.exp(affinity - affinity.max(-1, keepdims=True))
    mixed = powers / powers.sum(-1, keepdims=True) @ value
    merged: Array = mixed.transpose(1, 0, 2).reshape(tokens, shape.heads * shape.head_width)
    return merged


def _rotate(shape: Shape, heads: Array) -> Array:
    half = shape.head_width // 2
    turns = shape.rope_base ** (-np.arange(half) / half)
    angles = np.outer(np.arange(heads.shape[1]), turns)
    cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    result = np.empty_like(heads)
    if shape.interleaved:
        left, right = slice(0, None, 2), slice(1, None, 2)
    else:
        left, right = slice(0, half), slice(half, None)
    a, b = heads[..., left], heads[..., right]
    result[..., left], result[..., right] = a * cosine - b * sine, b * cosine + a * sine
    return result


def _norm(inputs: Array, weight: Array, epsilon: float) -> Array:
    size = np.sqrt((inputs**2).mean(-1, keepdims=True) + epsilon)
    result: Array = inputs / size * weight
    return result
