"""Recurrent networks that were unrolled over time, rolled up again.

Keras writes a recurrent layer as its operations over again for each step, where its length is
known. JAX would compile each of them, which takes minutes where there are hundreds of steps; the
same operations within one ``jax.lax.scan`` take a second.

A layer is found by what it reads at each step: ``Gather`` from one array at the places 0, 1, 2, …
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from openmaas.runtimes.gradients_graph import Graph, Kind
from openmaas.runtimes.gradients_nodes import Ref
from openmaas.runtimes.gradients_ops import OPERATIONS
from openmaas.runtimes.gradients_steps import FEWEST, Layer, Roll

Unit = int | Roll


def units(graph: Graph) -> list[Unit]:
    """The traced operations in an order that they can be computed in, rolled up where they can
    be."""
    traced = list(graph.steps(Kind.TRACED))
    taken: dict[int, int] = {}
    rolls: list[Roll] = []
    for seeds in _readers(graph, traced):
        roll = Layer(graph, traced, seeds).rolled()
        if roll is None or any(at in taken for step in roll.steps for at in step):
            continue
        owned = taken | dict.fromkeys((at for step in roll.steps for at in step), len(rolls))
        if _order(graph, traced, owned) is not None:
            taken = owned
            rolls.append(roll)
    wanted = set(graph.outputs.values())
    for at in graph.needed:
        if at not in taken:
            wanted |= set(graph.nodes[at].inputs)
    for roll in rolls:
        wanted |= {ref for refs in (roll.first, *_needed(roll)) for ref in refs}
    used = {at for at, _ in wanted} | set(taken)
    order = _order(graph, [at for at in traced if at in used], taken) or []
    return [rolls[-1 - unit] if unit < 0 else unit for unit in order]


def _needed(roll: Roll) -> Iterator[list[Ref]]:
    """What a roll takes from outside, beside its first states."""
    for number, refs in enumerate(roll.each):
        yield [roll.read[number][0]] if number in roll.read else refs
    for slots in roll.slots:
        yield [which for kind, which, _ in slots if kind == "same"]


def _order(graph: Graph, traced: list[int], taken: dict[int, int]) -> list[int] | None:
    """Operations, and rolls as −1, −2, …; ``None`` where one would have to come before itself."""
    needs: dict[int, set[int]] = defaultdict(set)
    known = set(traced)
    for at in traced:
        unit = -1 - taken[at] if at in taken else at
        before = needs[unit]
        for one, _ in graph.nodes[at].inputs:
            if one in known:
                other = -1 - taken[one] if one in taken else one
                if other != unit:
                    before.add(other)
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError:
        return None


def _readers(graph: Graph, traced: list[int]) -> Iterator[list[int]]:
    """Of each array that is read at the places 0, 1, 2, … the operations that do so."""
    groups: dict[Any, dict[int, int]] = defaultdict(dict)
    for at in traced:
        node = graph.nodes[at]
        if node.kind != "Gather" or node.attributes.get("batch_dims", 0):
            continue
        place, axis = (graph.constants.get(ref) for ref in node.inputs[1:3])
        if place is None or axis is None or place.size != 1:
            continue
        groups[node.inputs[0], int(axis.reshape(())), place.ndim].setdefault(
            int(place.reshape(())), at
        )
    for group in groups.values():
        if len(group) >= FEWEST and sorted(group) == list(range(len(group))):
            yield [group[place] for place in range(len(group))]


def run(
    roll: Roll, graph: Graph, seen: Callable[..., Any], compute: Callable[..., list[Any]]
) -> dict[Ref, Any]:
    """What others read of the steps.

    Args:
        seen: the value of a reference, ``static`` of one that is a size or place.
        compute: the outputs of an operation.
    """
    import jax.numpy as jnp
    from jax import lax

    template = [graph.nodes[at] for at in roll.steps[0]]

    def step(state: list[Any], given: list[Any]) -> tuple[list[Any], list[Any]]:
        made: list[list[Any]] = []
        for node, slots in zip(template, roll.slots, strict=True):
            static = OPERATIONS[node.kind].static
            inputs = []
            for port, (kind, which, output) in enumerate(slots):
                if kind == "in":
                    inputs.append(made[which][output])
                elif kind == "same":
                    inputs.append(seen(which, static=port in static))
                else:
                    inputs.append(state[which] if kind == "prev" else given[which])
            made.append(compute(node, inputs))
        after = [made[role][output] for role, output in roll.carried]
        return after, [made[role][output] for role, output in roll.told]

    count = len(roll.steps)
    each = _each(roll, seen)
    first = [jnp.asarray(seen(ref), jnp.float32) for ref in roll.first]
    _, told = lax.scan(step, first, each, length=count)
    values: dict[Ref, Any] = {}
    for ((role, output), numbers), rows in zip(roll.told.items(), told, strict=True):
        if len(numbers) > 1:
            # Taken apart at once: the gradient of a slice is an array of the whole's size.
            parts: Any = lax.split(rows, [1] * count, axis=0)
        else:
            parts = dict.fromkeys(numbers, rows[numbers[0]][None])
        for number in numbers:
            values[roll.steps[number][role], output] = jnp.squeeze(parts[number], 0)
    return values


def _each(roll: Roll, seen: Callable[..., Any]) -> list[Any]:
    """What is another at each step, [steps, …]."""
    import jax.numpy as jnp

    made: list[Any] = []
    for number, refs in enumerate(roll.each):
        if number in roll.read:
            ref, axis, place, stays = roll.read[number]
            array = seen(ref)
            axis %= array.ndim
            rows = jnp.moveaxis(array, axis, 0)[place : place + len(roll.steps)]
            made.append(jnp.expand_dims(rows, axis + 1) if stays else rows)
        else:
            given = [seen(ref) for ref in refs]
            known = all(isinstance(one, np.ndarray) for one in given)
            made.append(np.stack(given) if known else jnp.stack(given))
    return made
