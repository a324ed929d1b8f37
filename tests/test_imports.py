"""The gateway's process imports no engine and no framework, so that none can break it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = {
    "openvino", "openvino_genai", "openvino_tokenizers", "xllamacpp", "onnx", "tokenizers",
    "safetensors", "huggingface_hub", "torch", "keras", "transformers", "tensorflow", "jax",
    "ctranslate2", "sentencepiece",
}  # fmt: skip

BUILD = """
import sys
from openmaas.app import build_server, open_store
from openmaas.config import load

settings = load(None, {}, {"data_dir": sys.argv[1]})
build_server(settings, open_store(settings))
print(*{name.partition(".")[0] for name in sys.modules})
"""


def imported(*command: str) -> set[str]:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_gateway_imports_no_engine(tmp_path: Path) -> None:
    found = imported("-c", BUILD, str(tmp_path))
    assert "starlette" in found  # it really was built
    assert found & ENGINES == set()


def test_help_imports_neither_server_nor_database() -> None:
    found = imported("-c", "import openmaas.cli, sys; print(*sys.modules)")
    heavy = {"sqlalchemy", "alembic", "uvicorn", "httpx", "prometheus_client"}
    assert found & (ENGINES | heavy) == set()


@pytest.mark.parametrize("module", ["runtimes.openvino_tensors", "registry.importers.openvino_ir"])
def test_engines_tell_nobody_that_they_are_used(module: str, tmp_path: Path) -> None:
    """OpenVINO's own package for it would leave its files in the home folder."""
    # In continuous integration it keeps quiet by itself, which is not what is tested.
    quiet = {"CI", "TF_BUILD", "JENKINS_URL"}
    env = {name: value for name, value in os.environ.items() if name not in quiet}
    script = f"import openmaas.{module}, sys; print(sys.modules['openvino_telemetry'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=env | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "None", done.stderr
    assert list(tmp_path.iterdir()) == []
