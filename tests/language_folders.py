"""Artifacts of the language models that tests use. Import the fixtures into a conftest.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import pulled


def artifact(data: Path, model: str) -> Path:
    """The folder of a model that is in a data folder, verified."""
    from openmaas.app import open_store
    from openmaas.config import load

    store = open_store(load(None, {}, {"data_dir": str(data)}))
    return store.artifacts.open(store.records.version(model).digest)


@pytest.fixture(scope="session")
def smollm2_folder(starters: Path) -> Path:
    """SmolLM2-135M-Instruct as the registry makes it: OpenVINO IR, byte-level BPE."""
    return artifact(starters, "smollm2-135m")


@pytest.fixture(scope="session")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 270M as the registry keeps it: a GGUF, SentencePiece, no chat template."""
    return artifact(pulled(tmp_path_factory, "gemma", ["gemma3-270m"]), "gemma3-270m")
