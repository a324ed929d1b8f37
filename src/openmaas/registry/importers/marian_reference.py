"""A Marian student's forward pass in NumPy, float32: what its graphs are compared with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from openmaas.registry.importers.marian_weights import EPSILON, Array, Student, positions


def logprobs(model: Student, source: list[int], target: list[int]) -> Array:
    """Natural log-probabilities [tokens of target + 1, vocabulary] of what follows each part of
    ``target``, from nothing of it to all, when ``source`` was read (teacher forcing)."""
    table = model.words.floats()
    scale = np.float32(math.sqrt(model.width))
    hidden = table[source] * scale + positions(len(source), model.width)
    for layer in model.encoder:
        hidden = _attend(model, hidden, hidden, layer)
        hidden = _feed(hidden, layer)
    read = hidden
    words = np.concatenate([np.zeros((1, model.width), np.float32), table[target] * scale])
    hidden = words + positions(len(words), model.width)
    for layer in model.decoder:
        hidden = _recur(hidden, layer)
        hidden = _attend(model, hidden, read, layer)
        hidden = _feed(hidden, layer)
    logits = hidden @ table.T + model.bias
    logits = logits - logits.max(-1, keepdims=True)
    result: Array = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return result


def _recur(hidden: Array, layer: dict[str, Any]) -> Array:
    """The simpler simple recurrent unit: c ← f·c + (1 − f)·Wx, with f = σ(W'x + b)."""
    forget = 1 / (1 + np.exp(-_dense(hidden, layer["forget"])))
    new = _dense(hidden, layer["new"])
    cell, cells = np.zeros_like(new[0]), []
    for share, input_ in zip(forget, new, strict=True):
        cell = share * cell + (1 - share) * input_
        cells.append(cell)
    return _norm(hidden + np.maximum(np.array(cells), 0), layer["cell_norm"])


def _attend(model: Student, asking: Array, asked: Array, layer: dict[str, Any]) -> Array:
    query, key, value = (
        _dense(inputs, layer[name]).reshape(len(inputs), model.heads, -1)
        for name, inputs in (("query", asking), ("key", asked), ("value", asked))
    )
    scores = np.einsum("qhd,khd->hqk", query, key) / math.sqrt(model.width // model.heads)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    shares = powers / powers.sum(-1, keepdims=True)
    merged = np.einsum("hqk,khd->qhd", shares, value).reshape(asking.shape)
    return _norm(asking + _dense(merged, layer["attended"]), layer["attention_norm"])


def _feed(hidden: Array, layer: dict[str, Any]) -> Array:
    inner = np.maximum(_dense(hidden, layer["up"]), 0)
    return _norm(hidden + _dense(inner, layer["down"]), layer["output_norm"])


def _dense(inputs: Array, pair: Any) -> Array:
    weight, bias = pair
    result: Array = inputs @ weight.floats().T
    return result if bias is None else result + bias


def _norm(inputs: Array, pair: tuple[Array, Array]) -> Array:
    mean = inputs.mean(-1, keepdims=True)
    spread = np.sqrt(((inputs - mean) ** 2).mean(-1, keepdims=True) + EPSILON)
    result: Array = (inputs - mean) / spread * pair[0] + pair[1]
    return result
