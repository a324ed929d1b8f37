"""What of a graph NumPy computes for inputs of certain sizes, and what sizes the rest then has."""

from __future__ import annotations

from typing import Any

import numpy as np

from openmaas.errors import ArtifactRefused
from openmaas.runtimes.gradients_graph import Graph, Kind, Leaf
from openmaas.runtimes.gradients_nodes import OTHERWISE, Array, Node, Ref, compute
from openmaas.runtimes.gradients_ops import OPERATIONS

MARK = 1 << 24  # beyond any id
INT32 = np.iinfo(np.int32)


class Plan:
    """Made once for inputs of the same sizes.

    Args:
        given: an input of each of the graph's, by its operation's number.
        weights: see ``gradients_program``.

    Attributes:
        data: what is computed from whole numbers, and the traced operations take.
        row_bytes: of all that is traced for one row.
    """

    def __init__(self, graph: Graph, given: dict[int, Array], weights: dict[Ref, Any]) -> None:
        self._graph = graph
        self._weights = weights
        self._known: dict[Ref, Array] = {}  # what hangs on sizes alone
        self._shapes: dict[Ref, Any] = {}  # of what is traced
        self._alike: dict[Any, list[Any]] = {}  # operations that were already asked their shapes
        self.data: list[Ref] = []
        self._static: dict[Ref, Array] = {}  # sizes and places that hang on values
        self._before: dict[int, list[int]] = {}
        self._walk(given)
        self.row_bytes = sum(int(np.prod(one.shape)) * 4 for one in self._shapes.values())

    # --- what NumPy computes ---------------------------------------------------------------

    def known_of(self, given: dict[int, Array]) -> dict[Ref, Array]:
        """What the whole numbers that were given come to."""
        graph = self._graph
        known = {(at, 0): value for at, value in given.items() if graph.kinds.get(at) == Kind.VALUE}
        for at in graph.steps(Kind.VALUE):
            made = compute(graph.nodes[at], [self._seen(ref, known) for ref in self._inputs(at)])
            known |= {(at, port): value for port, value in enumerate(made)}
        return known

    def leaf(self, leaf: Leaf, given: dict[int, Array], known: dict[Ref, Array]) -> Array:
        """The numbers of a leaf."""
        if leaf.table is None:
            return given[leaf.node].astype(np.float32, copy=False)
        at = self._seen(self._inputs(leaf.node)[1], known)
        rows: Array = leaf.table[np.where(at < 0, at + len(leaf.table), at)]
        return rows

    def origins(self, leaf: Leaf, given: dict[int, Array]) -> Array:
        """Which of its input's ids, counted row-major, each of a leaf's vectors is of; -1: of none,
        as padding that the network puts in itself.

        Raises:
            ArtifactRefused: ids are changed before they are looked up.
        """
        graph = self._graph
        at = graph.inputs[leaf.input]
        where = self._inputs(leaf.node)[1]
        needed = self._before.setdefault(where[0], graph.before(where[0]))
        found = []
        # Once with what was given, once with numbers that no id has.
        marks = MARK + np.arange(given[at].size).reshape(given[at].shape)
        for ids in (given[at], marks):
            known = {(one, 0): value for one, value in given.items()} | {(at, 0): ids}
            for one in needed:
                made = compute(
                    graph.nodes[one], [self._seen(ref, known) for ref in self._inputs(one)]
                )
                known |= {(one, port): value for port, value in enumerate(made)}
            found.append(self._seen(where, known).astype(np.int64))
        origins = np.where(found[1] >= MARK, found[1] - MARK, -1)
        own = given[at].reshape(-1)[np.maximum(origins, 0)]
        if (origins >= given[at].size).any() or not np.where(
            origins < 0, True, own == found[0]
        ).all():
            raise ArtifactRefused(
                f"the ids of {leaf.input!r} are changed before they are looked up; {OTHERWISE}"
            )
        return origins

    def _inputs(self, at: int) -> list[Ref]:
        return self._graph.nodes[at].inputs

    def _seen(self, ref: Ref, known: dict[Ref, Array]) -> Any:
        for of in (known, self._known, self._graph.constants, self._weights):
            if ref in of:
                return of[ref]
        return self._shapes[ref]

    def _walk(self, given: dict[int, Array]) -> None:
        """Shapes of all that is traced, and all that is not."""
        import jax

        struct: Any = jax.ShapeDtypeStruct
        graph = self._graph
        leaves = {leaf.node: leaf for leaf in graph.leaves}
        values: dict[Ref, Array] = {}
        for at in graph.needed:
            node, kind = graph.nodes[at], graph.kinds[at]
            if at in leaves:
                shape = self.leaf(leaves[at], given, values).shape
                self._shapes[at, 0] = struct(shape, np.float32)
            elif node.kind == "Parameter":
                values[at, 0] = given[at]
            elif kind == Kind.TRACED:
                made = self._traced(node, [self._seen(ref, values) for ref in node.inputs])
                self._shapes |= {(at, port): one for port, one in enumerate(made)}
            elif kind != Kind.CONSTANT:
                found = compute(node, [self._seen(ref, values) for ref in node.inputs])
                into = self._known if kind == Kind.SHAPE else values
                into |= {(at, port): one for port, one in enumerate(found)}
        self._alike.clear()
        self._find_data(values)

    def _traced(self, node: Node, inputs: list[Any]) -> list[Any]:
        import jax

        static = OPERATIONS[node.kind].static
        key: Any = (node.kind, repr(node.attributes), tuple(node.types))
        for port, one in enumerate(inputs):
            key += (one.shape, str(one.dtype), one.tobytes() if port in static else b"")
        if node.body is None and key in self._alike:
            return self._alike[key]
        free = [at for at, one in enumerate(inputs) if at not in static]

        def run(*given: Any) -> list[Any]:
            placed = dict(zip(free, given, strict=True))
            return compute(node, [placed.get(at, one) for at, one in enumerate(inputs)])

        struct: Any = jax.ShapeDtypeStruct
        sizes = [struct(inputs[at].shape, _dtype(inputs[at])) for at in free]
        made: list[Any] = jax.eval_shape(run, *sizes)
        self._alike[key] = made
        return made

    def _find_data(self, values: dict[Ref, Array]) -> None:
        graph, found = self._graph, dict[Ref, None]()
        for at in graph.steps(Kind.TRACED):
            static = OPERATIONS[graph.nodes[at].kind].static
            for port, ref in enumerate(self._inputs(at)):
                if graph.kinds[ref[0]] != Kind.VALUE:
                    continue
                if port in static:
                    self._static[ref] = values[ref]
                else:
                    found[ref] = None
        for ref in graph.outputs.values():
            if graph.kinds[ref[0]] == Kind.VALUE:
                found[ref] = None
        self.data = list(found)

    def fixed(self, ref: Ref, *, static: bool) -> Any:
        """What is part of what is compiled: sizes and places, and small constants.

        Args:
            static: whether an operation takes it as a size or place.

        Raises:
            KeyError: it is none of that.
        """
        if static and ref in self._static:
            return self._static[ref]
        known = self._known.get(ref)
        return self._graph.constants[ref] if known is None else known

    def shape(self, output: str) -> tuple[int, ...]:
        """Of an output."""
        ref = self._graph.outputs[output]
        known = self._known.get(ref, self._graph.constants.get(ref))
        if known is not None:
            return tuple(known.shape)
        return tuple(self._shapes[ref].shape) if ref in self._shapes else ()


def for_jax(array: Array) -> Array:
    """JAX computes whole numbers in 32 bits, as OpenVINO's CPU plugin does."""
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        return np.clip(array, INT32.min, INT32.max).astype(np.int32)
    return array


def _dtype(array: Any) -> Any:
    wide = array.dtype.kind in "iu" and array.dtype.itemsize == 8
    return np.dtype(np.int32) if wide else array.dtype
