"""``openmaas serve`` on a temporary data folder, for the benchmarks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch import free_port, server

OPENMAAS = [sys.executable, "-m", "openmaas.cli"]


@dataclass(frozen=True)
class Model:
    """A model to deploy: from the catalog, or pushed from ``file``."""

    name: str
    file: Path | None = None
    options: dict[str, str] = field(default_factory=dict)
    runtime: str | None = None  # None: chosen by the format


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    key: str
    pid: int
    data: Path


def command(data: Path, *words: str) -> str:
    """Runs one ``openmaas`` command on a data folder; its output."""
    done = subprocess.run(
        [*OPENMAAS, *words],
        env={**os.environ, "OPENMAAS_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"openmaas {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def prepare(cache: Path, models: Sequence[Model]) -> Path:
    """A data folder in the cache that holds these models; each is imported once."""
    data = cache / "data"
    data.mkdir(exist_ok=True)
    for model in models:
        if model.file is None:
            command(data, "models", "pull", model.name)
            continue
        mark = cache / f"{model.name}.pushed"
        sha256 = hashlib.sha256(model.file.read_bytes()).hexdigest()
        if not mark.exists() or mark.read_text() != sha256:
            command(data, "models", "push", model.name, str(model.file), "--sha256", sha256)
            mark.write_text(sha256)
    return data


@contextlib.contextmanager
def openmaas(cache: Path, models: Sequence[Model], **env: str) -> Iterator[Served]:
    """A server with these models deployed and nothing else, ready to answer."""
    data = prepare(cache, models)
    for model in models:
        words = [w for k, v in model.options.items() for w in ("--option", f"{k}={v}")]
        words += ["--runtime", model.runtime] if model.runtime else []
        command(data, "deploy", model.name, *words)
    key = "om-bench-" + secrets.token_urlsafe(32)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {"OPENMAAS_DATA_DIR": str(data), "OPENMAAS_ADMIN_KEY": key, **env}
    serve = [*OPENMAAS, "serve", "--host", "127.0.0.1", "--port", str(port)]
    try:
        with server(serve, f"{url}/health", cache / "openmaas.log", env=environment) as pid:
            yield Served(url, key, pid, data)
    finally:
        for model in models:
            command(data, "undeploy", model.name)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for request bodies."""
    return tempfile.TemporaryDirectory(prefix="openmaas-bench-")
