"""The graph of a BERT-family encoder, operation by operation; no framework takes part.

Sources: Devlin et al. 2019 (BERT), Liu et al. 2019 (RoBERTa's positions), Sanh et al. 2019
(DistilBERT), Reimers and Gurevych 2019 (pooling).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from openvino import opset13 as ops

from openmaas.registry.importers.encoder_weights import Encoder


def build(encoder: Encoder) -> tuple[list[Any], Any]:
    """The graph's inputs and one vector a text.

    Inputs as ``states``. Vectors: float32 [batch, width], the mean or the first of the last hidden
    states, as ``encoder.pooling`` says.
    """
    inputs, hidden, ragged = states(encoder)
    return inputs, _pool(ragged.unpack(hidden), inputs[1], encoder.pooling)


def states(encoder: Encoder) -> tuple[list[Any], Any, Ragged]:
    """The graph's inputs, the last hidden state of each real token, [1, tokens of all texts,
    width] in float32, and what lays them out in texts again.

    Inputs ``input_ids``, ``attention_mask`` and, where the model has more than one token type,
    ``token_type_ids``: int64 [batch, tokens].
    """
    ids, mask, types = (
        ops.parameter([-1, -1], np.int64, name=name)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    for port in (ids, mask, types):
        port.output(0).set_names({port.friendly_name})
    inputs = [ids, mask]
    hidden = _add(
        _rows(encoder.words, ids), _rows(encoder.positions, _positions(encoder, ids, mask))
    )
    if encoder.types is not None and len(encoder.types) > 1:
        inputs.append(types)
        hidden = _add(hidden, _rows(encoder.types, types))
    elif encoder.types is not None:
        hidden = _add(hidden, ops.constant(encoder.types))
    ragged = Ragged(mask)
    hidden = _norm(ragged.pack(hidden), encoder.embedding_norm, encoder.epsilon)
    allowed = ops.unsqueeze(ops.unsqueeze(_floats(mask), _ints(1)), _ints(1))  # [B, 1, 1, T]
    bias = ops.multiply(ops.subtract(_float(1.0), allowed), _float(-1e9))
    for layer in encoder.layers:
        hidden = _layer(hidden, bias, layer, encoder, ragged)
    return inputs, hidden, ragged


def unit(vectors: Any) -> Any:
    """Each row brought to length 1."""
    return ops.normalize_l2(vectors, _ints(1), 1e-24, "max")


def activate(inputs: Any, name: str) -> Any:
    """``relu``, ``tanh``, ``gelu`` or ``gelu_tanh`` of each number."""
    if name in ("relu", "tanh"):
        return getattr(ops, name)(inputs)
    return ops.gelu(inputs, "tanh" if name == "gelu_tanh" else "erf")


class Ragged:
    """Real tokens alone, in one row, wherever a token does not see another: padding then costs
    nothing but in attention itself (Zhai et al. 2023, ByteTransformer, section III.D)."""

    def __init__(self, mask: Any) -> None:
        flat = ops.reshape(mask, _ints(-1), False)
        # [T]: where in the padded batch each real token is.
        self._real = ops.squeeze(ops.non_zero(flat, "i64"), _ints(0))
        # [B, T']: which real token is at each place; padding repeats the one before.
        number = ops.subtract(ops.cumsum(flat, _int(0)), _int(1))
        number = ops.maximum(number, _int(0))
        self._place = ops.reshape(number, ops.shape_of(mask), False)

    def pack(self, padded: Any) -> Any:
        """[B, T', H] → [1, T, H]."""
        width = padded.output(0).partial_shape[2].get_length()
        flat = ops.reshape(padded, _ints(-1, width), False)
        return ops.unsqueeze(ops.gather(flat, self._real, _int(0)), _ints(0))

    def unpack(self, packed: Any) -> Any:
        """[1, T, H] → [B, T', H], with anything at the padding."""
        return ops.gather(ops.squeeze(packed, _ints(0)), self._place, _int(0))


def _layer(hidden: Any, bias: Any, layer: dict[str, Any], encoder: Encoder, ragged: Ragged) -> Any:
    query, key, value = (
        _heads(ragged.unpack(dense(hidden, layer[name])), encoder)
        for name in ("query", "key", "value")
    )
    attended = ops.scaled_dot_product_attention(query, key, value, bias)
    merged = ops.reshape(
        ops.transpose(attended, _ints(0, 2, 1, 3)), _ints(0, 0, encoder.width), True
    )
    hidden = _norm(
        _add(hidden, dense(ragged.pack(merged), layer["attended"])),
        layer["attention_norm"],
        encoder.epsilon,
    )
    inner = activate(dense(hidden, layer["up"]), encoder.activation)
    return _norm(_add(hidden, dense(inner, layer["down"])), layer["output_norm"], encoder.epsilon)


def _heads(flat: Any, encoder: Encoder) -> Any:
    """[B, T, H] → [B, heads, T, H ÷ heads]."""
    split = ops.reshape(flat, _ints(0, 0, encoder.heads, encoder.width // encoder.heads), True)
    return ops.transpose(split, _ints(0, 2, 1, 3))


def _positions(encoder: Encoder, ids: Any, mask: Any) -> Any:
    if encoder.first_position:
        # RoBERTa numbers the real tokens; padding keeps the padding id.
        count = ops.multiply(ops.cumsum(mask, _int(1)), mask)
        return ops.add(count, _int(encoder.first_position - 1))
    length = ops.gather(ops.shape_of(ids), _int(1), _int(0))
    return ops.unsqueeze(ops.range(_int(0), length, _int(1), "i64"), _ints(0))


def _pool(hidden: Any, mask: Any, pooling: str) -> Any:
    if pooling == "cls":
        return ops.gather(hidden, _int(0), _int(1))
    weights = ops.unsqueeze(_floats(mask), _ints(2))
    total = ops.reduce_sum(ops.multiply(hidden, weights), _ints(1))
    return ops.divide(total, ops.maximum(ops.reduce_sum(weights, _ints(1)), _float(1e-9)))


def dense(inputs: Any, pair: tuple[Any, Any]) -> Any:
    """[…, in] → […, out] by (weight [out, in], bias [out])."""
    return _add(ops.matmul(inputs, ops.constant(pair[0]), False, True), ops.constant(pair[1]))


def _norm(inputs: Any, pair: tuple[Any, Any], epsilon: float) -> Any:
    centred = ops.mvn(inputs, _ints(2), True, epsilon, "inside_sqrt")
    return _add(ops.multiply(centred, ops.constant(pair[0])), ops.constant(pair[1]))


def _rows(table: Any, at: Any) -> Any:
    return ops.gather(ops.constant(table), at, _int(0))


def _add(left: Any, right: Any) -> Any:
    return ops.add(left, right)


def _floats(ids: Any) -> Any:
    return ops.convert(ids, "f32")


def _float(value: float) -> Any:
    return ops.constant(np.float32(value))


def _int(value: int) -> Any:
    return ops.constant(np.int64(value))


def _ints(*values: int) -> Any:
    return ops.constant(np.array(values, dtype=np.int64))
