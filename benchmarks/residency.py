"""Twice as many models as the memory budget holds, called at random; and how they leave.

The models are copies of the digits network under names of their own. Four callers ask for one after
the other, evenly or by Zipf's law; a process of its own measures the workers' resident memory.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles

import httpx
import peers
import report

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.processes import ServerProcess, cli, serving  # noqa: E402
from tests.stores import copy_model, deploy  # noqa: E402

MODELS, FIT, CALLERS = 8, 4, 4
NAMES = [f"model-{n}" for n in range(MODELS)]
ROW = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]}
MIB = 1 << 20
IDLE_SECONDS = 2.0
SAMPLER = """
import sys, time
from pathlib import Path
server, most = sys.argv[1], 0
tasks = Path(f"/proc/{server}/task")
while tasks.exists():
    total = 0
    try:
        pids = {p for t in tasks.glob("*/children") for p in t.read_text().split()}
    except OSError:
        break
    for pid in pids:
        try:
            if b"serving.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        except (OSError, IndexError):
            pass
    if total > most:
        most = total
        print(most, flush=True)
    time.sleep(0.05)
"""


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.add_argument("--requests", type=int, default=300, help="of each pattern")
    chosen = parser.parse_args()
    print(report.machine())
    with tempfile.TemporaryDirectory(prefix="openmaas-residency-") as scratch:
        base = Path(scratch) / "base"
        base.mkdir()
        cli(base, "models", "pull", "digits")
        copy_model(base, "digits", *NAMES)
        one = footprint(base, Path(scratch) / "one")
        budget = int(one * (FIT + 0.5))
        rows = []
        for pattern, weights in (
            ("evenly", [1.0] * MODELS),
            ("by Zipf's law", [1 / (n + 1) for n in range(MODELS)]),
        ):
            data = Path(scratch) / pattern.replace(" ", "-")
            shutil.copytree(base, data)
            rows.append([pattern, *asked(data, budget, weights, chosen.requests)])
        header = ["called", "calls", "failed", "most ÷ budget", "hits", "reload p50, s",
                  "reload p95, s", "hit p50, ms", "left for others"]  # fmt: skip
        title = f"{MODELS} models of {one / MIB:.0f} MiB, budget {budget / MIB:.0f} MiB"
        report.table(title, header, rows)
        data = Path(scratch) / "last"
        shutil.copytree(base, data)
        leaving(data, budget)
        never(data)


def footprint(base: Path, data: Path) -> int:
    shutil.copytree(base, data)
    deploy(data, "digits")
    with serving(data) as server:
        predict(server, "digits")
        (one,) = server.client.get("/v1/deployments").json()["data"]
        return int(one["memory"])


def predict(server: ServerProcess, model: str) -> httpx.Response:
    return server.client.post(f"/v2/models/{model}/infer", json=ROW)


def asked(data: Path, budget: int, weights: Sequence[float], requests: int) -> list[str]:
    """Calls models at random; a row of the table."""
    for name in NAMES:
        deploy(data, name)
    hits, reloads, failed = list[float](), list[float](), 0
    lock = threading.Lock()
    with serving(data, OPENMAAS_MEMORY_BUDGET=str(budget)) as server:
        sampler = subprocess.Popen(
            [sys.executable, "-c", SAMPLER, str(server.process.pid)],
            stdout=subprocess.PIPE,
            text=True,
        )

        def call(seed: int) -> None:
            nonlocal failed
            names = random.Random(seed)
            for _ in range(requests // CALLERS):
                (name,) = names.choices(NAMES, weights)
                awake = server.worker_pid(name) is not None
                began = time.monotonic()
                good = predict(server, name).status_code == 200
                took = time.monotonic() - began
                with lock:
                    failed += not good
                    (hits if awake and took < 0.1 else reloads).append(took)

        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(call, range(CALLERS)))
        evictions = server.client.get("/v1/deployments").json()["memory"]["evictions"]
    out, _ = sampler.communicate(timeout=10)
    most = int(out.split()[-1])
    total = len(hits) + len(reloads)
    cuts = quantiles(reloads, n=20)
    return [
        str(total), str(failed), report.ratio(most / budget, 1.05, most=True),
        f"{len(hits) / total:.0%}", f"{cuts[9]:.2f}", f"{cuts[18]:.2f}",
        f"{quantiles(hits, n=2)[0] * 1000:.1f}", str(evictions),
    ]  # fmt: skip


def leaving(data: Path, budget: int) -> None:
    """How long after its last call each model is gone."""
    names = NAMES[:FIT]
    for name in names:
        deploy(data, name)
    settings = {"OPENMAAS_MEMORY_BUDGET": str(budget), "OPENMAAS_IDLE_SECONDS": str(IDLE_SECONDS)}
    with serving(data, **settings) as server:
        last = {}
        for name in names:
            predict(server, name)
            last[name] = time.monotonic()
        gone: dict[str, float] = {}
        while len(gone) < len(names):
            for name in names:
                if name not in gone and server.worker_pid(name) is None:
                    gone[name] = time.monotonic() - last[name]
            time.sleep(0.02)
    times = sorted(gone.values())
    print(
        f"  idle for {IDLE_SECONDS:g} s, models were gone after {times[0]:.2f} to {times[-1]:.2f} s"
    )


def never(data: Path) -> None:
    """What a model is told that no budget of this server holds."""
    with serving(data, OPENMAAS_MEMORY_BUDGET=str(48 * MIB)) as server:
        answer = predict(server, NAMES[0])
    print(f"  in a budget of 48 MiB: {answer.status_code}, {answer.json()['error']}\n")


if __name__ == "__main__":
    main()
