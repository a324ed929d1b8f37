"""Keras ``.keras`` → OpenVINO IR, through Keras itself.

Beside the archive there may lie ``labels.json``, a list of what its outputs stand for, and, from a
trainer of ours, ``rows.npz``: held-out rows, an array for each input by its name, and what the
trained network answered, as ``outputs`` (of several outputs ``outputs_0``, ``outputs_1`` …).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry import archives
from openmaas.registry.importers import keras_archive, keras_export, network_check
from openmaas.registry.importers.classifier_head import check_labels
from openmaas.registry.manifest import Description, Port, Verification
from openmaas.registry.recognise import read_json

ROWS, LABELS = "rows.npz", "labels.json"
MAX_ROWS_BYTES = 1 << 30
COMPARED_ROWS = 256  # at most


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: the archive names code, links elsewhere, or is damaged.
        ConversionFailed: Keras is missing, or the export gives other numbers.
    """
    labels = read_labels(source.with_name(LABELS))
    model, network, version = exported(source, say)
    inputs, outputs = map(network_check.ports_of, (network.inputs, network.outputs))
    if labels and not any(port.shape[-1:] in ([len(labels)], [1]) for port in outputs):
        raise ArtifactRefused(f"labels.json has {len(labels)} labels, the outputs other widths.")
    target = out / "openvino_model.xml"
    openvino.save_model(network, str(target), compress_to_fp16=False)
    rows = source.with_name(ROWS)
    if rows.is_file():
        say("comparing it with the trained network")
        verification = _compare_rows(target, inputs, len(outputs), rows)
    else:
        say("comparing it with Keras")
        verification = network_check.compare(
            target, inputs, _original(model, inputs), "model.predict of Keras"
        )
    return Description(
        format="openvino-ir",
        task="predict",
        architecture="keras",
        inputs=inputs,
        outputs=outputs,
        precision="f32",
        labels=labels,
        verification=verification,
        converted_by={"keras": version, "openvino": openvino.__version__},
    )


def exported(source: Path, say: Callable[[str], None]) -> tuple[Any, openvino.Model, str]:
    """The network of an archive as Keras has it and as OpenVINO reads it, with Keras's own names
    and shapes, and Keras's version.

    Raises:
        ArtifactRefused, ConversionFailed: as ``convert``.
    """
    say("checking the archive")
    if importlib.util.find_spec("h5py") is None:  # comes with Keras; checks the weights before it
        raise ConversionFailed(keras_export.MISSING)
    archive = keras_archive.checked_copy(source, source.parent)
    say("loading it in Keras")
    model = keras_export.load(archive)
    say("exporting it to OpenVINO")
    return model, keras_export.graph(model, source.parent), keras_export.version()


def read_labels(path: Path) -> list[str]:
    """
    Raises:
        ArtifactRefused: the file is there and no list of different texts.
    """
    return check_labels(read_json(path)) if path.is_file() else []


def _compare_rows(path: Path, inputs: list[Port], outputs: int, rows: Path) -> Verification:
    """
    Raises:
        ConversionFailed: the graph answers otherwise than the trained network did.
    """
    arrays = _read_rows(rows)
    names = ["outputs"] if outputs == 1 else [f"outputs_{at}" for at in range(outputs)]
    wanted = sorted([*names, *(port.name for port in inputs)])
    if sorted(arrays) != wanted:
        raise ArtifactRefused(f"{ROWS} holds {', '.join(sorted(arrays))}, not {', '.join(wanted)}.")
    expected = [arrays.pop(name) for name in names]
    return network_check.compare_with(
        path, arrays, expected, "the trained network's own answers to held-out rows"
    )


def _read_rows(path: Path) -> dict[str, NDArray[Any]]:
    with archives.opened(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_ROWS_BYTES:
            raise ArtifactRefused(f"{ROWS} is too large.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name][:COMPARED_ROWS] for name in file.files}
    except (ValueError, OSError, EOFError, IndexError) as error:
        raise ArtifactRefused(f"{ROWS} is damaged: {str(error)[:200]}") from None
    if len({len(array) for array in arrays.values()}) != 1:
        raise ArtifactRefused(f"{ROWS} has not as many rows of each array.")
    return arrays


def _original(
    model: Any, inputs: list[Port]
) -> Callable[[network_check.Arrays], list[NDArray[Any]]]:
    if keras_export.direct():
        raise ConversionFailed("There is nothing to compare the export with.")

    def run(arrays: network_check.Arrays) -> list[NDArray[Any]]:
        given = [arrays[port.name] for port in inputs]
        found = model.predict(given if len(given) > 1 else given[0], verbose=0)
        if isinstance(found, dict):
            raise ConversionFailed("Models whose outputs are a dictionary are not read here.")
        return [np.asarray(one) for one in (found if isinstance(found, list | tuple) else [found])]

    return run
