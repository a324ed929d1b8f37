"""Memory of the gateway and of each worker, and which engines each has loaded."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import peers
import report
from serve import Model, openmaas

GATEWAY_MIB = 150
ENGINES = ("openvino", "xllamacpp", "torch", "tensorflow", "jax", "onnxruntime", "tokenizers")
MODELS = ("smollm2-135m", "minilm-l6-v2", "digits")


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *children(child)]
    return found


def mebibytes(pid: int) -> tuple[float, float]:
    """Resident memory, and the proportional share of it (shared pages split among users)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    figures = dict(re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.MULTILINE))
    return int(figures["Rss"]) / 1024, int(figures["Pss"]) / 1024


def engines(pid: int) -> str:
    """Which engines' libraries are mapped into a process: the proof of what it imported."""
    mapped = Path(f"/proc/{pid}/maps").read_text()
    found = [name for name in ENGINES if f"/site-packages/{name}" in mapped]
    return ", ".join(found) or "none"


def role(pid: int, models: tuple[str, ...]) -> str:
    """``worker: MODEL``, by the command line."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    for model in models:
        if json.dumps(model) in line:
            return f"worker: {model}"
    return "child: " + line.replace("\0", " ")[:40]


def main() -> None:
    chosen = peers.arguments(__doc__ or "").parse_args()
    cache = peers.cache_folder(chosen.cache)
    lines, sizes = [], []
    for number in range(chosen.rounds):
        with openmaas(cache, [Model(name) for name in MODELS]) as served:
            size, share = mebibytes(served.pid)
            sizes.append(size)
            loaded = engines(served.pid)
            lines = [["gateway", f"{size:.0f}", f"{share:.0f}", loaded]]
            for pid in children(served.pid):
                size, share = mebibytes(pid)
                lines.append([role(pid, MODELS), f"{size:.0f}", f"{share:.0f}", engines(pid)])
        print(f"round {number + 1} of {chosen.rounds}", flush=True)
    report.table(
        "Memory after start, MiB", ["process", "resident", "proportional", "engines mapped"], lines
    )
    rounds = report.Rounds()
    for size in sizes:
        rounds.add("gateway", "", size)
    verdict = report.ratio(rounds.median("gateway", ""), GATEWAY_MIB, most=True)
    print(f"  gateway alone, median of {len(sizes)}: {verdict} MiB; engines in it: {loaded}\n")
    sys.exit(0 if loaded == "none" else 1)


if __name__ == "__main__":
    main()
