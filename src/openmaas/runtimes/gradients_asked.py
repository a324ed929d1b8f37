"""What a request for gradients asks of a graph, and its answer: the parts that texts and rows
share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from openmaas.errors import ArtifactRefused, InvalidRequest
from openmaas.inference import Attribute, Attributed, Tensor, Usage
from openmaas.runtimes.gradients_methods import Field, Found, explain
from openmaas.runtimes.gradients_nodes import OTHERWISE, Array
from openmaas.runtimes.gradients_program import Plans, Reading

MOST_STEPS = 4096


class Told(NamedTuple):
    """One input as it is told: its name, and the name and shape that attributions are given by."""

    input: str
    name: str
    shape: list[int]


class Asked(NamedTuple):
    """A request, read.

    Attributes:
        origins: of each leaf which of its input's ids a vector is of (-1: none); ``None`` of
            plain numbers.
        baseline: of each leaf what it is compared with.
        number: the explained one, counted row-major over the output.
        offsets: of a text's tokens.
    """

    reading: Reading
    origins: list[Array | None]
    baseline: list[Array]
    output: str
    number: int
    told: list[Told]
    usage: Usage  # of one pass
    offsets: list[tuple[int, int]]


def check(asked: Attribute) -> None:
    """
    Raises:
        InvalidRequest: a number is out of range.
    """
    for name in ("steps", "most_steps"):
        if not 1 <= getattr(asked, name) <= MOST_STEPS:
            raise InvalidRequest(f"{name} is from 1 to {MOST_STEPS}", param=name)
    if not 0 < asked.tolerance < 1:
        raise InvalidRequest("tolerance is a share between 0 and 1", param="tolerance")
    if not 0 <= asked.noise <= 10:
        raise InvalidRequest("noise is a share from 0 to 10", param="noise")
    if asked.seed < 0:
        raise InvalidRequest("seed is a whole number from 0 on", param="seed")


def origins_of(plans: Plans, reading: Reading, given: dict[str, Array]) -> list[Array | None]:
    """See ``Asked.origins``.

    Raises:
        ArtifactRefused: ids are changed before they are looked up.
    """
    graph = plans.graph
    by_node = {graph.inputs[name]: one for name, one in given.items()}
    found = [
        None if leaf.table is None else reading.plan.origins(leaf, by_node) for leaf in graph.leaves
    ]
    for name in {leaf.input for leaf in graph.leaves if leaf.table is not None}:
        own = [
            origin
            for leaf, origin in zip(graph.leaves, found, strict=True)
            if leaf.input == name and origin is not None
        ]
        if not any((origin >= 0).any() for origin in own):
            raise ArtifactRefused(
                f"the ids of {name!r} are changed before they are looked up; {OTHERWISE}"
            )
    return found


def answer(plans: Plans, request: Attribute, asked: Asked) -> Attributed:
    """
    Raises:
        EngineFailed: a gradient is not finite.
    """
    noisy = [
        np.ones(()) if origin is None else (origin >= 0)[..., None].astype(np.float64)
        for origin in asked.origins
    ]
    program = asked.reading.program(asked.output)
    field = Field(
        lambda points, mix: program(asked.reading.data, asked.number, points, mix),
        asked.reading.leaves,
        asked.baseline,
        noisy,
    )
    found = explain(field, request)
    return Attributed(
        values=[_tensor(plans, asked, found, told) for told in asked.told],
        offsets=asked.offsets,
        baseline_output=found.baseline_output,
        instance_output=found.instance_output,
        error=found.error,
        forward_passes=found.passes,
        backward_passes=found.passes,
        usage=_times(asked.usage, 2 * found.passes),
    )


def _times(usage: Usage, passes: int) -> Usage:
    """What so many passes use: each is billed, forward and back."""
    return Usage(input_tokens=passes * usage.input_tokens, rows=passes * usage.rows)


def _tensor(plans: Plans, asked: Asked, found: Found, told: Told) -> Tensor:
    """Attributions of an input in its shape; zeros for one that is not explained."""
    total = np.zeros(int(np.prod(told.shape)))
    for leaf, origin, values in zip(plans.graph.leaves, asked.origins, found.values, strict=True):
        if leaf.input != told.input:
            continue
        if origin is None:
            total += values.reshape(-1)
            continue
        here = (origin >= 0) & (origin < total.size)  # the rest is padding
        np.add.at(total, origin[here], values.sum(-1)[here])
    data = total.astype("<f4").tobytes()
    return Tensor(name=told.name, datatype="FP32", shape=told.shape, data=data)
