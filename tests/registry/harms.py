"""Ways to damage a model's folder."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmaas.registry.importers.safetensors_file import SafetensorsFolder
from tests.registry import small_models

Harm = Callable[[Path], Any]


def setting(**settings: Any) -> Harm:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))

    return edit


def tensor(name: str, make: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None) -> Harm:
    """Another tensor in the place of one; none at all without ``make``."""

    def edit(folder: Path) -> None:
        tensors = SafetensorsFolder(folder)
        weights = {one: np.array(tensors(one)) for one in tensors.names()}
        old = weights.pop(name, np.zeros(1, np.float32))
        if make is not None:
            weights[name] = make(old)
        small_models.write_safetensors(folder / "model.safetensors", weights)

    return edit


def raw(name: str, make: Callable[[bytes], bytes]) -> Harm:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_bytes(make(path.read_bytes() if path.exists() else b""))

    return edit


def header(make: Callable[[dict[str, Any]], Any]) -> Harm:
    """Another header in front of the same data."""

    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + length])
        make(entries)
        text = json.dumps(entries).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return edit


def absent(name: str) -> Harm:
    return lambda folder: (folder / name).unlink()


def text(name: str, content: str) -> Harm:
    return raw(name, lambda _: content.encode())
