"""Layers that are linear in their weights, and their gradients of single rows.

While a ``Tape`` is in, a layer adds a tap (zeros) to what it computes before its activation: the
gradient of that tap, with what the layer was given, is all that its weights' gradient is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
from jax import lax
from keras import layers, ops

Names = Mapping[str, "Site"]


class Tape:
    """What one pass through the network says.

    Args:
        taps: what each layer adds; None: nothing, it is only looked at which shapes they have.
    """

    def __init__(self, taps: Mapping[str, tuple[Any, ...]] | None) -> None:
        self.kept: dict[str, Any] = {}
        self.shapes: dict[str, tuple[Any, ...]] = {}
        self.calls: dict[str, int] = {}
        self._taps = taps

    def tap(self, name: str, kept: tuple[Any, ...], *values: Any) -> tuple[Any, ...]:
        """Values with their taps added; ``kept`` is remembered."""
        self.calls[name] = self.calls.get(name, 0) + 1
        shape: Any = jax.ShapeDtypeStruct
        self.shapes[name] = tuple(shape(one.shape, one.dtype) for one in values)
        if self._taps is None:
            return values
        self.kept[name] = kept
        return tuple(one + tap for one, tap in zip(values, self._taps[name], strict=True))

    def taps(self, name: str) -> tuple[Any, ...]:
        assert self._taps is not None
        return self._taps[name]

    @property
    def looking(self) -> bool:
        return self._taps is None


# --- gradients of single rows -----------------------------------------------------------------
# The first dimension of each array is the row.


class Whole(NamedTuple):
    """As it stands."""

    gradient: Any  # [rows, *weight]

    def squares(self) -> Any:
        return jnp.sum(jnp.square(self.gradient), tuple(range(1, self.gradient.ndim)))

    def cleaned(self, fine: Any) -> Whole:
        return Whole(_cleaned(self.gradient, fine))

    def sum(self, factors: Any, shape: tuple[int, ...]) -> Any:
        return jnp.tensordot(factors, self.gradient, 1)


class Outer(NamedTuple):
    """Of a matrix, one column times one row."""

    column: Any  # [rows, in]
    row: Any  # [rows, out]

    def squares(self) -> Any:
        return jnp.sum(jnp.square(self.column), 1) * jnp.sum(jnp.square(self.row), 1)

    def cleaned(self, fine: Any) -> Outer:
        return Outer(_cleaned(self.column, fine), _cleaned(self.row, fine))

    def sum(self, factors: Any, shape: tuple[int, ...]) -> Any:
        return (self.column * factors[:, None]).T @ self.row


class Scattered(NamedTuple):
    """Of a table, the rows that were looked up, each once."""

    places: Any  # [rows, n]
    gradients: Any  # [rows, n, size]

    def squares(self) -> Any:
        return jnp.sum(jnp.square(self.gradients), (1, 2))

    def cleaned(self, fine: Any) -> Scattered:
        return Scattered(self.places, _cleaned(self.gradients, fine))

    def sum(self, factors: Any, shape: tuple[int, ...]) -> Any:
        weighed = self.gradients * factors[:, None, None]
        zeros = jnp.zeros(shape, self.gradients.dtype)
        return zeros.at[self.places.ravel()].add(weighed.reshape(-1, shape[1]))


def _cleaned(array: Any, fine: Any) -> Any:
    return jnp.where(fine.reshape(-1, *[1] * (array.ndim - 1)), array, 0)


def _product(given: Any, delta: Any) -> Whole | Outer:
    """Of a matrix, from what came in [n, in] and the gradient of what went out [n, out]."""
    if given.shape[0] == 1:
        return Outer(given[0], delta[0])
    return Whole(given.T @ delta)


# --- layers -----------------------------------------------------------------------------------


class Site:
    """One layer. ``parts`` is of a single row."""

    method = "call"  # of the layer, that ``run`` takes the place of

    def __init__(self, name: str, layer: Any) -> None:
        self.name = name
        self.layer = layer

    @property
    def variables(self) -> list[Any]:
        """Those whose gradients ``parts`` gives, in order."""
        return [one for one in (self.layer.kernel, self.layer.bias) if one is not None]

    def run(self, tape: Tape, *given: Any, **options: Any) -> Any:
        raise NotImplementedError

    def parts(self, kept: tuple[Any, ...], deltas: tuple[Any, ...]) -> list[Any]:
        raise NotImplementedError


class Dense(Site):
    def run(self, tape: Tape, *given: Any, **options: Any) -> Any:
        layer, (inputs,) = self.layer, given
        x = ops.matmul(inputs, layer.kernel)
        (x,) = tape.tap(self.name, (inputs,), x if layer.bias is None else x + layer.bias)
        return x if layer.activation is None else layer.activation(x)

    def parts(self, kept: tuple[Any, ...], deltas: tuple[Any, ...]) -> list[Any]:
        given = kept[0].reshape(-1, kept[0].shape[-1])
        delta = deltas[0].reshape(-1, deltas[0].shape[-1])
        found: list[Any] = [_product(given, delta)]
        return found if self.layer.bias is None else [*found, Whole(delta.sum(0))]


class Convolution(Site):
    def run(self, tape: Tape, *given: Any, **options: Any) -> Any:
        layer, (inputs,) = self.layer, given
        x = layer.convolution_op(inputs, layer.kernel)
        (x,) = tape.tap(self.name, (inputs,), x if layer.bias is None else x + layer.bias)
        return x if layer.activation is None else layer.activation(x)

    def parts(self, kept: tuple[Any, ...], deltas: tuple[Any, ...]) -> list[Any]:
        delta = deltas[0].reshape(-1, deltas[0].shape[-1])
        patches = self._patches(kept[0])
        gradient = patches.reshape(len(delta), -1).T @ delta
        found = [Whole(gradient.reshape(self.layer.kernel.shape))]
        return found if self.layer.bias is None else [*found, Whole(delta.sum(0))]

    def _patches(self, inputs: Any) -> Any:
        """[1, *places, *kernel, channels]: what the kernel sees at each place."""
        layer, sides = self.layer, inputs.shape[1:-1]
        reach = [1 + (side - 1) * step for side, step in _pairs(layer)]
        pads = lax.padtype_to_pads(sides, reach, layer.strides, layer.padding.upper())
        wide = jnp.pad(inputs, [(0, 0), *pads, (0, 0)])
        ends = [
            (size + sum(pad) - one) // stride + 1
            for size, pad, one, stride in zip(sides, pads, reach, layer.strides, strict=True)
        ]
        cuts = []
        for at in _places(layer.kernel_size):
            starts = [one * step for one, step in zip(at, layer.dilation_rate, strict=True)]
            cut = tuple(
                slice(start, start + (end - 1) * stride + 1, stride)
                for start, end, stride in zip(starts, ends, layer.strides, strict=True)
            )
            cuts.append(wide[(slice(None), *cut)])
        return jnp.stack(cuts, -2)


class Embedding(Site):
    @property
    def variables(self) -> list[Any]:
        return [self.layer._embeddings]

    def run(self, tape: Tape, *given: Any, **options: Any) -> Any:
        places = given[0].astype("int32")
        found = ops.take(self.layer.embeddings, places, axis=0)
        (x,) = tape.tap(self.name, (places,), ops.cast(found, self.layer.compute_dtype))
        return x

    def parts(self, kept: tuple[Any, ...], deltas: tuple[Any, ...]) -> list[Any]:
        """A word that stands there twice has one gradient, the sum of both."""
        places = kept[0].ravel()
        order = jnp.argsort(places)
        places, delta = places[order], deltas[0].reshape(len(places), -1)[order]
        first = jnp.concatenate([jnp.zeros(1, bool), places[1:] != places[:-1]])
        group = jnp.cumsum(first)
        summed = jax.ops.segment_sum(delta, group, len(places))
        named = jnp.zeros_like(places).at[group].set(places)
        return [Scattered(named, summed)]


class _Recurrent(Site):
    """The loop over time, with taps at each step."""

    method = "inner_loop"
    gates: int

    @property
    def variables(self) -> list[Any]:
        cell = self.layer.cell
        found = [cell.kernel, cell.recurrent_kernel]
        return found if cell.bias is None else [*found, cell.bias]

    def run(self, tape: Tape, *given: Any, **options: Any) -> Any:
        layer, mask = self.layer, options["mask"]
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        seen = jnp.swapaxes(options["sequences"], 0, 1)  # time first
        told = jnp.ones(seen.shape[:2], bool) if mask is None else jnp.swapaxes(mask, 0, 1)
        if layer.go_backwards:
            seen, told = seen[::-1], told[::-1]
        first = self._given(seen)
        zeros = jnp.zeros((*seen.shape[:2], self.gates * layer.cell.units), seen.dtype)
        if tape.looking:
            tape.tap(self.name, (), first, zeros)
            second = zeros
        else:
            first, second = first + tape.taps(self.name)[0], tape.taps(self.name)[1]

        def step(carry: Any, now: Any) -> Any:
            states, before = carry
            there = now[2][:, None]
            new = self._step(now[0], now[1], states)
            output = jnp.where(there, new[0], jnp.zeros_like(before)
                               if layer.zero_output_for_mask else before)  # fmt: skip
            after = [jnp.where(there, a, b) for a, b in zip(new, states, strict=True)]
            return (after, output), (output, states[0])

        states = list(options["initial_state"])
        carry = (states, jnp.zeros_like(states[0]))
        (states, _), (outputs, before) = lax.scan(step, carry, (first, second, told))
        if not tape.looking:
            tape.kept[self.name] = (seen, before)
            tape.calls[self.name] = 1
        return outputs[-1], jnp.swapaxes(outputs, 0, 1), states

    def _given(self, seen: Any) -> Any:
        raise NotImplementedError

    def _step(self, given: Any, tap: Any, states: list[Any]) -> list[Any]:
        raise NotImplementedError

    def parts(self, kept: tuple[Any, ...], deltas: tuple[Any, ...]) -> list[Any]:
        given, before = (one[:, 0] for one in kept)
        first, second = (one[:, 0] for one in deltas)
        found = [Whole(given.T @ first), Whole(before.T @ second)]
        return found if self.layer.cell.bias is None else [*found, self._bias(first, second)]

    def _bias(self, first: Any, second: Any) -> Whole:
        return Whole(first.sum(0))


class Lstm(_Recurrent):
    gates = 4

    def _given(self, seen: Any) -> Any:
        cell = self.layer.cell
        found = ops.matmul(seen, cell.kernel)
        return found if cell.bias is None else found + cell.bias

    def _step(self, given: Any, tap: Any, states: list[Any]) -> list[Any]:
        cell, (hidden, carried) = self.layer.cell, states
        z = given + ops.matmul(hidden, cell.recurrent_kernel) + tap
        i, f, c, o = jnp.split(z, 4, -1)
        gate = cell.recurrent_activation
        carried = gate(f) * carried + gate(i) * cell.activation(c)
        return [gate(o) * cell.activation(carried), carried]


class Gru(_Recurrent):
    """As Keras's default has it, ``reset_after``: with a bias of its own for what was before."""

    gates = 3

    def _given(self, seen: Any) -> Any:
        cell = self.layer.cell
        found = ops.matmul(seen, cell.kernel)
        return found if cell.bias is None else found + ops.convert_to_tensor(cell.bias)[0]

    def _step(self, given: Any, tap: Any, states: list[Any]) -> list[Any]:
        cell, (hidden,) = self.layer.cell, states
        inner = ops.matmul(hidden, cell.recurrent_kernel) + tap
        if cell.bias is not None:
            inner = inner + ops.convert_to_tensor(cell.bias)[1]
        x_z, x_r, x_h = jnp.split(given, 3, -1)
        h_z, h_r, h_h = jnp.split(inner, 3, -1)
        z, r = cell.recurrent_activation(x_z + h_z), cell.recurrent_activation(x_r + h_r)
        return [z * hidden + (1 - z) * cell.activation(x_h + r * h_h)]

    def _bias(self, first: Any, second: Any) -> Whole:
        return Whole(jnp.stack([first.sum(0), second.sum(0)]))


