"""Operations for the interpreter of ``gradients_graph`` that go step by step through time; see
``gradients_ops``.

B rows, T steps, I numbers read at each, H remembered. Sources: Hochreiter and Schmidhuber 1997
(LSTM), Cho et al. 2014 (GRU), in the forms of OpenVINO's ``LSTMSequence`` and ``GRUSequence``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from openmaas.errors import ArtifactRefused
from openmaas.runtimes.gradients_ops import operation

State = tuple[Any, ...]
MOST_STEPS = 4096  # of a loop, each of which becomes operations of their own


def _activations(node: Any, usual: list[str]) -> list[Callable[[Any], Any]]:
    import jax
    import jax.numpy as jnp

    known = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu}
    names = [str(name).lower() for name in node.attributes.get("activations") or usual]
    if node.attributes.get("clip") or not set(names) <= set(known):
        raise ArtifactRefused(f"{node.kind} {node.name!r} with activations of its own")
    return [known[name] for name in names]


def _lstm_step(node: Any) -> Callable[..., State]:
    import jax.numpy as jnp

    gate, cell, out = _activations(node, ["sigmoid", "tanh", "tanh"])

    def step(x: Any, state: State, weight: Any, recurrent: Any, bias: Any) -> State:
        hidden, kept = state
        forget, enter, new, show = jnp.split(x @ weight.T + hidden @ recurrent.T + bias, 4, axis=-1)
        kept = gate(forget) * kept + gate(enter) * cell(new)
        return gate(show) * out(kept), kept

    return step


def _gru_step(node: Any) -> Callable[..., State]:
    import jax.numpy as jnp

    gate, cell = _activations(node, ["sigmoid", "tanh"])
    before = bool(node.attributes.get("linear_before_reset"))

    def step(x: Any, state: State, weight: Any, recurrent: Any, bias: Any) -> State:
        (hidden,) = state
        update, reset, new = jnp.split(x @ weight.T, 3, axis=-1)
        to_update, to_reset, to_new = jnp.split(recurrent, 3, axis=0)
        biases = jnp.split(bias, 4 if before else 3, axis=-1)
        update = gate(update + hidden @ to_update.T + biases[0])
        reset = gate(reset + hidden @ to_reset.T + biases[1])
        if before:  # a bias of its own, within what is reset
            new = cell(new + reset * (hidden @ to_new.T + biases[3]) + biases[2])
        else:
            new = cell(new + (reset * hidden) @ to_new.T + biases[2])
        return ((1 - update) * new + update * hidden,)

    return step


def _rnn_step(node: Any) -> Callable[..., State]:
    (out,) = _activations(node, ["tanh"])

    def step(x: Any, state: State, weight: Any, recurrent: Any, bias: Any) -> State:
        return (out(x @ weight.T + state[0] @ recurrent.T + bias),)

    return step


_STEPS = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}


@operation("LSTMCell", "GRUCell", "RNNCell", jax_only=True)
def _cell(node: Any, xp: Any, x: Any, *rest: Any) -> Any:
    step = _STEPS[node.kind.removesuffix("Cell")](node)
    states, weights = rest[:-3], rest[-3:]
    return list(step(x, states, *weights))


@operation("LSTMSequence", "GRUSequence", "RNNSequence", jax_only=True)
def _sequence(node: Any, xp: Any, x: Any, *rest: Any) -> Any:
    """[B, T, I] → [B, directions, T, H] and the last states [B, directions, H]."""
    step = _STEPS[node.kind.removesuffix("Sequence")](node)
    *states, lengths, weight, recurrent, bias = rest
    direction = str(node.attributes["direction"]).lower()
    backwards = {"forward": [False], "reverse": [True]}.get(direction, [False, True])
    found = [
        _one_way(
            step,
            x,
            tuple(state[:, at] for state in states),
            lengths,
            (weight[at], recurrent[at], bias[at]),
            turned,
        )
        for at, turned in enumerate(backwards)
    ]
    return [xp.stack([one[part] for one in found], axis=1) for part in range(1 + len(states))]


def _one_way(
    step: Any, x: Any, state: State, lengths: Any, weights: Any, turned: bool
) -> list[Any]:
    """Steps beyond a row's length answer 0 and leave its state as it is; backwards begins at a
    row's own end."""
    import jax.numpy as jnp
    from jax import lax

    count = x.shape[1]
    steps = np.arange(count)

    def one(state: State, given: tuple[Any, Any]) -> tuple[State, Any]:
        row, there = given
        after = step(row, state, *weights)
        kept = tuple(jnp.where(there, new, old) for new, old in zip(after, state, strict=True))
        return kept, jnp.where(there, after[0], 0)

    there = (steps[:, None] < jnp.reshape(lengths, (1, -1)))[:, :, None]  # [T, B, 1]
    last, outputs = lax.scan(one, state, (jnp.swapaxes(x, 0, 1), there), reverse=turned)
    return [jnp.swapaxes(outputs, 0, 1), *last]


@operation("TensorIterator")
@operation("Loop", static=(0, 1))
def _loop(node: Any, xp: Any, *inputs: Any) -> Any:
    """Its steps one after another, as many as its inputs say; a body that ends itself by what it
    has computed is refused."""
    body = node.body
    carried = {into: inputs[port] for port, into in body.given.items()}
    count = _count(node, inputs)
    parts: dict[int, list[Any]] = {output: [] for output in body.joined}
    values: list[Any] = []
    for step in range(count):
        for port, into, axis, begin, by, width in body.sliced:
            carried[into] = _part(inputs[port], axis, begin, by, width, step)
        if body.counter is not None:
            carried[body.counter] = np.full(body.counter_shape, step, body.counter_type)
        values = body.run(carried)
        for output, joined in body.joined.items():
            parts[output].append(values[joined.value])
        for into, value in body.merged.items():
            carried[into] = values[value]
        if body.condition is not None and not _goes_on(node, values[body.condition]):
            break
    outputs: list[Any] = [None] * node.outputs
    for output, joined in body.joined.items():
        found = parts[output] if joined.by > 0 else parts[output][::-1]
        outputs[output] = xp.concatenate(found, axis=joined.axis)
    for output, value in body.last.items():
        outputs[output] = values[value]
    return outputs


def _count(node: Any, inputs: Any) -> int:
    """Steps: those of the sliced inputs, or what the first input of a ``Loop`` says."""
    body = node.body
    told = -1
    if node.kind == "Loop":
        if not all(isinstance(one, np.ndarray) for one in inputs[:2]):
            raise ArtifactRefused(f"Loop {node.name!r} goes on for as long as its values say")
        told = int(inputs[0].reshape(())) if inputs[1].reshape(()) else 0
    sizes = [inputs[port].shape[axis] // abs(by) for port, _, axis, _, by, _ in body.sliced]
    steps: int = min([told if told >= 0 else MOST_STEPS + 1, *sizes])
    if not 0 < steps <= MOST_STEPS:
        raise ArtifactRefused(f"{node.kind} {node.name!r} makes no sane number of steps")
    return steps


def _part(array: Any, axis: int, begin: int, by: int, width: int, step: int) -> Any:
    size = array.shape[axis]
    first = begin + size if begin < 0 else begin
    first = first + step * by if by > 0 else first + step * by - width + 1
    chosen = [slice(None)] * array.ndim
    chosen[axis] = slice(first, first + width)
    return array[tuple(chosen)]


def _goes_on(node: Any, value: Any) -> bool:
    if not isinstance(value, np.ndarray | np.generic | bool):
        raise ArtifactRefused(f"Loop {node.name!r} ends itself by what it has computed")
    return bool(np.asarray(value).reshape(()))
