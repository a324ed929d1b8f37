"""Interactive calls beside a batch that would take all there is: their latency with ÷ without.

Usage: ``batches.py [--rounds 3] [--seconds 15]``. Interactive calls leave at a steady pace
(``paced.py``, a process of its own); the batch is OpenAI's, of the same kind of call. Both runs of
a round are on one server, one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import httpx
from peers import arguments, cache_folder
from report import Rounds, machine, number, ratio, table
from serve import Model, Served, openmaas, scratch

HERE = Path(__file__).parent
BAR = 1.5
LINES = 5000  # of a batch: more than it can be through with


class Case(NamedTuple):
    model: str
    path: str
    pace: float  # interactive calls a second
    body: dict[str, object]
    line: dict[str, object]  # of the batch


CHAT = {"max_tokens": 32, "temperature": 0, "ignore_eos": True}
CASES = {
    "chat, 32 tokens": Case(
        "smollm2-135m",
        "/v1/chat/completions",
        1.0,
        CHAT | {"messages": [{"role": "user", "content": "Name three colours of the rainbow."}]},
        CHAT | {"messages": [{"role": "user", "content": "Tell me a short story of the sea."}]},
    ),
    "embedding of a sentence": Case(
        "minilm-l6-v2",
        "/v1/embeddings",
        20.0,
        {"input": "The cat sits on the mat and looks at the rain."},
        {"input": "Stocks fell on Monday as investors weighed the news from abroad."},
    ),
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run")
    asked = parser.parse_args()
    print(machine())
    seen = Rounds()
    lines: dict[str, float] = {}
    models = [Model(case.model) for case in CASES.values()]
    with openmaas(cache_folder(asked.cache), models) as served:
        for round_ in range(asked.rounds):
            for name, case in CASES.items():
                alone = interactive(served, case, asked.seconds)
                batch = begin(served, case)
                time.sleep(3)  # it is under way
                before = done(served, batch)
                beside = interactive(served, case, asked.seconds)
                lines[name] = (done(served, batch) - before) / asked.seconds
                end(served, batch)
                for who, times in (("alone", alone), ("beside", beside)):
                    seen.add(who, f"{name} p50", at(times, 0.5))
                    seen.add(who, f"{name} p99", at(times, 0.99))
                print(f"round {round_ + 1}, {name}: done", file=sys.stderr)
    rows = []
    for name in CASES:
        for quantile in ("p50", "p99"):
            case = f"{name} {quantile}"
            bar = BAR if quantile == "p99" else None
            rows.append([
                case,
                number(seen.median("alone", case)),
                number(seen.median("beside", case)),
                ratio(seen.ratio(case, "beside", "alone"), bar, most=True),
                f"{lines[name]:.1f}" if quantile == "p50" else "",
            ])  # fmt: skip
    header = ["interactive", "alone, ms", "beside a batch, ms", "ratio", "batch lines/s"]
    table(f"Beside a batch of {LINES:,} lines, medians of {asked.rounds} rounds", header, rows)


def at(times: list[float], quantile: float) -> float:
    return times[min(len(times) - 1, int(quantile * len(times)))]


def interactive(served: Served, case: Case, seconds: float) -> list[float]:
    """Milliseconds of each call, sorted."""
    with scratch() as folder:
        bodies = Path(folder) / "bodies"
        bodies.write_text(json.dumps({"model": case.model, **case.body}) + "\n")
        url = served.url + case.path
        words = [url, str(bodies), str(case.pace), str(seconds), served.key, "3"]
        done_ = subprocess.run(
            [sys.executable, str(HERE / "paced.py"), *words],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    told = json.loads(done_.stdout)
    if told["failed"]:
        raise RuntimeError(f"{told['failed']} interactive calls failed")
    return list(told["ms"])


def begin(served: Served, case: Case) -> str:
    """A batch that runs; its id."""
    line = {"method": "POST", "url": case.path, "body": {"model": case.model, **case.line}}
    text = "".join(json.dumps({"custom_id": str(n), **line}) + "\n" for n in range(LINES))
    with client(served) as http:
        file = http.post("/v1/files", files={"file": ("batch.jsonl", text)},
                         data={"purpose": "batch"}).raise_for_status().json()  # fmt: skip
        body = {
            "input_file_id": file["id"], "endpoint": case.path, "completion_window": "24h",
        }  # fmt: skip
        made = http.post("/v1/batches", json=body).raise_for_status().json()
        while made["status"] == "validating":
            time.sleep(0.1)
            made = http.get(f"/v1/batches/{made['id']}").json()
        if made["status"] != "in_progress":
            raise RuntimeError(str(made))
    return str(made["id"])


def done(served: Served, batch: str) -> int:
    with client(served) as http:
        return int(http.get(f"/v1/batches/{batch}").json()["request_counts"]["completed"])


def end(served: Served, batch: str) -> None:
    with client(served) as http:
        http.post(f"/v1/batches/{batch}/cancel")
        while http.get(f"/v1/batches/{batch}").json()["status"] not in ("cancelled", "completed"):
            time.sleep(0.2)


def client(served: Served) -> httpx.Client:
    headers = {"Authorization": f"Bearer {served.key}"}
    return httpx.Client(base_url=served.url, headers=headers, timeout=120)


if __name__ == "__main__":
    main()
