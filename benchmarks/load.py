"""Load from ``wrk``, in its own process."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("post.lua")


@dataclass(frozen=True)
class Load:
    """What a run showed."""

    per_second: float  # good answers
    p50_ms: float
    p99_ms: float


def wrk(url: str, bodies: Path, *, connections: int, seconds: int, key: str | None = None) -> Load:
    """POSTs the lines of ``bodies`` over so many connections for so long.

    Raises:
        RuntimeError: there is no ``wrk``, or any request was refused or broke.
    """
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("wrk is missing: apt-get install wrk")
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    command += ["-s", str(SCRIPT), url, "--", str(bodies), *([key] if key else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT "))
    result = json.loads(line.removeprefix("RESULT "))
    if result["refused"] or result["broken"]:
        raise RuntimeError(f"{url}: {line}")
    return Load(result["requests"] / result["seconds"], result["p50_ms"], result["p99_ms"])
