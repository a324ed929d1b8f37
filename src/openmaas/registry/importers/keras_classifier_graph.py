"""A Keras network within a graph that takes ids and mask, and answers logits.

Shapes: B texts, T tokens of the longest, L tokens that the network always reads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import openvino
from openvino import opset13 as ops

IDS, MASK = "input_ids", "attention_mask"


class Padding(NamedTuple):
    id: int
    left: bool  # before the text, as ``keras.utils.pad_sequences`` does


def last_activation(network: openvino.Model) -> str | None:
    """``Softmax`` (over the answer's numbers) or ``Sigmoid``, where the network ends in one."""
    node = network.outputs[0].get_node().input_value(0).get_node()
    kind = str(node.get_type_name())
    if kind == "Sigmoid" or (kind == "Softmax" and node.get_attributes()["axis"] in (1, -1)):
        return kind
    return None


def build(network: openvino.Model, length: int | None, padding: Padding) -> openvino.Model:
    """``input_ids`` and ``attention_mask`` int64 [B, T] → ``logits`` float32 [B, labels]. A
    network of any length without a mask has no ``attention_mask``: nothing can be padded then.

    A single number becomes the second of two logits, whose first is 0: the softmax of both is
    the sigmoid of one.
    """
    ids = _input(IDS)
    masked = length is not None or len(network.inputs) > 1
    inputs = [ids, _input(MASK)] if masked else [ids]
    placed, there = ids, inputs[-1]
    if length is not None:
        placed, there = _placed(ids, inputs[1], length, padding)
    last = last_activation(network)
    for port in network.inputs:
        own = there if port.any_name == MASK else placed
        given = ops.convert(own, port.get_element_type().get_type_name())
        for target in port.get_target_inputs():
            target.replace_source_output(given.output(0))
    logits = network.outputs[0].get_node().input_value(0)
    if last is not None:
        logits = logits.get_node().input_value(0)
    logits = ops.convert(logits, "f32")
    if network.outputs[0].get_partial_shape()[1].get_length() == 1:
        logits = ops.concat([ops.multiply(logits, ops.constant(np.float32(0))), logits], 1)
    logits.output(0).set_names({"logits"})
    return openvino.Model([ops.result(logits)], inputs, "keras classifier")


def _placed(ids: Any, mask: Any, length: int, padding: Padding) -> tuple[Any, Any]:
    """[B, L]: the tokens of each text in their places and padding around them; and where those
    are tokens (bool)."""
    count = ops.reduce_sum(mask, _ints(1), True)  # [B, 1]
    before = ops.subtract(_ints(length), count) if padding.left else ops.subtract(count, count)
    places = ops.constant(np.arange(length, dtype=np.int64)[None])
    at = ops.subtract(places, before)
    there = ops.logical_and(ops.greater_equal(at, _ints(0)), ops.less(at, count))
    last = ops.subtract(ops.gather(ops.shape_of(ids), _ints(1), _ints(0)), _ints(1))
    within = ops.maximum(ops.minimum(at, last), _ints(0))
    placed = ops.select(there, ops.gather_elements(ids, within, 1), _ints(padding.id))
    return placed, there


def _input(name: str) -> Any:
    parameter = ops.parameter([-1, -1], np.int64, name=name)
    parameter.output(0).set_names({name})
    return parameter


def _ints(*values: int) -> Any:
    return ops.constant(np.array(values, dtype=np.int64))
