"""What trainers leave, made once a test session, and what their versions answer when served."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openmaas.inference import Predict, Predicted, Tensor
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importing import import_trained
from openmaas.registry.manifest import Manifest
from openmaas.runtimes import open_runtime
from openmaas.serving.choice import choose

DATATYPES = {"float32": "FP32", "int32": "INT32"}


def made(folder: Path, *names: str) -> Path:
    """Exports in sub-folders."""
    script = Path(__file__).with_name("trained_networks.py")
    subprocess.run(
        [sys.executable, script, folder, *names],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        check=True,
        timeout=300,
    )
    return folder


def stored(
    kind: Any, folder: Path, store: ArtifactStore, said: list[str] | None = None
) -> tuple[Any, Manifest]:
    """The runtime that serves an export, and its manifest; ``said`` gets what was told of it."""
    heard = [] if said is None else said
    digest, manifest = import_trained(
        kind, folder, store, source="job:job_1", progress=lambda _, __, text: heard.append(text)
    )
    assert manifest.source == "job:job_1"
    return open_runtime(choose(manifest)[0], store.open(digest), {}), manifest


def rows(folder: Path) -> Any:
    return json.loads((folder / "rows.json").read_text())


def tensor(name: str, values: Sequence[Any]) -> Tensor:
    """A column: numbers, or texts."""
    if any(isinstance(value, str) for value in values):
        parts = [value.encode() for value in values]
        data = b"".join(struct.pack("<I", len(part)) + part for part in parts)
        return Tensor(name=name, datatype="BYTES", shape=[len(parts), 1], data=data)
    array = np.array(values)
    array = array.astype("float32") if array.dtype == np.float64 else array
    shape = list(array.shape) if array.ndim > 1 else [len(array), 1]
    return Tensor(
        name=name, datatype=DATATYPES[str(array.dtype)], shape=shape, data=array.tobytes()
    )


def predicted(runtime: Any, *requests: Predict) -> list[dict[str, Any]]:
    """Outputs by name of each request, asked together."""
    for request in requests:
        assert runtime.size(request) == request.rows
    return [outputs(answer) for answer in runtime.run(list(requests))]


def outputs(answer: Any) -> dict[str, Any]:
    assert isinstance(answer, Predicted)
    return {
        one.name: texts(one.data)
        if one.datatype == "BYTES"
        else np.frombuffer(one.data, "<f4").reshape(one.shape)
        for one in answer.outputs
    }


def texts(data: bytes) -> list[str]:
    found, at = [], 0
    while at < len(data):
        end = at + 4 + struct.unpack_from("<I", data, at)[0]
        found.append(data[at + 4 : end].decode())
        at = end
    return found
