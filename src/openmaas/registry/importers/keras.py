"""Keras ``.keras`` → OpenVINO IR, through Keras itself on the torch backend."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from openmaas.errors import ConversionFailed
from openmaas.registry.importers import keras_archive, network_check
from openmaas.registry.manifest import Description, Port

OLDEST = (3, 13, 2)  # before it, safe mode could be got round
MISSING = (
    "Keras models are converted by Keras and torch, which are not installed (or too old). "
    'Install the convert extra: pip install "openmaas[convert]"'
)


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: the archive names code, links elsewhere, or is damaged.
        ConversionFailed: the ``convert`` extra is missing, or the export gives other numbers.
    """
    model, network, version = exported(source, say)
    inputs, outputs = map(network_check.ports_of, (network.inputs, network.outputs))
    target = out / "openvino_model.xml"
    openvino.save_model(network, str(target), compress_to_fp16=False)
    say("comparing it with Keras")
    return Description(
        format="openvino-ir",
        task="predict",
        architecture="keras",
        inputs=inputs,
        outputs=outputs,
        precision="f32",
        verification=network_check.compare(
            target, inputs, _original(model, inputs), "model.predict of Keras"
        ),
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
        raise ConversionFailed(MISSING)
    archive = keras_archive.checked_copy(source, source.parent)
    say("loading it in Keras")
    keras = _keras()
    try:
        model = keras.saving.load_model(archive, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ConversionFailed(f"Keras cannot load it: {_first_line(error)}") from None
    place = source.parent / "exported.xml"
    say("exporting it to OpenVINO")
    try:
        model.export(str(place), format="openvino", verbose=False)
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        raise ConversionFailed(f"Keras cannot export it: {_first_line(error)}") from None
    network = network_check.read_model(place)
    _restore_shapes(network, model)
    _name_ports(network, model)
    return model, network, str(keras.__version__)


def _keras() -> Any:
    try:
        import keras
        import torch  # noqa: F401  (the backend that exports rightly)
    except ImportError:
        raise ConversionFailed(MISSING) from None
    version = tuple(int(part) for part in keras.__version__.split(".")[:3])
    if version < OLDEST:
        raise ConversionFailed(MISSING)
    return keras


def _restore_shapes(network: openvino.Model, model: Any) -> None:
    """The export leaves every dimension free; what Keras fixes is fixed."""
    if len(network.inputs) != len(model.inputs):
        raise ConversionFailed("Keras exported another number of inputs than the model has.")
    network.reshape(
        {
            port: openvino.PartialShape([-1 if side is None else side for side in tensor.shape])
            for port, tensor in zip(network.inputs, model.inputs, strict=True)
        }
    )


def _name_ports(network: openvino.Model, model: Any) -> None:
    """Keras's own names of inputs and outputs, by which its users know them."""
    for ports, names in (
        (network.inputs, _names(model, "input")),
        (network.outputs, _names(model, "output")),
    ):
        if len(ports) == len(names) == len(set(names)):
            for port, name in zip(ports, names, strict=True):
                port.set_names({str(name)[:128]})
    network_check.name_ports(network)


def _names(model: Any, end: str) -> list[str]:
    """Inputs and outputs are named after the layers at the network's ends."""
    tensors = getattr(model, f"{end}s")
    return [str(tensor._keras_history.operation.name) for tensor in tensors]


def _original(
    model: Any, inputs: list[Port]
) -> Callable[[network_check.Arrays], list[NDArray[Any]]]:
    def run(arrays: network_check.Arrays) -> list[NDArray[Any]]:
        given = [arrays[port.name] for port in inputs]
        found = model.predict(given if len(given) > 1 else given[0], verbose=0)
        if isinstance(found, dict):
            raise ConversionFailed("Models whose outputs are a dictionary are not read here.")
        return [np.asarray(one) for one in (found if isinstance(found, list | tuple) else [found])]

    return run


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
