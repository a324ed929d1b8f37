"""The two graphs of a trained sequence-to-sequence network, as they are served.

Shapes: B texts, S source tokens, T tokens of an answer at most, V tokens known, D width. Token ids
are int64, 0 stands for padding at the end. S and T are fixed, or free.

``encoder``: ``source`` [B, S] → memory [B, S, D] and perhaps first states, each [B, D].
``decoder``: of ``source``, ``memory`` and ``state_0``, ``state_1`` … what the network takes, and
``token`` [B, 1], the last one, or ``tokens`` [B, T], all so far, with ``position`` [B, 1], the
place of the last → the next token int32 [B], its natural log-probability [B], the new states.
Outputs go by their order: one tensor may be two of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

from openmaas.errors import ArtifactRefused

SOURCE, MEMORY, TOKEN, TOKENS, POSITION = "source", "memory", "token", "tokens", "position"
IDS = (SOURCE, TOKEN, TOKENS, POSITION)


def encoder(network: openvino.Model) -> openvino.Model:
    """
    Raises:
        ArtifactRefused: it is no such network.
    """
    if len(network.inputs) != 1 or len(network.inputs[0].get_partial_shape()) != 2:
        raise ArtifactRefused("The encoder takes anything but one row of token ids a text.")
    parameters = [_as_ids(network.inputs[0], SOURCE)]
    results = []
    for at, port in enumerate(network.outputs):
        rank = len(port.get_partial_shape())
        if rank != (2 if at else 3):
            raise ArtifactRefused(f"Output {at} of the encoder has {rank} dimensions.")
        results.append(_result(port))
    return openvino.Model(results, parameters, "reads")


def decoder(network: openvino.Model, states: int) -> openvino.Model:
    """
    Args:
        states: how many the encoder gives.

    Raises:
        ArtifactRefused: it is no such network.
    """
    names = {port.any_name for port in network.inputs}
    state = {f"state_{at}" for at in range(states)}
    written = {TOKENS, POSITION} if TOKENS in names else {TOKEN}
    if not written | state <= names <= written | state | {SOURCE, MEMORY}:
        raise ArtifactRefused(
            f"The decoder takes {', '.join(sorted(names))[:200]}, not {', '.join(sorted(written))}"
            f"{''.join(', ' + name for name in sorted(state))}, {SOURCE} and {MEMORY}."
        )
    if len(network.outputs) != 1 + states:
        raise ArtifactRefused(
            f"The decoder gives {len(network.outputs)} outputs: scores and {states} states."
        )
    parameters = []
    for port in network.inputs:
        is_ids = port.any_name in IDS
        parameters.append(_as_ids(port, port.any_name) if is_ids else port.get_node())
    scores = _logits(network.outputs[0])
    best = ops.topk(scores, ops.constant(np.int64(1)), 1, "max", "value", "i32")
    # The greatest score's own log-softmax: minus the logarithm of the sum of all others' odds.
    odds = ops.reduce_sum(ops.exp(ops.subtract(scores, best.output(0))), _axis(1), False)
    logprob = ops.negative(ops.log(odds))
    results = [
        ops.result(ops.squeeze(best.output(1), _axis(1))),
        ops.result(logprob),
        *map(_result, network.outputs[1:]),
    ]
    return openvino.Model(results, parameters, "writes")


def _logits(port: Any) -> Any:
    """What the scores' last softmax reads, where there is one: [B, V]."""
    if len(port.get_partial_shape()) != 2:
        raise ArtifactRefused("The decoder does not answer one row of scores a text.")
    value = port.get_node().input_value(0)
    node = value.get_node()
    if node.get_type_name() == "Softmax":
        value = node.input_value(0)
    return ops.convert(value, "f32").output(0)


def _as_ids(port: Any, name: str) -> Any:
    """An int64 parameter in the place of one of any type."""
    shape = port.get_partial_shape()
    made = ops.parameter(shape, np.int64, name=name)
    made.output(0).set_names({name})
    given = ops.convert(made, port.get_element_type().get_type_name())
    for target in port.get_target_inputs():
        target.replace_source_output(given.output(0))
    return made


def _result(port: Any) -> Any:
    return ops.result(ops.convert(port.get_node().input_value(0), "f32"))


def _axis(number: int) -> Any:
    return ops.constant(np.array([number], np.int64))
