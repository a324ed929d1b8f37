"""A Marian student as two OpenVINO graphs: one reads a sentence, one writes its next word.

Shapes: B sentences, T source tokens, H width, N heads, V vocabulary. Weights stay in eight bits;
OpenVINO multiplies them with their scale as it reads them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

from openmaas.registry.importers.marian_weights import EPSILON, Student, positions

LONGEST = 1024  # places of the table of positions: tokens of a source or an answer


def encoder(model: Student) -> openvino.Model:
    """``tokens`` and ``mask`` int64 [B, T] → of each decoder layer i ``key_i`` and ``value_i``
    float32 [B, N, T, H ÷ N]."""
    tokens = _input([-1, -1], np.int64, "tokens")
    mask = _input([-1, -1], np.int64, "mask")
    count = ops.gather(ops.shape_of(tokens), _int(1), _int(0))
    places = ops.range(_int(0), count, _int(1), "i64")
    table = ops.constant(positions(LONGEST, model.width))
    hidden = ops.add(_words(model, tokens), ops.gather(table, places, _int(0)))
    bias = _bias(mask)
    for layer in model.encoder:
        parts = [_heads(model, _dense(hidden, layer[name])) for name in ("query", "key", "value")]
        hidden = _attended(model, hidden, parts, bias, layer)
        hidden = _feed(hidden, layer)
    outputs = []
    for at, layer in enumerate(model.decoder):
        for name in ("key", "value"):
            outputs.append(_output(_heads(model, _dense(hidden, layer[name])), f"{name}_{at}"))
    return openvino.Model(outputs, [tokens, mask], "reads")


def step(model: Student) -> openvino.Model:
    """``token`` int64 [B], ``place`` int64 [1] from 0, ``mask`` [B, T], and of each layer i
    ``key_i``, ``value_i`` and ``cell_i`` float32 [B, H] → ``next`` int32 [B], its natural
    log-probability ``logprob`` float32 [B], and cells ``new_cell_i``.

    At place 0 there is no token yet: whatever ``token`` says counts as zeros.
    """
    token = _input([-1], np.int64, "token")
    place = _input([1], np.int64, "place")
    mask = _input([-1, -1], np.int64, "mask")
    inputs, outputs = [token, place, mask], []
    there = ops.convert(ops.greater(place, _int(0)), "f32")
    table = ops.constant(positions(LONGEST, model.width))
    word = ops.multiply(_words(model, token), there)
    hidden = ops.unsqueeze(ops.add(word, ops.gather(table, place, _int(0))), _ints(1))
    bias = _bias(mask)
    size = model.width // model.heads
    for at, layer in enumerate(model.decoder):
        cell = _input([-1, model.width], np.float32, f"cell_{at}")
        asked = [
            _input([-1, model.heads, -1, size], np.float32, f"{name}_{at}")
            for name in ("key", "value")
        ]
        inputs += [cell, *asked]
        forget = ops.sigmoid(_dense(hidden, layer["forget"]))
        new = _dense(hidden, layer["new"])
        kept = ops.multiply(forget, ops.subtract(ops.unsqueeze(cell, _ints(1)), new))
        cell_now = ops.add(kept, new)  # f·c + (1 − f)·new
        outputs.append(_output(ops.squeeze(cell_now, _ints(1)), f"new_cell_{at}"))
        hidden = _norm(ops.add(hidden, ops.relu(cell_now)), layer["cell_norm"])
        query = _heads(model, _dense(hidden, layer["query"]))
        hidden = _attended(model, hidden, [query, *asked], bias, layer)
        hidden = _feed(hidden, layer)
    logits = ops.squeeze(_dense(hidden, (model.words, model.bias)), _ints(1))
    best = ops.topk(logits, _int(1), 1, "max", "none", "i32")
    total = ops.reduce_sum(ops.exp(ops.subtract(logits, best.output(0))), _ints(1))
    outputs.append(_output(ops.squeeze(best.output(1), _ints(1)), "next"))
    # log(e^most ÷ Σ e^logit), where the sum is of e^(logit − most)
    outputs.append(_output(ops.negative(ops.log(total)), "logprob"))
    return openvino.Model(outputs, inputs, "writes")


def _words(model: Student, ids: Any) -> Any:
    rows = ops.gather(ops.constant(model.words.values), ids, _int(0))
    scale = math.sqrt(model.width) / model.words.scale
    return ops.multiply(ops.convert(rows, "f32"), _float(scale))


def _attended(model: Student, hidden: Any, parts: list[Any], bias: Any, layer: Any) -> Any:
    found = ops.scaled_dot_product_attention(*parts, bias)
    merged = ops.reshape(ops.transpose(found, _ints(0, 2, 1, 3)), _ints(0, 0, model.width), True)
    return _norm(ops.add(hidden, _dense(merged, layer["attended"])), layer["attention_norm"])


def _feed(hidden: Any, layer: Any) -> Any:
    inner = ops.relu(_dense(hidden, layer["up"]))
    return _norm(ops.add(hidden, _dense(inner, layer["down"])), layer["output_norm"])


def _heads(model: Student, flat: Any) -> Any:
    """[B, T, H] → [B, N, T, H ÷ N]."""
    shape = _ints(0, 0, model.heads, model.width // model.heads)
    return ops.transpose(ops.reshape(flat, shape, True), _ints(0, 2, 1, 3))


def _bias(mask: Any) -> Any:
    """[B, 1, 1, T]: what is added to attention's scores; padding gets none of it."""
    there = ops.unsqueeze(ops.unsqueeze(ops.convert(mask, "f32"), _ints(1)), _ints(1))
    return ops.multiply(ops.subtract(_float(1.0), there), _float(-1e9))


def _dense(inputs: Any, pair: Any) -> Any:
    weight, bias = pair
    scale = np.full((1, 1), 1 / weight.scale, np.float32)
    wide = ops.multiply(ops.convert(ops.constant(weight.values), "f32"), ops.constant(scale))
    result = ops.matmul(inputs, wide, False, True)
    return result if bias is None else ops.add(result, ops.constant(bias))


def _norm(inputs: Any, pair: Any) -> Any:
    centred = ops.mvn(inputs, _ints(2), True, EPSILON, "inside_sqrt")
    return ops.add(ops.multiply(centred, ops.constant(pair[0])), ops.constant(pair[1]))


def _input(shape: list[int], kind: Any, name: str) -> Any:
    parameter = ops.parameter(shape, kind, name=name)
    parameter.output(0).set_names({name})
    return parameter


def _output(port: Any, name: str) -> Any:
    port.output(0).set_names({name})
    return ops.result(port)


def _float(value: float) -> Any:
    return ops.constant(np.float32(value))


def _int(value: int) -> Any:
    return ops.constant(np.int64(value))


def _ints(*values: int) -> Any:
    return ops.constant(np.array(values, dtype=np.int64))
