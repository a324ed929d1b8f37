"""A network that OpenVINO has read, as a list of operations that NumPy and JAX can compute.

Every value is of one of four kinds. *Constants* are computed once. Values that hang on *shapes*
alone, or on *whole numbers* that a caller gives (token ids, masks, categories), are computed by
NumPy for each request: they are known, so may say where to cut or what size to take. What hangs on
the numbers that are *explained* is traced by JAX.

Explained are inputs of floating-point numbers, and, of inputs of ids, the vectors that are looked
up for them: what comes out of a ``Gather`` from a table of constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from openmaas.errors import ArtifactRefused
from openmaas.runtimes.gradients_nodes import OTHERWISE, Array, Node, Ref, compute, read
from openmaas.runtimes.gradients_ops import DTYPES, OPERATIONS

# Inputs that say how ids are read, and are not themselves explained.
CONTEXT = ("attention_mask", "token_type_ids", "position_ids")


class Kind(IntEnum):
    """What a value hangs on; the highest of its inputs'."""

    CONSTANT = 0
    SHAPE = 1
    VALUE = 2
    TRACED = 3


class Leaf(NamedTuple):
    """Numbers that are explained.

    Attributes:
        node: their operation; an input itself, or a ``Gather`` of vectors.
        input: the name of the input that they stand for.
        table: of vectors, one a row.
    """

    node: int
    input: str
    table: Array | None = None


