"""The bare engine: how long until it has a model's artifact in memory, in a new process.

Usage: ``bare_load.py RUNTIME FOLDER SETTINGS``; SETTINGS is the engine's, in JSON. Says ``ready``
once the engine could answer. The interpreter's start and imports are counted, as they are of a
worker; an answer is not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def networks(folder: Path, settings: dict[str, Any]) -> Any:
    import openvino as ov

    core = ov.Core()
    return [core.compile_model(file, "CPU", settings) for file in sorted(folder.glob("*.xml"))]


def texts(folder: Path, settings: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    return networks(folder, settings), Tokenizer.from_file(str(folder / "tokenizer.json"))


def genai(folder: Path, settings: dict[str, Any]) -> Any:
    from bare_language import pipeline_of

    return pipeline_of(folder, settings["settings"], settings["properties"])


def llamacpp(folder: Path, settings: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "model.gguf")
    for name, value in settings.items():
        setattr(params, name, value)
    return xllamacpp.Server(params)  # returns once the model is loaded


LOADS = {
    "openvino_tensors": networks,
    "openvino_embeddings": texts,
    "openvino_classifier": texts,
    "openvino_translation": networks,
    "openvino_genai": genai,
    "llamacpp": llamacpp,
}

if __name__ == "__main__":
    # Importing it takes 0.1 s, which the server saves, too.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    engine = LOADS[sys.argv[1]](Path(sys.argv[2]), json.loads(sys.argv[3]))
    print("ready", flush=True)
