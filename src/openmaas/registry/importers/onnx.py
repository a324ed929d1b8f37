"""ONNX → OpenVINO IR, compared with ONNX's own reference evaluator.

Weights outside the file are read only from plain files right beside it: never by a path
(CVE-2024-27318), a link (CVE-2026-27489) or beyond a file's end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import openvino
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import network_check
from openmaas.registry.manifest import FILE_NAME, Description

MAX_PROTO = (1 << 31) - 1  # protobuf's own limit
MAX_NESTING = 16  # graphs within nodes within graphs


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: damaged, or with weights elsewhere than right beside it.
        ConversionFailed: an operation that is not known, or other numbers than ONNX gives.
    """
    if source.stat().st_size > MAX_PROTO:
        raise ArtifactRefused("The ONNX file is larger than 2 GiB; keep its weights beside it.")
    checked(source)
    say("converting ONNX to OpenVINO IR")
    model = network_check.read_model(source)
    network_check.name_ports(model)
    inputs, outputs = map(network_check.ports_of, (model.inputs, model.outputs))
    target = out / "openvino_model.xml"
    openvino.save_model(model, str(target), compress_to_fp16=False)
    say("comparing it with ONNX's reference evaluator")
    verification = network_check.compare(
        target, inputs, _reference(source), "onnx.reference of the ONNX file"
    )
    return Description(
        format="openvino-ir",
        task="predict",
        architecture="onnx",
        inputs=inputs,
        outputs=outputs,
        precision="f32",
        verification=verification,
        converted_by={"openvino": openvino.__version__, "onnx": onnx.__version__},
    )


def checked(path: Path) -> onnx.ModelProto:
    """The model without its outside weights, once these are known to lie beside it.

    Raises:
        ArtifactRefused: damaged, or with weights elsewhere.
    """
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ArtifactRefused(f"The ONNX file is damaged: {str(error)[:200]}") from None
    graphs = [model.graph, *(t.initialization for t in model.training_info)]
    graphs += [training.algorithm for training in model.training_info]
    for graph in graphs:
        for tensor in _tensors(graph, MAX_NESTING):
            _check_tensor(tensor, path.parent)
    for function in model.functions:
        for tensor in _of_nodes(function.node, MAX_NESTING):
            _check_tensor(tensor, path.parent)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ArtifactRefused(f"The ONNX file is invalid: {str(error).splitlines()[0]}") from None
    return model


def _tensors(graph: Any, nesting: int) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node, nesting)


def _of_nodes(nodes: Any, nesting: int) -> Iterator[Any]:
    if nesting == 0:
        raise ArtifactRefused("The ONNX file nests graphs too deeply.")
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                yield from _tensors(attribute.g, nesting - 1)
            for graph in attribute.graphs:
                yield from _tensors(graph, nesting - 1)


def _check_tensor(tensor: Any, folder: Path) -> None:
    if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or not set(entries) <= {
        *("location", "offset", "length", "checksum")
    }:
        raise ArtifactRefused("The ONNX file describes outside weights in an unusual way.")
    location = entries.get("location", "")
    if FILE_NAME.match(location) is None:
        raise ArtifactRefused(
            f"The ONNX file wants weights from {location[:100]!r}; only a plain name of a file "
            "right beside it is taken."
        )
    try:
        status = os.lstat(folder / location)
    except OSError:
        raise ArtifactRefused(
            f"The weights file {location} is missing; push the folder that holds both."
        ) from None
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise ArtifactRefused(f"The weights file {location} is a link, or no plain file.")
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError:
        raise ArtifactRefused("The ONNX file gives no number for where weights lie.") from None
    if offset < 0 or length < 0 or offset + length > status.st_size:
        raise ArtifactRefused(f"The ONNX file wants weights beyond the end of {location}.")


def _reference(source: Path) -> Callable[[network_check.Arrays], Sequence[NDArray[Any]]]:
    try:
        evaluator = ReferenceEvaluator(str(source))
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise ConversionFailed(_unknown(error)) from None

    def run(arrays: network_check.Arrays) -> Sequence[NDArray[Any]]:
        try:
            return list(evaluator.run(None, arrays))
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise ConversionFailed(_unknown(error)) from None

    return run


def _unknown(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"ONNX's reference evaluator cannot run the model: {lines[0][:200] if lines else error}"
