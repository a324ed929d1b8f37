"""Makes a decoder's graph quicker without changing what it computes.

OpenVINO GenAI writes Q8_0 matrices as unsigned bytes with a zero point of 128 in each block, and
the matrices of one layer that read the same vector (query, key and value; gate and up) apart.
Here they become signed bytes, which need no zero point, and one matrix each: of a 135M model on
two cores, 121 products a token instead of 211 and 10–17 % less time.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

_ZERO_POINT = 128


def simplify(graph: Path) -> None:
    """Rewrites an IR in its place."""
    import openvino as ov

    model = ov.Core().read_model(graph)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Multiply" and (bytes_ := _unsigned(node)) is not None:
            _make_signed(node, bytes_)
    readers: dict[Any, list[Any]] = defaultdict(list)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul" and _matrix(node) is not None:
            vector = node.input_value(0)
            readers[vector.get_node().get_friendly_name(), vector.get_index()].append(node)
    for products in readers.values():
        if len(products) > 1:
            _join(products)
    model.validate_nodes_and_infer_types()
    rewritten = graph.with_name(f"simple_{graph.name}")
    ov.save_model(model, rewritten, compress_to_fp16=False)
    del model  # which maps the old weights
    for suffix in (".bin", ".xml"):
        rewritten.with_suffix(suffix).replace(graph.with_suffix(suffix))


def _unsigned(multiply: Any) -> Any | None:
    """The bytes under ``(bytes - 128) * scales``, or None if it is not that."""
    subtract = multiply.input_value(0).get_node()
    if subtract.get_type_name() != "Subtract":
        return None
    sides = [subtract.input_value(i).get_node() for i in (0, 1)]
    if any(side.get_type_name() != "Convert" for side in sides):
        return None
    stored, zero = (side.input_value(0).get_node() for side in sides)
    if any(node.get_type_name() != "Constant" for node in (stored, zero)):
        return None
    if stored.get_element_type().get_type_name() != "u8" or (zero.data != _ZERO_POINT).any():
        return None
    return stored


def _make_signed(multiply: Any, stored: Any) -> None:
    from openvino import opset13 as op

    signed = op.constant((stored.data ^ np.uint8(_ZERO_POINT)).view(np.int8))
    kind = multiply.input_value(0).get_element_type().get_type_name()
    multiply.input(0).replace_source_output(op.convert(signed, kind).output(0))


def _matrix(product: Any) -> tuple[Any, Any] | None:
    """(bytes, scales) of ``vector · convert(reshape(convert(bytes) * scales))ᵀ``, if it is that."""
    attributes = product.get_attributes()
    if attributes["transpose_a"] or not attributes["transpose_b"]:
        return None
    node = product.input_value(1).get_node()
    for kind in ("Convert", "Reshape", "Multiply"):
        if node.get_type_name() != kind:
            return None
        scales = node
        node = node.input_value(0).get_node()
    scales = scales.input_value(1).get_node()
    stored = node.input_value(0).get_node() if node.get_type_name() == "Convert" else node
    if {stored.get_type_name(), scales.get_type_name()} != {"Constant"}:
        return None
    if stored.get_element_type().get_type_name() != "i8":
        return None
    return stored, scales


def _join(products: list[Any]) -> None:
    from openvino import opset13 as op

    matrices = [matrix for product in products if (matrix := _matrix(product)) is not None]
    stored = np.concatenate([matrix.data for matrix, _ in matrices])
    scales = np.concatenate([scale.data for _, scale in matrices])
    rows, blocks, block = stored.shape
    kind = matrices[0][1].get_element_type().get_type_name()
    weights = op.multiply(op.convert(op.constant(stored), kind), op.constant(scales))
    weights = op.reshape(weights, op.constant(np.array([rows, blocks * block])), False)
    vector = products[0].input_value(0)
    weights = op.convert(weights, vector.get_element_type().get_type_name())
    joined = op.matmul(vector, weights, False, True)
    lengths = op.constant(np.array([len(matrix.data) for matrix, _ in matrices]))
    parts = op.variadic_split(joined, op.constant(np.int64(-1)), lengths)
    for product, part in zip(products, parts.outputs(), strict=True):
        for reader in product.output(0).get_target_inputs():
            reader.replace_source_output(part)