def of(model: Any) -> dict[str, Site]:
    """The sites of a network by their names: those of its own layers, and within networks and
    directions in it. Layers within other layers may be called in loops, where no tap reaches."""
    found: dict[str, Site] = {}

    def add(layer: Any) -> None:
        if isinstance(layer, keras.Model):
            for one in layer.layers:
                add(one)
        elif type(layer) is layers.Bidirectional:
            add(layer.forward_layer)
            add(layer.backward_layer)
        elif (kind := _kind(layer)) is not None and all(
            one.trainable for one in kind("", layer).variables
        ):
            name = f"{len(found):04}"
            found[name] = kind(name, layer)

    add(model)
    return found


def _kind(layer: Any) -> type[Site] | None:
    kind = type(layer)
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return None
    if kind is layers.Dense:
        return Dense
    if kind is layers.Embedding:
        return Embedding
    if kind in (layers.Conv1D, layers.Conv2D, layers.Conv3D):
        plain = layer.groups == 1 and layer.data_format == "channels_last"
        return Convolution if plain and layer.padding in ("valid", "same") else None
    if kind in (layers.LSTM, layers.GRU):
        cell = layer.cell
        if layer.stateful or cell.dropout or cell.recurrent_dropout:
            return None
        if kind is layers.LSTM:
            return Lstm
        return Gru if cell.reset_after else None
    return None


@contextmanager
def tapped(sites: Names, tape: Tape) -> Iterator[None]:
    """The layers as they are while a program is traced; plain again afterwards."""
    with ExitStack() as stack:
        for site in sites.values():
            put = _put(site, tape)
            stack.callback(put)
        yield


def _put(site: Site, tape: Tape) -> Any:
    def run(*given: Any, **options: Any) -> Any:
        return site.run(tape, *given, **options)

    # Past Keras, which would take it for a part of the layer.
    object.__setattr__(site.layer, site.method, run)
    return lambda: object.__delattr__(site.layer, site.method)


def _pairs(layer: Any) -> Iterator[tuple[int, int]]:
    return zip(layer.kernel_size, layer.dilation_rate, strict=True)


def _places(sides: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if not sides:
        yield ()
        return
    for first in range(sides[0]):
        for rest in _places(sides[1:]):
            yield (first, *rest)
