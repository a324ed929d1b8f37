"""From nothing to the first answer, for each runtime: deployed just now, and scaled to zero.

Each model has a server to itself, whose gateway runs already. "deployed" is timed from the API's
call to deploy it to its first answer; "asleep" from a call of a model that left memory to its
answer; "awake" is a call of one that is loaded. "bare" is a new process that loads the same
artifact into the engine alone (``bare_load.py``) and answers nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import peers
import report
from filelock import FileLock
from serve import scratch

from language import engine_settings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.conftest import deploy_echo  # noqa: E402
from tests.language_folders import artifact  # noqa: E402
from tests.processes import ServerProcess, cli, serving  # noqa: E402
from tests.stores import opened  # noqa: E402

BARE = Path(__file__).with_name("bare_load.py")
IDLE_SECONDS = "1"
# What the server gives the engines, on a CPU without AMX.
NETWORK = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",
}
LLAMA = {"n_parallel": 8, "n_ctx": 8 * 4096, "cache_ram_mib": 0, "warmup": False}


class Case(NamedTuple):
    runtime: str
    model: str
    path: str
    body: dict[str, Any]


CHAT = {"max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
PIXELS = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]}
CASES = [
    Case("echo", "echo", "/v1/chat/completions", CHAT | {"model": "echo"}),
    Case("openvino_tensors", "digits", "/v2/models/digits/infer", PIXELS),
    Case("openvino_embeddings", "minilm-l6-v2", "/v1/embeddings",
         {"model": "minilm-l6-v2", "input": "Hello"}),
    Case("openvino_classifier", "sentiment", "/v1/sentiment",
         {"model": "sentiment", "input": "Great job!"}),
    Case("openvino_translation", "en-pt", "/v1/translate",
         {"model": "en-pt", "input": "The book is on the table.", "target": "pt"}),
    Case("openvino_genai", "smollm2-135m", "/v1/chat/completions",
         CHAT | {"model": "smollm2-135m"}),
    Case("llamacpp", "gemma3-270m", "/v1/completions",
         {"model": "gemma3-270m", "prompt": "Hi", "max_tokens": 1}),
]  # fmt: skip


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    runtimes = [case.runtime for case in CASES]
    parser.add_argument("--only", choices=runtimes, action="append", help="repeatable")
    chosen = parser.parse_args()
    cases = [case for case in CASES if case.runtime in (chosen.only or runtimes)]
    cache = peers.cache_folder(chosen.cache) / "cold-models"
    print(report.machine())
    seen = report.Rounds()
    memory: dict[str, int] = {}
    with scratch() as temporary:
        data = Path(temporary) / "data"
        prepared(cache, data, cases)
        for number in range(chosen.rounds):
            for case in cases:
                with serving(data, OPENMAAS_IDLE_SECONDS=IDLE_SECONDS) as server:
                    memory[case.runtime] = measure(server, case, seen)
                cli(data, "undeploy", case.model)
                if case.runtime != "echo":
                    seen.add("bare", case.runtime, bare(case, artifact(data, case.model)))
            print(f"round {number + 1} of {chosen.rounds}", flush=True)
    rows = [
        [
            f"{case.runtime}: {case.model}",
            *[seen.spread(what, case.runtime) for what in ("deployed", "asleep", "bare", "awake")],
            report.ratio(seen.ratio(case.runtime, "asleep", "bare")),
            f"{memory[case.runtime] / (1 << 20):.0f}",
        ]
        for case in cases
    ]
    header = ["runtime", "deployed, s", "asleep, s", "bare load, s", "awake, s", "asleep ÷ bare",
              "MiB"]  # fmt: skip
    report.table(f"Seconds to an answer, medians of {chosen.rounds} rounds", header, rows)


def prepared(cache: Path, folder: Path, cases: list[Case]) -> None:
    """A data folder with the models and nothing deployed. They are fetched once, into the cache;
    each run serves a copy of its own, so that two do not meet."""
    wanted = {"digits" if case.model == "echo" else case.model for case in cases}
    with FileLock(f"{cache}.lock"):
        cache.mkdir(exist_ok=True)
        with opened(cache) as store:
            missing = sorted(wanted - {one.model for one in store.records.versions()})
        if missing:
            print(f"fetching {', '.join(missing)}", flush=True)
            cli(cache, "models", "pull", *missing, timeout=1800)
        shutil.copytree(cache, folder)
    if "echo" in {case.model for case in cases}:
        deploy_echo(folder)
        cli(folder, "undeploy", "echo")


def bare(case: Case, folder: Path) -> float:
    """Seconds until the engine alone has an artifact in memory."""
    settings = {"openvino_genai": engine_settings(), "llamacpp": LLAMA}.get(case.runtime, NETWORK)
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, str(BARE), case.runtime, str(folder), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        took = time.monotonic() - began
        process.kill()
    if said != "ready\n":
        raise RuntimeError(f"{case.runtime}: the bare engine did not load")
    return took


def measure(server: ServerProcess, case: Case, seen: report.Rounds) -> int:
    """One round of one case; bytes that its worker takes."""
    body: dict[str, Any] = {"model": case.model, "runtime": case.runtime}
    if case.runtime == "echo":
        body["options"] = {"task": "chat"}
    began = time.monotonic()
    server.client.post("/v1/deployments", json=body).raise_for_status()
    ask(server, case)
    seen.add("deployed", case.runtime, time.monotonic() - began)
    began = time.monotonic()
    ask(server, case)
    seen.add("awake", case.runtime, time.monotonic() - began)

    def one() -> Any:
        (found,) = server.client.get("/v1/deployments").json()["data"]
        return found

    memory = int(one()["memory"])
    server.wait_until(lambda: one()["state"] == "asleep", 30)
    server.wait_until(lambda: not server.workers(), 30)
    began = time.monotonic()
    ask(server, case)
    seen.add("asleep", case.runtime, time.monotonic() - began)
    return memory


def ask(server: ServerProcess, case: Case) -> None:
    server.client.post(case.path, json=case.body).raise_for_status()


if __name__ == "__main__":
    main()
