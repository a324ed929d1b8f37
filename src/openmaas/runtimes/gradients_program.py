"""A graph's operations as JAX compiles them: one number of an output and its gradients, at many
points in one call.

What callers' whole numbers come to is an argument of what is compiled, as the weights are, so that
another text of the same length compiles nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from openmaas.runtimes import gradients_rolling
from openmaas.runtimes.gradients_graph import Graph, Kind
from openmaas.runtimes.gradients_nodes import Array, Ref, compute
from openmaas.runtimes.gradients_ops import OPERATIONS
from openmaas.runtimes.gradients_plan import Plan, for_jax
from openmaas.runtimes.gradients_rolling import Unit
from openmaas.runtimes.gradients_steps import Roll

Head = Literal["softmax", "sigmoid"]
MOST_PLANS = 32  # kept, the longest unused are dropped first
# Rows of a call: 64 steps on a way with both its ends, and less where there are few.
ROWS = (2, 17, 65)
# Values of so many bytes in all of them are computed sooner than a smaller call is compiled.
ONE_SIZE = 64 << 20
# What the values of a call may take, all together; of wide networks a call has fewer rows.
CALL_BYTES = 512 << 20
SMALL = 64  # numbers that are part of what is compiled: exponents, scales, places
# Operations from which on XLA's own passes would take minutes, as of a network that was unrolled
# over time.
MANY = 1500


class Program:
    """One output of a plan.

    Args:
        head: what becomes of the output's last axis before a number of it is explained.
        weights: large constants, on the device.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        output: str,
        head: Head | None,
        weights: dict[Ref, Any],
        units: list[Unit],
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._output = output
        self._head = head
        self._weights = weights
        self._units = units
        most = int(np.clip(CALL_BYTES // max(1, plan.row_bytes), 1, ROWS[-1]))
        self._most = -(-ROWS[-1] // -(-ROWS[-1] // most))  # calls of the same size
        small = plan.row_bytes * ROWS[-1] <= ONE_SIZE
        self._sizes = [] if small else [rows for rows in ROWS if rows < self._most]
        self._run = self._compiled()

    def forward(self, leaves: list[Array], data: list[Array]) -> Array:
        """The whole output where the leaves are these, operation by operation: nothing is compiled
        but each operation for itself."""
        return np.asarray(self._answer(leaves, data, self._weights))

    def __call__(
        self, data: list[Array], number: int, points: Sequence[Array], mix: Array
    ) -> tuple[Array, list[Array]]:
        """The output's number at each point, and sums of its gradients there.

        Args:
            data: as ``Reading`` has it.
            number: of the output, counted row-major.
            points: of each leaf [P, …].
            mix: how much of each point's gradient is in each sum, [2, P].

        Returns:
            [P], and of each leaf [2, …]; float64.
        """
        count, at = mix.shape[1], 0
        # One size for all, so that no other is compiled for what is left at the end.
        rows = min([one for one in self._sizes if count <= one] + [self._most])
        values, sums = [], [np.zeros((2, *one.shape[1:])) for one in points]
        while at < count:
            end = min(count, at + rows)
            given = [_filled(one[at:end], rows) for one in points]
            share = np.zeros((2, rows), np.float32)
            share[:, : end - at] = mix[:, at:end]
            found, slopes = self._run(given, share, data, self._weights, number)
            values.append(np.asarray(found, np.float64)[: end - at])
            for total, one in zip(sums, slopes, strict=True):
                total += np.asarray(one, np.float64)
            at = end
        return np.concatenate(values), sums

    def _compiled(self) -> Callable[..., Any]:
        import jax
        import jax.numpy as jnp

        def one(leaves: list[Any], data: list[Any], weights: Any, number: Any) -> Any:
            return jnp.reshape(self._answer(leaves, data, weights), -1)[number]

        def run(points: list[Any], mix: Any, data: list[Any], weights: Any, number: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                each = jax.vmap(jax.value_and_grad(one), in_axes=(0, None, None, None))
                values, slopes = each(points, data, weights, number)
                return values, [jnp.tensordot(mix, slope, 1) for slope in slopes]

        many = len(self._units) > MANY and jax.default_backend() == "cpu"
        options = {"xla_backend_optimization_level": 0} if many else None
        return jax.jit(run, compiler_options=options)

    def _answer(self, leaves: list[Any], data: list[Any], weights: Any) -> Any:
        """The output where the leaves are these."""
        import jax
        import jax.numpy as jnp

        graph, plan = self._graph, self._plan
        values: dict[Ref, Any] = dict(zip(plan.data, data, strict=True)) | weights
        values |= {(leaf.node, 0): one for leaf, one in zip(graph.leaves, leaves, strict=True)}

        def seen(ref: Ref, *, static: bool = False) -> Any:
            return plan.fixed(ref, static=static) if static or ref not in values else values[ref]

        for unit in self._units:
            if isinstance(unit, Roll):
                values |= gradients_rolling.run(unit, graph, seen, compute)
                continue
            node = graph.nodes[unit]
            static = OPERATIONS[node.kind].static
            inputs = [seen(ref, static=port in static) for port, ref in enumerate(node.inputs)]
            values |= {(unit, port): one for port, one in enumerate(compute(node, inputs))}
        answer = jnp.asarray(seen(graph.outputs[self._output]), jnp.float32)
        if self._head == "softmax":
            return jax.nn.softmax(answer, axis=-1)
        return jax.nn.sigmoid(answer) if self._head == "sigmoid" else answer


class Reading(NamedTuple):
    """Inputs of one row, ready to be explained.

    Attributes:
        leaves: of each of the graph's leaves its numbers.
        data: what NumPy has computed for the plan's operations.
        programs: the plan's, by output.
    """

    plan: Plan
    leaves: list[Array]
    data: list[Array]
    programs: dict[str, Program]
    make: Callable[[str], Program]

    def program(self, output: str) -> Program:
        if output not in self.programs:
            self.programs[output] = self.make(output)
        return self.programs[output]


class Plans:
    """The plans of one graph, and what was compiled for each.

    Args:
        head: see ``Program``.
    """

    def __init__(self, graph: Graph, head: Head | None = None) -> None:
        self.graph = graph
        self._head = head
        self._kept: OrderedDict[Any, tuple[Plan, dict[str, Program]]] = OrderedDict()
        self._units = gradients_rolling.units(graph)
        self._weights = _weights(graph)

    def read(self, given: dict[str, Array]) -> Reading:
        """What the inputs, by name, come to.

        Raises:
            ArtifactRefused: an operation in a form that is not known here.
        """
        graph = self.graph
        key: list[Any] = [(name, one.shape) for name, one in sorted(given.items())]
        if graph.ragged:  # sizes hang on values: those belong to the key
            key += [one.tobytes() for _, one in sorted(given.items()) if one.dtype.kind != "f"]
        by_node = {graph.inputs[name]: one for name, one in given.items()}
        found = self._kept.get(tuple(key))
        if found is None:
            found = Plan(graph, by_node, self._weights), {}
            while len(self._kept) >= MOST_PLANS:
                self._kept.popitem(last=False)
            self._kept[tuple(key)] = found
        self._kept.move_to_end(tuple(key))
        plan, programs = found
        known = plan.known_of(by_node)
        return Reading(
            plan,
            [plan.leaf(leaf, by_node, known) for leaf in graph.leaves],
            [for_jax(known[ref]) for ref in plan.data],
            programs,
            lambda output: Program(graph, plan, output, self._head, self._weights, self._units),
        )


def _filled(rows: Array, count: int) -> Array:
    """With the last row again, up to so many."""
    rows = rows.astype(np.float32, copy=False)
    if len(rows) == count:
        return rows
    return np.concatenate([rows, rows[-1:].repeat(count - len(rows), 0)])


def _weights(graph: Graph) -> dict[Ref, Any]:
    """Constants that are arguments of what is compiled, on the device once. Of the others the
    graph keeps those that are used."""
    import jax.numpy as jnp

    leaves = {leaf.node for leaf in graph.leaves}
    wanted, kept = dict[Ref, None](), set(graph.outputs.values())
    for at in graph.needed:
        node, kind = graph.nodes[at], graph.kinds[at]
        if kind == Kind.CONSTANT or at in leaves:
            continue
        static = OPERATIONS[node.kind].static if node.kind in OPERATIONS else ()
        for port, ref in enumerate(node.inputs):
            found = graph.constants.get(ref)
            if found is None:
                continue
            if kind != Kind.TRACED or port in static or found.size <= SMALL:
                kept.add(ref)
            else:
                wanted[ref] = None
    chosen = [ref for ref in wanted if ref not in kept]
    weights = {ref: jnp.asarray(for_jax(graph.constants[ref])) for ref in chosen}
    graph.constants = {ref: one for ref, one in graph.constants.items() if ref in kept}
    return weights
