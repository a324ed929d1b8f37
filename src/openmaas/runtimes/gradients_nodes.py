"""Operations as OpenVINO has read them from a file, in a form that NumPy and JAX can compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused
from openmaas.runtimes import (  # noqa: F401  they enter their operations
    gradients_layers,
    gradients_recurrent,
    gradients_shaping,
)
from openmaas.runtimes.gradients_ops import DTYPES, OPERATIONS

Array = NDArray[Any]
Ref = tuple[int, int]  # an operation, and which of its outputs

OTHERWISE = "ask for a method that needs no gradients (occlusion, shapley, kernel_shap)"
_OWN = ("Parameter", "Constant")  # which are not computed


class Node(msgspec.Struct):
    """One operation."""

    kind: str
    version: str
    name: str
    attributes: dict[str, Any]
    inputs: list[Ref]
    types: list[str]  # of its outputs' elements
    body: Body | None = None

    @property
    def outputs(self) -> int:
        return len(self.types)


class Joined(NamedTuple):
    """A loop's output that is made of all its steps'."""

    value: int
    axis: int
    by: int


class Body(msgspec.Struct):
    """What a loop repeats. Its inputs and results are numbered."""

    run: Callable[[dict[int, Any]], list[Any]]
    given: dict[int, int]  # the loop's input → the body's, at its first step
    sliced: list[tuple[int, int, int, int, int, int]]  # input, body's, axis, begin, by, width
    merged: dict[int, int]  # the body's input ← its result of the step before
    joined: dict[int, Joined]  # the loop's output
    last: dict[int, int]  # the loop's output ← a result of the last step
    condition: int | None = None  # the result that says whether there is another step
    counter: int | None = None  # the input that is the step's number
    counter_shape: tuple[int, ...] = ()
    counter_type: Any = np.int64


def compute(node: Node, inputs: Sequence[Any]) -> list[Any]:
    """An operation's outputs: NumPy's where all inputs are, which is then no part of a trace.

    Raises:
        ArtifactRefused: the operation is not known, or not in this form.
    """
    known = all(isinstance(one, np.ndarray | np.generic) or one is None for one in inputs)
    found = OPERATIONS.get(node.kind)
    if found is None:
        raise unknown(node.kind)
    if known and not found.jax_only:
        with np.errstate(all="ignore"):  # what is not finite here is so in the served network
            made = found.run(node, np, *inputs)
    else:
        import jax
        import jax.numpy as jnp

        if known:
            with jax.ensure_compile_time_eval():
                made = found.run(node, jnp, *inputs)
        else:
            made = found.run(node, jnp, *inputs)
    outputs = made if isinstance(made, list) else [made]
    if not known:
        return outputs
    return [
        np.asarray(one).astype(DTYPES[kind], copy=False)
        for one, kind in zip(outputs, node.types, strict=False)
    ]


def unknown(kind: str) -> ArtifactRefused:
    return ArtifactRefused(f"gradients do not know the operation {kind}; {OTHERWISE}")


def read(model: Any) -> list[Node]:
    """The operations of a model, each after those it needs.

    Raises:
        ArtifactRefused: one is not known here.
    """
    ordered = model.get_ordered_ops()
    numbers = {node.get_friendly_name(): at for at, node in enumerate(ordered)}
    nodes = []
    for node in ordered:
        kind = node.get_type_name()
        if kind not in OPERATIONS and kind not in _OWN:
            raise unknown(kind)
        inputs = []
        for source in node.input_values():
            inputs.append((numbers[source.get_node().get_friendly_name()], source.get_index()))
        nodes.append(
            Node(
                kind=kind,
                version=node.get_type_info().version_id or "",
                name=node.get_friendly_name(),
                attributes=_attributes(node, kind),
                inputs=inputs,
                types=[port.get_element_type().get_type_name() for port in node.outputs()],
                body=_body(node) if kind in ("Loop", "TensorIterator") else None,
            )
        )
        for element in nodes[-1].types:
            if element not in DTYPES:
                raise ArtifactRefused(
                    f"gradients do not know numbers of type {element}; {OTHERWISE}"
                )
    return nodes


def _attributes(node: Any, kind: str) -> dict[str, Any]:
    if kind == "Constant":
        # A view of the file in memory, which the copy outlives.
        data = np.array(node.data)
        return {"data": data.astype(DTYPES[node.get_output_element_type(0).get_type_name()])}
    return dict(node.get_attributes())


# --- loops -------------------------------------------------------------------------------


def _body(node: Any) -> Body:
    function = node.get_function()
    nodes = read(function)
    numbers = {one.name: at for at, one in enumerate(nodes)}
    parameters = [numbers[one.get_friendly_name()] for one in function.get_parameters()]
    results = [numbers[one.get_friendly_name()] for one in function.get_results()]
    body = Body(_runner(nodes, parameters, results), {}, [], {}, {}, {})
    for told in node.get_input_descriptions():
        into = told.body_parameter_index
        if hasattr(told, "part_size"):
            width = told.part_size
            body.sliced.append((told.input_index, into, told.axis, told.start, told.stride, width))
            continue
        body.given[told.input_index] = into
        if hasattr(told, "body_value_index"):
            body.merged[into] = told.body_value_index
    for told in node.get_output_descriptions():
        if hasattr(told, "part_size"):
            body.joined[told.output_index] = Joined(told.body_value_index, told.axis, told.stride)
        else:
            body.last[told.output_index] = told.body_value_index
    if node.get_type_name() == "Loop":
        counter, condition = node.get_special_body_ports()
        body.condition = condition if condition >= 0 else None
        if counter >= 0:
            parameter = function.get_parameters()[counter]
            body.counter = counter
            body.counter_type = DTYPES[parameter.get_output_element_type(0).get_type_name()]
            shape = parameter.get_output_partial_shape(0)
            body.counter_shape = tuple(shape.to_shape()) if shape.is_static else ()
    return body


def _runner(nodes: list[Node], parameters: list[int], results: list[int]) -> Any:
    def run(given: dict[int, Any]) -> list[Any]:
        values: dict[int, list[Any]] = {parameters[at]: [one] for at, one in given.items()}
        for at, node in enumerate(nodes):
            if at in values:
                continue
            if node.kind == "Constant":
                values[at] = [node.attributes["data"]]
            else:
                values[at] = compute(node, [values[one][port] for one, port in node.inputs])
        return [values[at][0] for at in results]

    return run
