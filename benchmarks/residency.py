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
from typing import NamedTuple

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
HIT_SECONDS = 0.25  # hits take up to 0.13 on busy cores, reloads 0.5 and more
MOST = 1.05  # of the budget
CASES = ("hits, %", "hit p50, ms", "reload p50, s", "reload p95, s", "loads", "left for others")
PATTERNS = {"evenly": [1.0] * MODELS, "by Zipf's law": [1 / (n + 1) for n in range(MODELS)]}
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


class Seen(NamedTuple):
    """What a run showed."""

    calls: int
    failed: int
    most: int  # bytes of all workers
    hits: list[float]  # seconds of each
    reloads: list[float]
    loads: int  # workers that were started
    evictions: int


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.set_defaults(rounds=1)
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
        seen: dict[str, list[Seen]] = {pattern: [] for pattern in PATTERNS}
        for number in range(chosen.rounds):
            for pattern, weights in PATTERNS.items():
                data = Path(scratch) / f"{pattern[:2]}-{number}"
                shutil.copytree(base, data)
                seen[pattern].append(asked(data, budget, weights, chosen.requests, number))
            print(f"round {number + 1} of {chosen.rounds}", flush=True)
        show(seen, one, budget)
        data = Path(scratch) / "last"
        shutil.copytree(base, data)
        leaving(data, 2 * MODELS * one)
        never(data)
    runs = [run for several in seen.values() for run in several]
    sys.exit(any(run.failed or run.most > MOST * budget for run in runs))


def show(seen: dict[str, list[Seen]], one: int, budget: int) -> None:
    rows = []
    for pattern, runs in seen.items():
        rounds = report.Rounds()
        for run in runs:
            cuts = quantiles(run.reloads, n=20)
            rounds.add("", "hits, %", 100 * len(run.hits) / run.calls)
            rounds.add("", "hit p50, ms", quantiles(run.hits, n=2)[0] * 1000)
            rounds.add("", "reload p50, s", cuts[9])
            rounds.add("", "reload p95, s", cuts[18])
            rounds.add("", "loads", run.loads)
            rounds.add("", "left for others", run.evictions)
        rows.append([
            pattern, str(sum(run.calls for run in runs)), str(sum(run.failed for run in runs)),
            report.ratio(max(run.most for run in runs) / budget, MOST, most=True),
            *[report.number(rounds.median("", case)) for case in CASES],
        ])  # fmt: skip
    title = (
        f"{MODELS} models of {one / MIB:.0f} MiB, budget {budget / MIB:.0f} MiB; "
        "calls, failed and most of all rounds, the others their medians"
    )
    report.table(title, ["called", "calls", "failed", "most ÷ budget", *CASES], rows)


def footprint(base: Path, data: Path) -> int:
    shutil.copytree(base, data)
    deploy(data, "digits")
    with serving(data) as server:
        predict(server, "digits")
        (one,) = server.client.get("/v1/deployments").json()["data"]
        return int(one["memory"])


def predict(server: ServerProcess, model: str) -> httpx.Response:
    return server.client.post(f"/v2/models/{model}/infer", json=ROW)


def asked(data: Path, budget: int, weights: Sequence[float], requests: int, number: int) -> Seen:
    """Calls models at random, other ones each round."""
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
            names = random.Random(number * CALLERS + seed)
            for _ in range(requests // CALLERS):
                (name,) = names.choices(NAMES, weights)
                awake = server.worker_pid(name) is not None
                began = time.monotonic()
                good = predict(server, name).status_code == 200
                took = time.monotonic() - began
                with lock:
                    failed += not good
                    (hits if awake and took < HIT_SECONDS else reloads).append(took)

        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(call, range(CALLERS)))
        told = server.client.get("/v1/deployments").json()
    out, _ = sampler.communicate(timeout=10)
    return Seen(
        calls=len(hits) + len(reloads),
        failed=failed,
        most=int(out.split()[-1]),
        hits=hits,
        reloads=reloads,
        loads=sum(one["loads"] for one in told["data"]),
        evictions=told["memory"]["evictions"],
    )


def leaving(data: Path, budget: int) -> None:
    """How long after its last call each model is gone, where none must leave for another."""
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
        evictions = server.client.get("/v1/deployments").json()["memory"]["evictions"]
    if evictions:
        raise RuntimeError("a model left for another, not because it was idle")
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
