"""The steps of one recurrent layer that was unrolled over time, and whether they are all alike; see
``gradients_rolling``.

An operation belongs to the last step that it hangs on. Steps that are made of the same operations,
put together in the same way, become one; each link between them is then checked, so that nothing
is rolled up that is not alike.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np

from openmaas.runtimes.gradients_graph import Graph
from openmaas.runtimes.gradients_nodes import Ref
from openmaas.runtimes.gradients_ops import OPERATIONS

FEWEST = 8  # steps
APART = 2  # steps at the beginning that are left as they are: states are constants there
ROUNDS = 1  # how many steps back operations are told apart by
Slot = tuple[str, Any, int]  # "in": role and output; "prev", "each": which; "same": a reference


class Roll(NamedTuple):
    """Steps that became one. A role is an operation's place within a step.

    Attributes:
        steps: of each step its operations, by role.
        slots: of each role where its inputs come from.
        carried: (role, output) that the next step reads, and their values before the first.
        each: what is another at each step, a reference for each.
        read: of those that are read from one array in order, its reference, the axis, the first
            place, and whether the axis stays.
        told: (role, output) that others read, and at which steps.
    """

    steps: list[list[int]]
    slots: list[list[Slot]]
    carried: list[tuple[int, int]]
    first: list[Ref]
    each: list[list[Ref]]
    read: dict[int, tuple[Ref, int, int, bool]]
    told: dict[tuple[int, int], list[int]]


class Layer:
    """One recurrent layer.

    Args:
        traced: the graph's operations that are, in order.
        seeds: those that read it its input at each step.
    """

    def __init__(self, graph: Graph, traced: list[int], seeds: list[int]) -> None:
        self._graph = graph
        self._count = len(seeds)
        self._seeds = set(seeds)
        self._time = {at: step for step, at in enumerate(seeds)}
        self._steps: list[list[int]] = [[] for _ in seeds]
        for at in traced:
            if at in self._seeds:
                continue
            time = max((self._time.get(one, -1) for one, _ in graph.nodes[at].inputs), default=-1)
            if time >= 0:
                self._time[at] = time
                self._steps[time].append(at)
        uses: dict[Ref, set[int]] = defaultdict(set)
        for at, time in self._time.items():
            for ref in graph.nodes[at].inputs:
                uses[ref].add(time)
        self._shared = {ref for ref, times in uses.items() if len(times) >= self._count - APART}
        self._codes: dict[Any, int] = {}
        self._contents: dict[Ref, Any] = {}

    def rolled(self) -> Roll | None:
        keys: dict[int, int] = {}
        for _ in range(ROUNDS + 1):
            keys = self._keys(keys)
        steps = self._alike(keys)
        if steps is None:
            return None
        role_of = [{at: role for role, at in enumerate(step)} for step in steps]
        return self._linked(steps, role_of)

    # --- which steps are alike ---------------------------------------------------------------

    def _keys(self, before: dict[int, int]) -> dict[int, int]:
        """Of each operation a number that those like it share; ``before``: as it was known of
        the steps before."""
        keys: dict[int, int] = {}
        for step in self._steps:
            for at in step:
                node = self._graph.nodes[at]
                inputs = tuple(self._named(at, ref, keys, before) for ref in node.inputs)
                name = (node.kind, repr(node.attributes), tuple(node.types), inputs)
                keys[at] = self._codes.setdefault(name, len(self._codes))
        return keys

    def _named(self, at: int, ref: Ref, keys: dict[int, int], before: dict[int, int]) -> Any:
        one, port = ref
        time = self._time.get(one, -1)
        if one in self._seeds and time == self._time[at]:
            return ("seed",)
        if time == self._time[at]:
            return ("in", keys[one], port)
        if time >= 0:
            return ("prev", self._time[at] - time, before.get(one), port)
        if ref in self._graph.constants:
            return ("constant", self._content(ref))
        return ("same", ref) if ref in self._shared else ("each",)

    def _content(self, ref: Ref) -> Any:
        if ref not in self._contents:
            found = self._graph.constants[ref]
            self._contents[ref] = (found.shape, str(found.dtype), found.tobytes())
        return self._contents[ref]

    def _alike(self, keys: dict[int, int]) -> list[list[int]] | None:
        """Of each step its operations in the same order; the last step may hold others beside."""
        wanted = Counter(keys[at] for at in self._steps[APART])
        places = {key: place for place, key in enumerate(wanted)}
        found = []
        for number, step in enumerate(self._steps[APART:], APART):
            own = [at for at in step if keys[at] in wanted]
            if Counter(keys[at] for at in own) != wanted or (
                len(own) != len(step) and number < self._count - 1
            ):
                if number == self._count - 1:
                    break
                return None
            # In the order of the first, which is one that they can be computed in.
            found.append(sorted(own, key=lambda at: places[keys[at]]))
        return found if len(found) >= FEWEST - APART and wanted else None

    # --- how they are linked -----------------------------------------------------------------

    def _linked(self, steps: list[list[int]], role_of: list[dict[int, int]]) -> Roll | None:
        nodes = self._graph.nodes
        carried: dict[tuple[int, int], Ref] = {}
        each: dict[tuple[Ref, ...], int] = {}
        slots: list[list[Slot]] = []
        for role, template in enumerate(steps[0]):
            static = OPERATIONS[nodes[template].kind].static
            own: list[Slot] = []
            for port in range(len(nodes[template].inputs)):
                refs = [nodes[step[role]].inputs[port] for step in steps]
                slot = self._slot(refs, role_of, carried, each)
                if slot is None or (port in static and slot[0] != "same"):
                    return None
                if slot[0] == "in" and slot[1] >= role:
                    return None
                own.append(slot)
            slots.append(own)
        names = list(carried)
        slots = [
            [("prev", names.index(one[1]), 0) if one[0] == "prev" else one for one in own]
            for own in slots
        ]
        lists = [list(one) for one in each]
        read = {at: self._read(refs) for at, refs in enumerate(lists) if self._in_order(refs)}
        told = self._told(steps, role_of)
        return Roll(steps, slots, names, list(carried.values()), lists, read, told)

    def _in_order(self, refs: list[Ref]) -> bool:
        times = [self._time.get(at, -1) for at, _ in refs]
        return {at for at, _ in refs} <= self._seeds and bool((np.diff(times) == 1).all())

    def _read(self, refs: list[Ref]) -> tuple[Ref, int, int, bool]:
        array, place, axis = self._graph.nodes[refs[0][0]].inputs
        known = self._graph.constants
        stays = known[place].ndim > 0
        return array, int(known[axis].reshape(())), self._time[refs[0][0]], stays

    def _slot(
        self,
        refs: list[Ref],
        role_of: list[dict[int, int]],
        carried: dict[tuple[int, int], Ref],
        each: dict[tuple[Ref, ...], int],
    ) -> Slot | None:
        """Where an input comes from at every step, if that is the same everywhere."""
        constants = self._graph.constants
        if len(set(refs)) == 1 and not any(refs[0][0] in of for of in role_of):
            return ("same", refs[0], 0)
        if all(ref in constants for ref in refs):
            alike = len({self._content(ref) for ref in refs}) == 1
            return ("same", refs[0], 0) if alike else None
        ports = {port for _, port in refs}
        if len(ports) == 1:
            (port,) = ports
            for name, of in (("in", role_of), ("prev", role_of[:-1])):
                asked = refs if name == "in" else refs[1:]
                roles = {own.get(one) for own, (one, _) in zip(of, asked, strict=True)}
                if len(roles) != 1 or None in roles:
                    continue
                (role,) = roles
                if name == "in":
                    return ("in", role, port)
                assert role is not None
                if carried.setdefault((role, port), refs[0]) != refs[0]:
                    return None  # two beginnings of one state
                return ("prev", (role, port), 0)
        if any(one in of for one, _ in refs for of in role_of):
            return None
        return ("each", each.setdefault(tuple(refs), len(each)), 0)

    def _told(
        self, steps: list[list[int]], role_of: list[dict[int, int]]
    ) -> dict[tuple[int, int], list[int]]:
        graph = self._graph
        inside = {
            at: (number, role) for number, of in enumerate(role_of) for at, role in of.items()
        }
        told: dict[tuple[int, int], set[int]] = defaultdict(set)
        for at in graph.needed:
            if at not in inside:
                for one, port in graph.nodes[at].inputs:
                    if one in inside:
                        number, role = inside[one]
                        told[role, port].add(number)
        return {name: sorted(numbers) for name, numbers in told.items()}
