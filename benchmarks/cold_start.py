"""From nothing to the first answer, for each runtime: deployed just now, and scaled to zero.

Each model has a server to itself, whose gateway runs already. "deployed" is timed from the API's
call to deploy it to its first answer; "asleep" from a call of a model that left memory to its
answer; "awake" is a call of one that is loaded.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import peers
import report

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.conftest import deploy_echo  # noqa: E402
from tests.processes import ServerProcess, cli, serving  # noqa: E402

IDLE_SECONDS = "1"


class Case(NamedTuple):
    runtime: str
    model: str
    path: str
    body: dict[str, Any]


CHAT = {"max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
PIXELS = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]}
CASES = [
    Case("echo (no engine)", "echo", "/v1/chat/completions", CHAT | {"model": "echo"}),
    Case("openvino_tensors", "digits", "/v2/models/digits/infer", PIXELS),
    Case("openvino_embeddings", "minilm-l6-v2", "/v1/embeddings",
         {"model": "minilm-l6-v2", "input": "Hello"}),
    Case("openvino_classifier", "sentiment", "/v1/sentiment",
         {"model": "sentiment", "input": "Great job!"}),
    Case("openvino_translation", "en-pt", "/v1/translate",
         {"model": "en-pt", "input": "The book is on the table.", "target": "pt"}),
    Case("openvino_genai", "smollm2-135m", "/v1/chat/completions",
         CHAT | {"model": "smollm2-135m"}),
]  # fmt: skip


def main() -> None:
    chosen = peers.arguments(__doc__ or "").parse_args()
    print(report.machine())
    seen = report.Rounds()
    memory: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="openmaas-cold-") as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        cli(data, "models", "pull", *[case.model for case in CASES if case.model != "echo"])
        deploy_echo(data)
        cli(data, "undeploy", "echo")
        for number in range(chosen.rounds):
            for case in CASES:
                with serving(data, OPENMAAS_IDLE_SECONDS=IDLE_SECONDS) as server:
                    memory[case.runtime] = measure(server, case, seen)
                cli(data, "undeploy", case.model)
            print(f"round {number + 1} of {chosen.rounds}", flush=True)
    rows = [
        [
            f"{case.runtime}: {case.model}",
            *[seen.spread(case.runtime, what) for what in ("deployed", "asleep", "awake")],
            f"{memory[case.runtime] / (1 << 20):.0f}",
        ]
        for case in CASES
    ]
    header = ["runtime", "deployed, s", "asleep, s", "awake, s", "MiB"]
    report.table(f"Seconds to an answer, medians of {chosen.rounds} rounds", header, rows)


def measure(server: ServerProcess, case: Case, seen: report.Rounds) -> int:
    """One round of one case; bytes that its worker takes."""
    body: dict[str, Any] = {"model": case.model}
    if case.model == "echo":
        body |= {"runtime": "echo", "options": {"task": "chat"}}
    began = time.monotonic()
    server.client.post("/v1/deployments", json=body).raise_for_status()
    ask(server, case)
    seen.add(case.runtime, "deployed", time.monotonic() - began)
    began = time.monotonic()
    ask(server, case)
    seen.add(case.runtime, "awake", time.monotonic() - began)

    def one() -> Any:
        (found,) = server.client.get("/v1/deployments").json()["data"]
        return found

    memory = int(one()["memory"])
    server.wait_until(lambda: one()["state"] == "asleep", 30)
    server.wait_until(lambda: not server.workers(), 30)
    began = time.monotonic()
    ask(server, case)
    seen.add(case.runtime, "asleep", time.monotonic() - began)
    return memory


def ask(server: ServerProcess, case: Case) -> None:
    server.client.post(case.path, json=case.body).raise_for_status()


if __name__ == "__main__":
    main()
