"""Whose tokens are served where tenants want more than there is: by weight, or by arrival.

Each tenant keeps many more streams open than the model has places. Weights 3:1 is judged by the
tokens that came out, as both ask for the same. Equal weights is judged by Jain's index of service
as the scheduler's paper counts it, an output token being two input tokens: the tenants differ in
connections and in the length of what they ask for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
import report
from conversations import conversation
from serve import Model, Served, command, openmaas, scratch

from openmaas.serving.fairness import OUTPUT_WEIGHT

HERE = Path(__file__).parent
MODEL, WARM_SECONDS = "smollm2-135m", 15
ORDERS = {"tokens": "by weight", "arrival": "by arrival"}
JAIN, OFF_BY = 0.98, 0.05


@dataclass(frozen=True)
class Tenant:
    """One that wants more than it can get."""

    name: str
    weight: int
    connections: int
    tokens: int  # that each answer has


CASES = {
    "3:1": [Tenant("heavy", 3, 128, 32), Tenant("light", 1, 128, 32)],
    "equal": [
        Tenant("equal-1", 1, 40, 16),
        Tenant("equal-2", 1, 80, 32),
        Tenant("equal-3", 1, 120, 64),
        Tenant("equal-4", 1, 160, 96),
    ],
}


def key(served: Served, tenant: Tenant) -> str:
    if tenant.name not in command(served.data, "tenants", "list").split():
        weight = ("--weight", str(tenant.weight))
        command(served.data, "tenants", "create", tenant.name, *weight)
    return command(served.data, "keys", "create", "bench", "--tenant", tenant.name).split()[-1]


def flood(served: Served, tenants: list[Tenant], seconds: int) -> dict[str, Any]:
    """All tenants at the same time, from a process of its own."""
    floods = [
        {
            "key": key(served, tenant),
            "connections": tenant.connections,
            "bodies": [body(1000 * at + number, tenant.tokens) for number in range(500)],
        }
        for at, tenant in enumerate(tenants)
    ]
    url = f"{served.url}/v1/chat/completions"
    with scratch() as folder:
        file = Path(folder) / "floods.json"
        file.write_text(json.dumps(floods))
        script = [sys.executable, str(HERE / "floods.py"), url, str(file)]
        words = [*script, str(WARM_SECONDS), str(seconds)]
        done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def body(number: int, tokens: int) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": conversation(number),
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def jain(shares: Sequence[float]) -> float:
    """1: all have the same; 1/n: one has everything (Jain, Chiu, Hawe 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def main() -> None:
    parser = peers.arguments("Tokens served to tenants that contend, by weight and by arrival.")
    parser.add_argument("--seconds", type=int, default=60, help="of each run, after a warm-up")
    parser.add_argument("--only", action="append", choices=CASES, help="repeatable")
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    print(report.machine())
    rounds = report.Rounds()
    for number in range(chosen.rounds):
        for order, name in ORDERS.items():
            with openmaas(cache, [Model(MODEL)], OPENMAAS_FAIRNESS=order) as served:
                for case in chosen.only or CASES:
                    found = flood(served, CASES[case], chosen.seconds)
                    note(rounds, name, case, found)
        print(f"round {number + 1} of {chosen.rounds}", flush=True)
    show(rounds, chosen.only or list(CASES), chosen.seconds)


def note(rounds: report.Rounds, order: str, case: str, found: dict[str, Any]) -> None:
    out = [one["output"] for one in found["tenants"]]
    service = [one["input"] + OUTPUT_WEIGHT * one["output"] for one in found["tenants"]]
    for tenant, tokens, got in zip(CASES[case], out, service, strict=True):
        rounds.add(order, tenant.name, tokens)
        rounds.add(order, f"{tenant.name} service", got)
    rounds.add(order, f"{case} tokens/s", sum(out) / found["seconds"])
    rounds.add(order, f"{case} ratio", out[0] / out[1])
    rounds.add(order, f"{case} jain", jain(service))
    rounds.add(order, f"{case} jain of output", jain(out))


def show(rounds: report.Rounds, cases: Sequence[str], seconds: int) -> None:
    lines = []
    for order in ORDERS.values():
        for case in cases:
            if case != "3:1":
                continue
            tokens = [rounds.spread(order, tenant.name) for tenant in CASES[case]]
            ratio = rounds.median(order, f"{case} ratio") or 0.0
            verdict = f"{ratio:.2f}"
            if order == ORDERS["tokens"]:
                met = abs(ratio / 3 - 1) <= OFF_BY
                verdict += f" ({'meets' if met else 'MISSES'} 3 ± {OFF_BY:.0%})"
            lines.append([order, *tokens, rounds.spread(order, f"{case} tokens/s"), verdict])
    if lines:
        header = ["order", "weight 3, tokens", "weight 1, tokens", "tokens/s", "ratio"]
        count = CASES["3:1"][0].connections
        report.table(f"two tenants, {count} streams each, {seconds} s", header, lines)
    lines = []
    for order in ORDERS.values():
        if "equal" not in cases:
            continue
        for what, suffix in (("service", " service"), ("output tokens", "")):
            got = [rounds.spread(order, tenant.name + suffix) for tenant in CASES["equal"]]
            index = rounds.median(order, "equal jain" if suffix else "equal jain of output") or 0.0
            bar = JAIN if suffix and order == ORDERS["tokens"] else None
            verdict = report.ratio(index, bar)
            lines.append([f"{order}, {what}", *got, verdict])
    if lines:
        names = [f"{one.connections} × {one.tokens}" for one in CASES["equal"]]
        title = f"four tenants of equal weight, streams × tokens of an answer, {seconds} s"
        report.table(title, ["order", *names, "Jain's index"], lines)


if __name__ == "__main__":
    main()
