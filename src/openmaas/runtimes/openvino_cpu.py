"""What the OpenVINO runtimes share: their options, and how a model is compiled for this CPU."""

from __future__ import annotations

import functools
import json
import platform
from pathlib import Path
from typing import Any

import openvino as ov

from openmaas.errors import ArtifactRefused, ConfigurationError

MAX_THREADS = 1024
PRECISIONS = ("f32", "bf16", "f16")


def known_options(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The options, once every one of them is known.

    Raises:
        ConfigurationError: one is not.
    """
    for name in options:
        if name not in names:
            raise ConfigurationError(f"no option {name!r} here; there are: {', '.join(names)}")
    return options


def threads_option(options: dict[str, Any]) -> int | None:
    """``threads``: engine threads; ``None`` leaves it to the runtime."""
    threads = options.get("threads")
    if threads is None:
        return None
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise ConfigurationError(f"option threads: a whole number from 1 to {MAX_THREADS}")
    return threads


def flag_option(options: dict[str, Any], name: str, default: bool) -> bool:
    """An option that is on or off."""
    value = options.get(name, default)
    if type(value) is not bool:
        raise ConfigurationError(f"option {name}: true or false")
    return value


def precision_option(options: dict[str, Any], manifest: dict[str, Any]) -> str | None:
    """``precision`` to compute in: the operator's word, else the artifact's, else ``None``."""
    precision = options.get("precision", manifest.get("precision"))
    if precision is not None and precision not in PRECISIONS:
        raise ConfigurationError(f"option precision: one of {', '.join(PRECISIONS)}")
    return str(precision) if precision is not None else None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The artifact's own description; empty where there is none.

    Raises:
        ArtifactRefused: it is no JSON object.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise ArtifactRefused("the artifact's manifest is damaged")
    return manifest


def labels(manifest: dict[str, Any]) -> list[str]:
    """What a network's answers stand for; empty where the artifact does not say.

    Raises:
        ArtifactRefused: it says so in another form than texts.
    """
    found = manifest.get("labels", [])
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise ArtifactRefused("the artifact's labels are no texts")
    return found


def read_model(folder: Path) -> ov.Model:
    """The network of an artifact: ``openvino_model.xml`` with its ``.bin``, or ``model.onnx``.

    Raises:
        ArtifactRefused: neither is there, or OpenVINO cannot read it.
    """
    for name in ("openvino_model.xml", "model.onnx"):
        path = folder / name
        if path.exists():
            try:
                return ov.Core().read_model(path)
            except RuntimeError as error:
                raise ArtifactRefused(f"OpenVINO cannot read {name}: {error}") from error
    raise ArtifactRefused("the artifact holds neither openvino_model.xml nor model.onnx")


@functools.cache
def _fastest() -> str | None:
    """To compute in; ``None``: as OpenVINO chooses. It takes bfloat16 wherever a CPU knows it, but
    one without AMX takes 1.7 times as long with it as with float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    return "f32" if platform.machine() == "x86_64" and " amx_bf16" not in flags else None


def compile_model(
    model: ov.Model, *, threads: int | None, precision: str | None, kernels: int | None = None
) -> ov.CompiledModel:
    """Compiles for one request at a time.

    Args:
        precision: ``None``: what this CPU does fastest.
        kernels: how many are kept that were made for one shape each; ``None``: OpenVINO's own
            5000, which are a gigabyte where every call has another shape.
    """
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # Pinned, the threads of two workers would share one core and leave another idle.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    precision = precision or _fastest()
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    if kernels is not None:
        settings["CPU_RUNTIME_CACHE_CAPACITY"] = kernels
    return ov.Core().compile_model(model, "CPU", settings)
