"""A Keras network of the caller's own, built only from what is on the list of plain layers."""

from __future__ import annotations

import copy
import math
import tempfile
from pathlib import Path
from typing import Any

import keras
import msgspec

from openmaas.errors import InvalidRequest
from openmaas.registry import archives
from openmaas.registry.importers import keras_archive

MAX_WEIGHTS = 1 << 28  # numbers: 1 GiB, and its optimizer's twice that
MAX_CONFIG = 4 << 20


def from_config(config: dict[str, Any], seed: int, shape: tuple[int, ...] | None = None) -> Any:
    """An uncompiled network, with the weights that Keras gives one of this seed.

    Args:
        config: as ``json.loads(model.to_json())``; Sequential or Functional.
        shape: of one row, for a Sequential network that does not say.

    Raises:
        ArtifactRefused: it names anything but plain layers, or a number beyond the bounds.
        InvalidRequest: Keras cannot build it, or it is too large.
    """
    if len(msgspec.json.encode(config)) > MAX_CONFIG:
        raise InvalidRequest("the network's config is too large", param="network.config")
    config = copy.deepcopy(config)
    config.pop("compile_config", None)
    keras_archive.check_config(config, seeds=True)
    _bound(config, shape)
    keras.utils.set_random_seed(seed)
    return _built(config, shape)


def from_file(path: Path, seed: int, *, compiled: bool) -> Any:
    """The network of a ``.keras`` file, with its weights.

    Args:
        compiled: with the optimizer, loss and metrics that it was compiled with, if it was.

    Raises:
        ArtifactRefused: it is damaged, links elsewhere, or names anything but Keras's plain
            layers (and optimizers, losses and metrics).
        InvalidRequest: Keras cannot build it, or it is too large.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        checked = keras_archive.checked_copy(path, Path(place), seeds=True, compiled=compiled)
        with archives.opened(checked) as archive:
            config = msgspec.json.decode(archive.read("config.json"))
        _bound({key: value for key, value in config.items() if key != "compile_config"}, None)
        keras.utils.set_random_seed(seed)
        try:
            model = keras.saving.load_model(
                checked, compile="compile_config" in config, safe_mode=True
            )
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            raise InvalidRequest(
                f"Keras cannot load the network: {first_line(error)}", param="network.upload"
            ) from None
    _one_output(model)
    return model


def count_weights(model: Any) -> int:
    return sum(math.prod(one.shape) for one in model.variables)


def first_line(error: BaseException) -> str:
    """What was wrong, without the objects in which Keras found it."""
    text = str(error).rpartition("Exception encountered:")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _bound(config: dict[str, Any], shape: tuple[int, ...] | None) -> None:
    """Builds the network without its numbers, to count them."""
    with keras.StatelessScope(initialize_variables=False):
        model = _built(config, shape)
        found = count_weights(model)
    if found > MAX_WEIGHTS:
        raise InvalidRequest(
            f"the network has {found} weights; the limit is {MAX_WEIGHTS}", param="network"
        )
    _one_output(model)


def _built(config: dict[str, Any], shape: tuple[int, ...] | None) -> Any:
    try:
        # Keras takes the object apart that it is given.
        model = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True)
        if not isinstance(model, keras.Model):
            raise InvalidRequest(
                "the config is of a layer; a network is Sequential or Functional",
                param="network.config",
            )
        if not model.built and shape is not None:
            model.build((None, *shape))
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise InvalidRequest(
            f"Keras cannot build the network: {first_line(error)}", param="network"
        ) from None
    if not model.built:
        raise InvalidRequest(
            "the network does not say what it takes; begin it with an InputLayer", param="network"
        )
    return model


def _one_output(model: Any) -> None:
    if len(model.outputs) != 1:
        raise InvalidRequest(
            f"the network has {len(model.outputs)} outputs; one with a single output is trained",
            param="network",
        )


def arranged(model: Any, arrays: list[Any]) -> Any:
    """Arrays in the order of a network's inputs, in the structure in which it takes them."""
    functional = getattr(model, "_functional", None) or model  # within a Sequential one
    return keras.tree.pack_sequence_as(functional._inputs_struct, arrays)
