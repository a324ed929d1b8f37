"""Programs that tests run in a process of their own, where Keras computes on JAX."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

import openmaas

ROOT = Path(__file__).parents[3]


def run(module: str, *arguments: str) -> object:
    """What a program beside this one prints at last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.training.differential_privacy.{module}", *arguments],
        env={
            "PYTHONPATH": f"{Path(openmaas.__file__).parent.parent}:{ROOT}",
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1])
