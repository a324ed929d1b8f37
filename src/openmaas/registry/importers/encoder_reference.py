"""A BERT-family forward pass in plain NumPy, written apart from the graph it checks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmaas.registry.importers.encoder_weights import Array, Encoder

Ids = NDArray[np.int64]

SENTENCES = (
    "A man is eating food.",
    "The quick brown fox jumps over the lazy dog, twice, and then it rests in the shade.",
    "Das ist ein kurzer Satz.",
    "What is the capital of France?",
    "42",
    "Machine learning models turn text into vectors, so that texts of like meaning lie close "
    "together; a search then needs only to compare directions. " * 3,
    "",
)


def batches(tokenizer: Path, context: int, *, pairs: bool = False) -> list[tuple[Ids, Ids, Ids]]:
    """Ids, mask and token types [batch, tokens] of all sentences, padded in one batch, and of
    each of the first three alone; with ``pairs`` each is followed by the next one."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(tokenizer))
    reader.enable_truncation(context)
    reader.enable_padding(pad_id=reader.token_to_id("<pad>") or 0)
    texts: list[Any] = list(SENTENCES)
    if pairs:
        texts = list(zip(SENTENCES, SENTENCES[1:] + SENTENCES[:1], strict=True))
    groups = [texts, *([text] for text in texts[:3])]
    made = []
    for group in groups:
        rows = reader.encode_batch(group)
        columns = zip(*((row.ids, row.attention_mask, row.type_ids) for row in rows), strict=True)
        ids, mask, types = (np.array(column, dtype=np.int64) for column in columns)
        made.append((ids, mask, types))
    return made


def forward(encoder: Encoder, ids: Ids, mask: Ids) -> Array:
    """Unit vectors [batch, width] of token ids [batch, tokens]; every token is of type 0."""
    return unit(pooled(encoder, ids, mask, np.zeros_like(ids)))


def unit(vectors: Array) -> Array:
    """Each row brought to length 1."""
    rows: Array = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


def pooled(encoder: Encoder, ids: Ids, mask: Ids, types: Ids) -> Array:
    """Vectors [batch, width] of token ids [batch, tokens]; a family without, or with one token
    type, ignores ``types``."""
    hidden = states(encoder, ids, mask, types)
    if encoder.pooling == "cls":
        return hidden[:, 0]
    vectors: Array = (hidden * mask[..., None]).sum(1) / np.maximum(mask.sum(1), 1)[:, None]
    return vectors


def states(encoder: Encoder, ids: Ids, mask: Ids, types: Ids) -> Array:
    """The last hidden states [batch, tokens, width] of token ids [batch, tokens]."""
    if encoder.first_position:
        places = np.cumsum(mask, axis=1) * mask + encoder.first_position - 1
    else:
        places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    hidden: Array = encoder.words[ids] + encoder.positions[places]
    if encoder.types is not None:
        hidden = hidden + encoder.types[types if len(encoder.types) > 1 else 0]
    hidden = _norm(hidden, encoder.embedding_norm, encoder.epsilon)
    for layer in encoder.layers:
        attended = _attention(hidden, mask, layer, encoder.heads)
        hidden = _norm(
            hidden + dense(attended, layer["attended"]), layer["attention_norm"], encoder.epsilon
        )
        inner = activate(dense(hidden, layer["up"]), encoder.activation)
        hidden = _norm(hidden + dense(inner, layer["down"]), layer["output_norm"], encoder.epsilon)
    return hidden


def _attention(hidden: Array, mask: Ids, layer: dict[str, Any], heads: int) -> Array:
    batch, tokens, width = hidden.shape
    size = width // heads
    query, key, value = (
        dense(hidden, layer[name]).reshape(batch, tokens, heads, size)
        for name in ("query", "key", "value")
    )
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(size)
    scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    shares = powers / powers.sum(-1, keepdims=True)
    merged: Array = np.einsum("bhqk,bkhd->bqhd", shares, value).reshape(batch, tokens, width)
    return merged


def dense(inputs: Array, pair: tuple[Array, Array]) -> Array:
    """[…, in] → […, out] by (weight [out, in], bias [out])."""
    result: Array = inputs @ pair[0].T + pair[1]
    return result


def _norm(inputs: Array, pair: tuple[Array, Array], epsilon: float) -> Array:
    mean = inputs.mean(-1, keepdims=True)
    spread = np.sqrt(((inputs - mean) ** 2).mean(-1, keepdims=True) + epsilon)
    result: Array = (inputs - mean) / spread * pair[0] + pair[1]
    return result


def activate(inputs: Array, name: str) -> Array:
    """``relu``, ``tanh``, ``gelu`` or ``gelu_tanh`` of each number."""
    if name == "relu":
        return np.maximum(inputs, 0)
    if name == "tanh":
        return np.tanh(inputs)
    if name == "gelu_tanh":
        inner = math.sqrt(2 / math.pi) * (inputs + 0.044715 * inputs**3)
        result: Array = 0.5 * inputs * (1 + np.tanh(inner))
        return result
    halves = np.vectorize(math.erf, otypes=[np.float32])(inputs / math.sqrt(2))
    exact: Array = 0.5 * inputs * (1 + halves)
    return exact
