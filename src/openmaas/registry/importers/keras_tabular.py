"""A Keras network over a table's columns → OpenVINO IR that is served by column.

The folder: ``model.keras``, with an input [rows, 1] for each column of ``columns.json`` (floats of
numbers, whole numbers of categories) and one output [rows, numbers]; ``labels.json`` where those
are probabilities; ``rows.json``, a list of objects of a ``row`` (column → value, null if missing)
and the trained network's ``outputs``. One probability of two labels is the second one's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import openvino
from msgspec import Meta
from openvino import opset13 as ops

from openmaas import columns
from openmaas.columns import Column
from openmaas.errors import ArtifactRefused, ConversionFailed, InvalidRequest
from openmaas.registry.importers import keras, network_check
from openmaas.registry.manifest import Description, Port, Verification

ROWS = "rows.json"
MAX_ROWS_BYTES = 256 << 20
COMPARED_ROWS = 256  # at most


class Row(msgspec.Struct, frozen=True):
    row: dict[str, int | float | str | None]
    outputs: Annotated[list[float], Meta(min_length=1)]


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: a part is missing, damaged or unsafe, or they do not fit.
        ConversionFailed: Keras is missing, or the export gives other numbers.
    """
    known = _columns(source)
    labels = keras.read_labels(source / keras.LABELS)
    _, network, version = keras.exported(source / "model.keras", say)
    _check_inputs(network, known)
    _shape_answer(network, labels)
    target = out / "openvino_model.xml"
    openvino.save_model(network, str(target), compress_to_fp16=False)
    shutil.copyfile(source / columns.FILE, out / columns.FILE)
    say("comparing it with the trained network")
    outputs = network_check.ports_of(network.outputs)
    label = [Port("label", "BYTES", [-1])] if labels else []
    return Description(
        format="openvino-tabular",
        task="predict",
        architecture="keras",
        inputs=[Port(column.name, column.datatype, [-1, 1]) for column in known],
        outputs=[*outputs, *label],
        precision="f32",
        labels=labels,
        verification=_compare(target, network, known, source / ROWS),
        converted_by={"keras": version, "openvino": openvino.__version__},
    )


def _columns(source: Path) -> list[Column]:
    path = source / columns.FILE
    if not path.is_file():
        raise ArtifactRefused(f"The folder has no {columns.FILE}.")
    with open(path, "rb") as file:
        return columns.decode(file.read(columns.MAX_BYTES + 1))


def _check_inputs(network: openvino.Model, known: list[Column]) -> None:
    ports = {port.any_name: port for port in network.inputs}
    wanted = {column.port for column in known}
    if set(ports) != wanted:
        raise ArtifactRefused(
            f"The network's inputs are {', '.join(sorted(ports))[:300]}; the columns are of "
            f"{', '.join(sorted(wanted))[:300]}."
        )
    for column in known:
        port = ports[column.port]
        shape, real = port.get_partial_shape(), port.get_element_type().is_real()
        if str(shape) != "[?,1]" or real != (column.kind == "number"):
            raise ArtifactRefused(
                f"The input of {column.name} takes {shape} of {port.get_element_type()}."
            )


def _shape_answer(network: openvino.Model, labels: list[str]) -> None:
    """Names the output, and makes two probabilities of one."""
    shape = network.outputs[0].get_partial_shape() if len(network.outputs) == 1 else None
    if shape is None or len(shape) != 2 or shape[1].is_dynamic:
        raise ArtifactRefused("The network does not answer one row of a fixed length a row.")
    width = shape[1].get_length()
    result = network.outputs[0].get_node()
    if width == 1 and len(labels) == 2:
        second = result.input_value(0)
        first = ops.subtract(ops.constant(1, second.get_element_type()), second)
        result.input(0).replace_source_output(ops.concat([first, second], 1).output(0))
        network.validate_nodes_and_infer_types()
        width = 2
    if labels and width != len(labels):
        raise ArtifactRefused(f"The network answers {width} numbers for {len(labels)} labels.")
    network.outputs[0].set_names({"probabilities" if labels else "outputs"})


def _compare(
    target: Path, network: openvino.Model, known: list[Column], path: Path
) -> Verification:
    rows = _read(path)
    arrays = {}
    for column in known:
        kind = network.input(column.port).get_element_type().to_dtype()
        arrays[column.port] = np.asarray(_values(column, rows), kind).reshape(-1, 1)
    width = network.outputs[0].get_partial_shape()[1].get_length()
    wanted = np.asarray([row.outputs for row in rows], np.float64)
    if wanted.shape[1] == 1 and width == 2:
        wanted = np.concatenate([1 - wanted, wanted], axis=1)
    return network_check.compare_with(
        target, arrays, [wanted], "the trained network's own answers to held-out rows"
    )


def _values(column: Column, rows: list[Row]) -> list[float] | list[int]:
    values = [row.row.get(column.name) for row in rows]
    if column.kind == "category":
        return columns.Places(column)([None if one is None else str(one) for one in values])
    try:
        return columns.numbers(
            column, [None if one in (None, "") else float(one) for one in values]
        )
    except (InvalidRequest, ValueError) as error:
        raise ConversionFailed(f"{ROWS}: {error}") from None


def _read(path: Path) -> list[Row]:
    if not path.is_file() or path.stat().st_size > MAX_ROWS_BYTES:
        raise ArtifactRefused(f"The folder has no {ROWS}, or one that is too large.")
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[Row])[:COMPARED_ROWS]
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactRefused(f"{ROWS} is damaged: {error}") from None
    if len({len(row.outputs) for row in rows}) != 1:
        raise ArtifactRefused(f"{ROWS} has no rows, or not as many outputs in each.")
    return rows
