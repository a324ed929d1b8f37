"""What keys, quotas, fair queue and ledger cost: the same server with tenancy on and off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import peers
import report
from conversations import conversation
from load import wrk
from prediction import bodies, small_network
from serve import Model, Served, command, openmaas, scratch

HERE = Path(__file__).parent
CONNECTIONS, STREAMS, TOKENS, PACE = 64, 32, 64, 100
ON, BOUNDED, OFF = "tenancy on", "on, with quotas", "tenancy off"
QUOTA = ("requests_per_minute=100000000", "tokens_per_day=100000000000", "money_per_month=1000000")


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.add_argument("--seconds", type=int, default=5, help="of each run")
    parser.add_argument("--skip", action="append", default=[], choices=["streams"])
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    model = cache / "small.onnx"
    if not model.exists():
        small_network(model)
    models = [Model("small", model), Model("smollm2-135m")]
    rounds = report.Rounds()
    print(report.machine())
    (cache / "tenancy-off").mkdir(exist_ok=True)
    with (
        scratch() as folder,
        openmaas(cache, models) as on,
        openmaas(cache / "tenancy-off", models, OPENMAAS_TENANCY="false") as off,
    ):
        rows = np.random.default_rng(1).standard_normal((64, 100)).astype(np.float32).round(6)
        file = bodies(Path(folder), rows)[True]
        chats = Path(folder) / "chats.jsonl"
        free, bounded = key(on, "free"), key(on, "bounded", *QUOTA)
        for number in range(chosen.rounds):
            turn = [(ON, on.url, free), (BOUNDED, on.url, bounded), (OFF, off.url, "none")]
            for name, url, secret in turn if number % 2 else reversed(turn):
                infer = f"{url}/v2/models/small/infer"
                predictions(rounds, name, infer, file, secret, chosen.seconds)
                if "streams" not in chosen.skip:
                    language(rounds, name, url, chats, secret, number)
            print(f"round {number + 1}", flush=True)
    show(rounds)


def key(on: Served, tenant: str, *quota: str) -> str:
    """A key of a tenant of its own, whose bounds bind but do not refuse."""
    if tenant not in command(on.data, "tenants", "list").split():
        words = [word for pair in quota for word in ("--quota", pair)]
        command(on.data, "tenants", "create", tenant, *words)
    return command(on.data, "keys", "create", "bench", "--tenant", tenant).split()[-1]


def predictions(
    rounds: report.Rounds, name: str, url: str, file: Path, key: str, seconds: int
) -> None:
    wrk(url, file, connections=16, seconds=1, key=key)
    load = wrk(url, file, connections=CONNECTIONS, seconds=seconds, key=key)
    rounds.add(name, "requests/s", load.per_second)
    rounds.add(name, "p50 ms", load.p50_ms)
    rounds.add(name, "p99 ms", load.p99_ms)
    script = [sys.executable, str(HERE / "paced.py"), url, str(file), str(PACE)]
    done = subprocess.run(
        [*script, str(2 * seconds), key], check=True, capture_output=True, text=True
    )
    paced = json.loads(done.stdout)
    if paced["failed"]:
        raise RuntimeError(f"{name}: {paced['failed']} requests failed")
    rounds.add(name, "paced p50", quantile(paced["ms"], 0.5))
    rounds.add(name, "paced p99", quantile(paced["ms"], 0.99))


def language(rounds: report.Rounds, name: str, url: str, file: Path, key: str, number: int) -> None:
    with file.open("w") as lines:
        for at in range(STREAMS):
            body = {
                "model": "smollm2-135m",
                "messages": conversation(number * STREAMS + at),
                "max_tokens": TOKENS,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
                "ignore_eos": True,
            }
            lines.write(json.dumps(body) + "\n")
    script = [sys.executable, str(HERE / "streams.py"), f"{url}/v1/chat/completions", str(file)]
    done = subprocess.run([*script, str(STREAMS), key], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    rounds.add(name, "tokens/s", json.loads(done.stdout)["per_second"])


def quantile(ordered: Sequence[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def show(rounds: report.Rounds) -> None:
    lines = []
    for case, target in (
        ("requests/s", 0.85),
        ("p50 ms", None),
        ("p99 ms", None),
        ("tokens/s", 0.98),
    ):
        for who in (ON, BOUNDED):
            compared = report.ratio(rounds.ratio(case, who, OFF), target)
            lines.append([f"{case}, {who}", rounds.spread(who, case), rounds.spread(OFF, case),
                          compared])  # fmt: skip
    report.table(
        f"the small network at {CONNECTIONS} connections, the language model at {STREAMS} streams",
        ["", "on", "off", "on ÷ off"],
        lines,
    )
    lines = []
    for case, bar in (("paced p50", 1.5), ("paced p99", 8.0)):
        for who in (ON, BOUNDED):
            more = (rounds.median(who, case) or 0.0) - (rounds.median(OFF, case) or 0.0)
            told = f"{more:.2f} ({'meets' if more <= bar else 'MISSES'} ≤ {bar:g})"
            spreads = [rounds.spread(one, case) for one in (who, OFF)]
            lines.append([f"{case.removeprefix('paced ')}, {who}", *spreads, told])
    report.table(f"at {PACE} requests/s, ms", ["", "on", "off", "added"], lines)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
