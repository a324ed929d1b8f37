"""Keras networks → OpenVINO graphs, on the backend that ``KERAS_BACKEND`` names.

``openvino``: Keras's layers build the graph themselves, in a second, without torch; what comes out
is compared with what the trained network answered. ``torch``: the network is traced, and runs
beside its graph as the judge of it, which takes several seconds more.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import openvino
from openvino import opset13 as ops

from openmaas.errors import ConversionFailed
from openmaas.registry.importers import network_check

OLDEST = (3, 13, 2)  # before it, safe mode could be got round
MISSING = (
    "Keras models are converted by Keras and torch, which are not installed (or too old). "
    'Install the convert extra: pip install "openmaas[convert]"'
)
# Keras imports them where they are installed, to no use here: four seconds.
_UNUSED = ("tensorflow", "torch", "jax", "matplotlib", "PIL", "pandas", "sklearn", "grain")
# For the windows of spectrograms, which no layer that is loaded here makes: another second.
_HOLLOW = ("scipy", "scipy.signal")
# Added to the logits of what is not to be attended to: so great that nothing is left of them.
_MASKED = -2e38


def direct() -> bool:
    """Whether Keras's layers build the graph, so that Keras cannot judge it."""
    return os.environ.get("KERAS_BACKEND") == "openvino"


def library() -> Any:
    """Keras.

    Raises:
        ConversionFailed: it, or its backend, is missing or too old.
    """
    try:
        if not direct():
            importlib.import_module("torch")
        keras = _lean()
    except ImportError:
        raise ConversionFailed(MISSING) from None
    if tuple(int(part) for part in keras.__version__.split(".")[:3]) < OLDEST:
        raise ConversionFailed(MISSING)
    # Filtering asks TensorFlow for the frames that are its own, and so imports it.
    keras.config.disable_traceback_filtering()
    return keras


def _lean() -> Any:
    """``import keras`` without what it can do without."""
    unused = [name for name in _UNUSED if direct() or name != "torch"]
    hollow = _HOLLOW if direct() else ()  # torch has use for them
    kept: dict[str, Any] = {name: sys.modules.get(name) for name in (*unused, *hollow)}
    for name in unused:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in hollow:
        sys.modules[name] = ModuleType(name)
    try:
        keras = importlib.import_module("keras")
        # Keras asks once whether it is there, and later, to copy a layer, would import it.
        _ = importlib.import_module("keras.src.utils.module_utils").tensorflow.available
        return keras
    finally:
        for name, module in kept.items():
            if module is not None:
                sys.modules[name] = module
            elif name not in _HOLLOW:
                del sys.modules[name]


def load(archive: Path) -> Any:
    """The network of a checked archive.

    Raises:
        ConversionFailed: Keras is missing, or cannot load it.
    """
    keras = library()
    try:
        return keras.saving.load_model(archive, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        raise ConversionFailed(f"Keras cannot load it: {first_line(error)}") from None


def graph(model: Any, folder: Path) -> openvino.Model:
    """The network as OpenVINO reads it, with Keras's own names and shapes.

    Args:
        folder: for files on the way.

    Raises:
        ConversionFailed: Keras cannot export it.
    """
    try:
        network = _built(model) if direct() else _traced(model, folder)
    except (ValueError, TypeError, NotImplementedError, RuntimeError, ImportError) as error:
        raise ConversionFailed(f"Keras cannot export it: {first_line(error)}") from None
    _restore_shapes(network, model)
    _name_ports(network, model)
    return network


def version() -> str:
    return str(library().__version__)


def _traced(model: Any, folder: Path) -> openvino.Model:
    place = folder / "exported.xml"
    model.export(str(place), format="openvino", verbose=False)
    return network_check.read_model(place)


def _built(model: Any) -> openvino.Model:
    """As Keras's own export does it, but with every free dimension free from the beginning, which
    else is taken for 1 here and there."""
    core: Any = importlib.import_module("keras.src.backend.openvino.core")
    tree: Any = importlib.import_module("keras.tree")
    parameters = []

    def parameter(tensor: Any) -> Any:
        shape = [-1 if side is None else side for side in tensor.shape]
        made = ops.parameter(shape, core.OPENVINO_DTYPES[tensor.dtype])
        parameters.append(made)
        return core.OpenVINOKerasTensor(made.output(0))

    given = getattr(model, "_inputs_struct", None)  # of Functional; Sequential has one input
    answers = model(tree.map_structure(parameter, model.inputs[0] if given is None else given))
    results = [ops.result(answer.output) for answer in tree.flatten(answers)]
    network = openvino.Model(results, parameters, "keras")
    _soften_masks(network)
    return network


def _soften_masks(network: openvino.Model) -> None:
    """Where a token may attend to nothing, OpenVINO's attention answers NaN, Keras's an average:
    masks become numbers that are added, as in Keras."""
    for node in network.get_ops():
        if node.get_type_name() != "ScaledDotProductAttention" or node.get_input_size() < 4:
            continue
        mask = node.input(3)
        if mask.get_element_type().get_type_name() == "boolean":
            kind = node.get_output_element_type(0)
            numbers = (ops.constant(value, kind) for value in (0.0, _MASKED))
            soft = ops.select(mask.get_source_output(), *numbers)
            mask.replace_source_output(soft.output(0))


def _restore_shapes(network: openvino.Model, model: Any) -> None:
    """Tracing leaves every dimension free; what Keras fixes is fixed."""
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
        (network.inputs, names_of(model.inputs)),
        (network.outputs, names_of(model.outputs)),
    ):
        if len(ports) == len(names) == len(set(names)):
            for port, name in zip(ports, names, strict=True):
                port.set_names({name})
    network_check.name_ports(network)


def names_of(tensors: Any) -> list[str]:
    """Inputs and outputs are named after the layers at the network's ends."""
    return [str(tensor._keras_history.operation.name)[:128] for tensor in tensors]


def first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