class Graph:
    """The operations that a network's floating-point outputs need.

    Args:
        explained: names of the inputs that are; ``None``: all but ``CONTEXT``.
        padded: ``NonZero`` gives as many places as there are numbers (see there), which is right
            where they only say which rows to take.

    Raises:
        ArtifactRefused: an operation or a use of ids that has no gradients here.
    """

    def __init__(
        self, model: Any, explained: Sequence[str] | None = None, *, padded: bool = False
    ) -> None:
        self.nodes = read(model)
        numbers = {node.name: at for at, node in enumerate(self.nodes)}
        self.inputs: dict[str, int] = {}
        for port in model.inputs:
            name = min(port.get_names(), default="") or port.get_node().get_friendly_name()
            self.inputs[name] = numbers[port.get_node().get_friendly_name()]
        self.outputs: dict[str, Ref] = {}
        for port, result in zip(model.outputs, model.get_results(), strict=True):
            name = min(port.get_names(), default="") or port.get_node().get_friendly_name()
            if port.get_element_type().is_real():
                self.outputs[name] = (numbers[result.get_friendly_name()], 0)
        chosen = [name for name in self.inputs if name not in CONTEXT]
        self._explained = set(chosen if explained is None else explained)
        self.ragged = False  # whether a size hangs on a value
        for node in self.nodes:
            if node.kind == "NonZero":
                node.attributes["padded"] = padded
        self.needed = self._needed()
        self.constants: dict[Ref, Array] = {}
        self.leaves: list[Leaf] = []
        self.kinds: dict[int, Kind] = {}
        self._from: dict[int, frozenset[str]] = {}  # inputs of ids whose values it hangs on
        self._classify(padded)
        self._check_uses()

    def _needed(self) -> list[int]:
        seen: set[int] = set()
        left = [at for at, _ in self.outputs.values()]
        while left:
            at = left.pop()
            if at not in seen:
                seen.add(at)
                left += [one for one, _ in self.nodes[at].inputs]
        return sorted(seen)

    def _classify(self, padded: bool) -> None:
        names = {at: name for name, at in self.inputs.items()}
        for at in self.needed:
            node = self.nodes[at]
            kinds = [self.kinds[one] for one, _ in node.inputs]
            self._from[at] = frozenset().union(*(self._from[one] for one, _ in node.inputs))
            self.kinds[at] = max(kinds, default=Kind.CONSTANT)
            if node.kind == "Parameter":
                self._parameter(at, names[at])
            elif node.kind.startswith("ShapeOf") and kinds[0] != Kind.CONSTANT:
                self.kinds[at], self._from[at] = Kind.SHAPE, frozenset()
            elif node.kind == "Gather" and self._is_lookup(node):
                self._lookup(at, node)
            elif self.kinds[at] == Kind.CONSTANT:
                self._constant(at, node)
            self._check_static(node, kinds, padded)
        self._forget_constants()

    def _parameter(self, at: int, name: str) -> None:
        if DTYPES[self.nodes[at].types[0]].kind == "f" and name in self._explained:
            self.kinds[at] = Kind.TRACED
            self.leaves.append(Leaf(at, name))
        else:
            self.kinds[at] = Kind.VALUE
            self._from[at] = frozenset([name])

    def _is_lookup(self, node: Node) -> bool:
        (table, part), (at, _), axis = node.inputs
        found = self.constants.get((table, part))
        return bool(
            self._from[at] & self._explained
            and found is not None
            and found.ndim == 2
            and found.dtype.kind == "f"
            and int(self.constants.get(axis, np.array(1)).reshape(())) == 0
            and not node.attributes.get("batch_dims", 0)
        )

    def _lookup(self, at: int, node: Node) -> None:
        names = self._from[node.inputs[1][0]] & self._explained
        if len(names) != 1:
            raise ArtifactRefused(
                f"vectors are looked up by {' and '.join(sorted(names))} together, so gradients "
                f"cannot tell them apart; {OTHERWISE}"
            )
        self.kinds[at], self._from[at] = Kind.TRACED, frozenset()
        (name,) = names
        self.leaves.append(Leaf(at, name, self.constants[node.inputs[0]]))

    def _constant(self, at: int, node: Node) -> None:
        if node.kind == "Constant":
            made = [node.attributes.pop("data")]
        else:
            made = compute(node, [self.constants[one] for one in node.inputs])
        for port, value in enumerate(made):
            self.constants[at, port] = value

    def _check_static(self, node: Node, kinds: list[Kind], padded: bool) -> None:
        if node.kind == "NonZero" and kinds[0] != Kind.CONSTANT and not padded:
            self.ragged = True
        for port in OPERATIONS[node.kind].static if node.kind in OPERATIONS else ():
            if port >= len(kinds):
                continue
            if kinds[port] == Kind.TRACED:
                raise ArtifactRefused(
                    f"the operation {node.kind} takes a size or place from what is to be "
                    f"explained, which has no gradient; {OTHERWISE}"
                )
            if kinds[port] == Kind.VALUE and node.kind != "NonZero":
                self.ragged = True

    def _forget_constants(self) -> None:
        """Those that only made other constants are not used again."""
        used = {
            ref
            for at in self.needed
            if self.kinds[at] != Kind.CONSTANT
            for ref in self.nodes[at].inputs
        } | set(self.outputs.values())
        self.constants = {ref: value for ref, value in self.constants.items() if ref in used}

    def _check_uses(self) -> None:
        """Each explained input of ids is looked up somewhere, and nowhere made one-hot."""
        found = {leaf.input for leaf in self.leaves}
        for name in sorted(self._explained & set(self.inputs)):
            if self.inputs[name] not in self.kinds:
                continue  # no output needs it
            hot = any(
                self.nodes[at].kind == "OneHot" and name in self._from[at] for at in self.kinds
            )
            if name not in found or hot:
                raise ArtifactRefused(
                    f"input {name!r} holds whole numbers that are used otherwise than to look up "
                    f"vectors, so they have no gradients; {OTHERWISE}"
                )

    def before(self, node: int) -> list[int]:
        """What is computed from whole numbers before an operation's outputs are, in order."""
        seen: set[int] = set()
        left = [node]
        while left:
            at = left.pop()
            if at not in seen and self.kinds[at] == Kind.VALUE:
                seen.add(at)
                left += [one for one, _ in self.nodes[at].inputs]
        return [at for at in self.steps(Kind.VALUE) if at in seen]

    def steps(self, *kinds: Kind) -> Iterator[int]:
        """Operations of these kinds that are to be computed, in order."""
        leaves = {leaf.node for leaf in self.leaves}
        for at in self.needed:
            if self.kinds[at] in kinds and at not in leaves and self.nodes[at].kind != "Parameter":
                yield at
