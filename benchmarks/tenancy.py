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
ON, OFF = "tenancy on", "tenancy off"
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
        bounded = tenant(on)
        for number in range(chosen.rounds):
            turn = [(ON, on.url, bounded), (OFF, off.url, "none")]
            for name, url, key in turn if number % 2 else reversed(turn):
                predictions(rounds, name, f"{url}/v2/models/small/infer", file, key, chosen.seconds)
                if "streams" not in chosen.skip:
                    language(rounds, name, url, chats, key, number)
            print(f"round {number + 1}", flush=True)
    show(rounds)


def tenant(on: Served) -> str:
    """A tenant of its own, with prices and quotas that bind but do not refuse; its key."""
    known = command(on.data, "tenants", "list")
    if "bench" not in known:
        quota = [word for pair in QUOTA for word in ("--quota", pair)]
        command(on.data, "tenants", "create", "bench", *quota)
    return command(on.data, "keys", "create", "bench", "--tenant", "bench").split()[-1]


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


def language(
    rounds: report.Rounds, name: str, url: str, file: Path, key: str, number: int
) -> None:
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
    for case, target, most in (
        ("requests/s", 0.85, False),
        ("p50 ms", None, False),
        ("p99 ms", None, False),
        ("tokens/s", 0.98, False),
    ):
        compared = report.ratio(rounds.ratio(case, ON, OFF), target, most=most)
        lines.append([case, rounds.spread(ON, case), rounds.spread(OFF, case), compared])
    report.table(
        f"the small network at {CONNECTIONS} connections, the language model at {STREAMS} streams",
        ["", ON, OFF, "on ÷ off"],
        lines,
    )
    lines = []
    for case, bar in (("paced p50", 1.5), ("paced p99", 8.0)):
        on, off = rounds.median(ON, case), rounds.median(OFF, case)
        if on is None or off is None:
            continue
        more = on - off
        told = f"{more:.2f} ({'meets' if more <= bar else 'MISSES'} ≤ {bar:g})"
        lines.append([case.removeprefix("paced "), rounds.spread(ON, case),
                      rounds.spread(OFF, case), told])  # fmt: skip
    report.table(f"at {PACE} requests/s, ms", ["", ON, OFF, "added"], lines)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
