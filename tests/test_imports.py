"""The gateway's process imports no engine and no framework, so that none can break it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ENGINES = {
    "openvino", "openvino_genai", "openvino_tokenizers", "xllamacpp", "onnx", "tokenizers",
    "safetensors", "huggingface_hub", "torch", "keras", "transformers", "tensorflow", "jax",
    "numpy",
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
