"""A rollout under load: version 1 → canary 10 % → 100 % → rollback, in equal parts of a run.

64 connections of a process of their own (``answers.py``) call the digits network all the while. No
call may fail, each must be labelled with the version that answered it, and the shares must be
those that were asked for within two points.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import peers
import report
from serve import Model, Served, openmaas, scratch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.stores import another_version  # noqa: E402

from openmaas.client import Client  # noqa: E402

HERE = Path(__file__).parent
CONNECTIONS, POINTS, SETTLE_SECONDS = 64, 0.02, 0.25
ROW = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]}


class Answer(NamedTuple):
    began: float
    seconds: float
    status: str
    body: str
    header: str


class Phase(NamedTuple):
    name: str
    share: float  # of version 2 that is wanted
    took: float  # milliseconds until the alias had changed
    begin: float
    end: float


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.set_defaults(rounds=1)
    parser.add_argument("--seconds", type=float, default=60, help="of each round")
    chosen = parser.parse_args()
    print(report.machine())
    bad = 0
    for number in range(chosen.rounds):
        # A folder of its own each round: the one before has a second version.
        with scratch() as folder, openmaas(Path(folder), [Model("digits")]) as served:
            phases, answers = run(served, chosen.seconds)
        bad += show(phases, answers)
        print(f"round {number + 1} of {chosen.rounds}", flush=True)
    sys.exit(1 if bad else 0)


def run(served: Served, seconds: float) -> tuple[list[Phase], list[Answer]]:
    another_version(served.data, "digits")
    phases = []
    with tempfile.NamedTemporaryFile("w", suffix=".json") as body:
        body.write(json.dumps(ROW))
        body.flush()
        words = [f"{served.url}/v2/models/digits/infer", body.name, str(CONNECTIONS)]
        load = subprocess.Popen(
            [sys.executable, str(HERE / "answers.py"), *words, str(seconds), served.key],
            stdout=subprocess.PIPE,
            text=True,
        )
        with Client(served.url, served.key) as client:
            rollouts = client.deployments
            for name, share, change in (
                ("version 1", 0.0, lambda: None),
                ("canary", 0.1, lambda: rollouts.point("digits", {1: 90, 2: 10})),
                ("promoted", 1.0, lambda: rollouts.promote("digits", 2)),
                ("rolled back", 0.0, lambda: rollouts.roll_back("digits")),
            ):
                began = time.monotonic()
                change()
                done = time.monotonic()
                time.sleep(max(0.0, began + seconds / 4 - time.monotonic()))
                took = (done - began) * 1000
                phases.append(Phase(name, share, took, done, time.monotonic()))
        out, _ = load.communicate()
    if load.returncode:
        raise RuntimeError("the load generator broke")
    answers = []
    for line in out.splitlines():
        began_, took_, status, told, header = line.split()
        answers.append(Answer(float(began_), float(took_), status, told, header))
    return phases, answers


def show(phases: list[Phase], answers: list[Answer]) -> int:
    """Prints the table; how many bars were missed."""
    failed = sum(one.status != "200" for one in answers)
    wrong = sum(
        one.status == "200" and (one.body != one.header or one.body == "-") for one in answers
    )
    rows, missed = [], int(failed > 0) + int(wrong > 0)
    for phase in phases:
        own = [one for one in answers if phase.begin < one.began < phase.end - SETTLE_SECONDS]
        if len(own) < 2:
            raise RuntimeError(f"{phase.name}: no calls; give it more --seconds")
        share = sum(one.body == "2" for one in own) / len(own)
        met = abs(share - phase.share) <= POINTS
        missed += not met
        cuts = quantiles([one.seconds * 1000 for one in own], n=100)
        rows.append([
            phase.name, f"{len(own):,}", f"{share:.2%} ({'meets' if met else 'MISSES'})",
            f"{phase.took:.0f}", f"{cuts[49]:.1f}", f"{cuts[98]:.1f}",
        ])  # fmt: skip
    header = ["phase", "calls", "of version 2", "change, ms", "p50, ms", "p99, ms"]
    title = f"{len(answers):,} calls: {failed} failed, {wrong} labelled wrongly"
    report.table(title, header, rows)
    return missed


if __name__ == "__main__":
    main()
