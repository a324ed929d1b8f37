"""One file per engine; which one serves an artifact is decided here, with the reason."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from openmaas.errors import ConfigurationError
from openmaas.runtimes.base import Runtime

# OpenVINO tells its maker of every import, unless this package of its is not to be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

NAMES = (
    "openvino_genai",
    "llamacpp",
    "openvino_tensors",
    "openvino_tabular",
    "openvino_embeddings",
    "openvino_classifier",
    "openvino_tagger",
    "openvino_translation",
    "openvino_seq2seq",
    "ctranslate2_translation",
    "echo",
    "gradients",
)


def open_runtime(name: str, folder: Path, options: dict[str, Any]) -> Runtime:
    """Loads an artifact into an engine. Imports that engine: workers only.

    Raises:
        ConfigurationError: no such runtime, or an option that it does not know.
        ArtifactRefused: the engine cannot load the artifact.
    """
    if name not in NAMES:
        raise ConfigurationError(f"no runtime {name!r}; there are: {', '.join(NAMES)}")
    runtime: Runtime = importlib.import_module(f"openmaas.runtimes.{name}").open(folder, options)
    return runtime
