"""What the way to a model costs: OpenMaaS beside LiteLLM's proxy, both over an instant stub.

LiteLLM forwards to ``servers/chat_stub.py``, which answers from memory over HTTP. OpenMaaS hosts
its models itself, so that its stub is the echo runtime in a worker, which makes sixteen tokens at
once. What LiteLLM adds is its latency less the stub's own. All of OpenMaaS's latency counts as
added, its own HTTP and the work of the worker (template, tokens, text) with it.

OpenMaaS checks a key, three quotas and a price, and writes a durable row in its ledger before each
answer's last byte. LiteLLM checks its master key, computes the cost and writes nothing: virtual
keys, budgets and spend need a database, whose client (prisma) downloads a program that is in no
package index. Both have what is the default: LiteLLM one worker without debug output; OpenMaaS a
gateway, a worker of the model and the ledger's writer.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import peers
import report
from launch import free_port, server
from load import wrk
from prediction import small_network
from serve import Model, command, openmaas, scratch

from tenancy import QUOTA, key, quantile

HERE = Path(__file__).parent
CONNECTIONS, TOKENS, BAR = (16, 64), 16, 5.0
STUB, LITELLM, OURS = "the stub", "LiteLLM", "OpenMaaS"
CASES = {"whole": 50, "streamed": 10}  # requests a second that LiteLLM keeps up with


@dataclass(frozen=True)
class Target:
    """Where to POST, and with which key."""

    url: str
    key: str


@contextlib.contextmanager
def stub(cache: Path) -> Iterator[Target]:
    port = str(free_port())
    words = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", port, "--no-access-log"]
    url = f"http://127.0.0.1:{port}"
    program = [sys.executable, *words, "chat_stub:app"]
    with server(program, f"{url}/", cache / "stub.log", cwd=HERE / "servers"):
        yield Target(f"{url}/v1/chat/completions", "none")


@contextlib.contextmanager
def litellm(cache: Path, behind: Target, folder: Path) -> Iterator[Target]:
    """The proxy with one model, which is the stub, and a price for it."""
    port, secret = str(free_port()), "sk-" + secrets.token_hex(16)
    model = {
        "model": "openai/stub",
        "api_base": behind.url.removesuffix("/chat/completions"),
        "api_key": "none",
        "input_cost_per_token": 1.5e-7,
        "output_cost_per_token": 6e-7,
    }
    config = folder / "litellm.yaml"  # JSON is YAML
    names = {"model_list": [{"model_name": "stub", "litellm_params": model}]}
    config.write_text(json.dumps({**names, "general_settings": {"master_key": secret}}))
    words = ["--config", str(config), "--host", "127.0.0.1", "--port", port]
    program = [str(peers.environment(cache, "litellm") / "litellm"), *words]
    url = f"http://127.0.0.1:{port}"
    with server(program, f"{url}/health/liveliness", cache / "litellm.log", env=LOCAL):
        yield Target(f"{url}/v1/chat/completions", secret)


# It otherwise asks the network for prices and news when it starts.
LOCAL = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "NO_PROXY": "127.0.0.1",
}


@contextlib.contextmanager
def ours(cache: Path) -> Iterator[Target]:
    """The echo runtime as a model with a price, asked with a key under three quotas."""
    network = cache / "small.onnx"  # which the echo runtime ignores
    if not network.exists():
        small_network(network)
    data = cache / "proxy"
    data.mkdir(exist_ok=True)
    model = Model("stub", network, {"task": "chat"}, runtime="echo")
    with openmaas(data, [model]) as served:
        command(served.data, "prices", "set", "stub", "input=0.15", "output=0.60")
        yield Target(f"{served.url}/v1/chat/completions", key(served, "bounded", *QUOTA))


def bodies(folder: Path) -> dict[str, Path]:
    """One request a line: answered as a whole, and streamed."""
    files = {case: folder / f"{case}.jsonl" for case in CASES}
    for case, file in files.items():
        with file.open("w") as lines:
            for number in range(64):
                turn = {"role": "user", "content": f"Say what day number {number} is like."}
                body = {"model": "stub", "messages": [turn], "max_tokens": TOKENS}
                if case == "streamed":
                    body |= {"stream": True, "stream_options": {"include_usage": True}}
                lines.write(json.dumps(body) + "\n")
    return files


def check(target: Target, file: Path) -> None:
    """Raises RuntimeError unless the answer has sixteen tokens."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {target.key}"}
    body = file.read_bytes().splitlines()[0]
    asked = urllib.request.Request(target.url, body, headers)
    with urllib.request.urlopen(asked, timeout=30) as reply:
        answer = reply.read()
    last = answer.rsplit(b'"completion_tokens":', 1)[-1].lstrip()
    if not last.startswith(str(TOKENS).encode()):
        raise RuntimeError(f"{target.url} answers {answer!r}")


def measure(rounds: report.Rounds, who: str, target: Target, case: str, file: Path, s: int) -> None:
    """Latency at a steady pace, then the most requests a second."""
    check(target, file)
    script = [sys.executable, str(HERE / "paced.py"), target.url, str(file), str(CASES[case])]
    done = subprocess.run([*script, str(2 * s), target.key], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    paced = json.loads(done.stdout)
    if paced["failed"]:
        raise RuntimeError(f"{who}: {paced['failed']} requests failed")
    rounds.add(who, f"{case} p50", quantile(paced["ms"], 0.5))
    rounds.add(who, f"{case} p99", quantile(paced["ms"], 0.99))
    loads = [
        wrk(target.url, file, connections=count, seconds=s, key=target.key) for count in CONNECTIONS
    ]
    rounds.add(who, f"{case} requests/s", max(load.per_second for load in loads))


def main() -> None:
    parser = peers.arguments("OpenMaaS beside LiteLLM's proxy, both over an instant stub.")
    parser.add_argument("--seconds", type=int, default=5, help="of each run")
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    print(report.machine())
    rounds = report.Rounds()
    with scratch() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        behind = stack.enter_context(stub(cache))
        everybody = {
            STUB: behind,
            LITELLM: stack.enter_context(litellm(cache, behind, folder)),
            OURS: stack.enter_context(ours(cache)),
        }
        files = bodies(folder)
        for number in range(chosen.rounds):
            for case, file in files.items():
                for who, target in everybody.items():
                    measure(rounds, who, target, case, file, chosen.seconds)
            print(f"round {number + 1} of {chosen.rounds}", flush=True)
    show(rounds)


def show(rounds: report.Rounds) -> None:
    lines = []
    for case in CASES:
        for q in ("p50", "p99"):
            name = f"{case} {q}"
            spreads = [rounds.spread(who, name) for who in (STUB, LITELLM, OURS)]
            added = (rounds.median(LITELLM, name) or 0.0) - (rounds.median(STUB, name) or 0.0)
            compared = report.ratio(added / (rounds.median(OURS, name) or 1.0), BAR)
            lines.append(
                [f"{case}, {CASES[case]}/s, {q}", *spreads, report.number(added), compared]
            )
    header = ["ms", STUB, LITELLM, "OpenMaaS, all of it", "LiteLLM adds", "÷ OpenMaaS"]
    report.table(f"chat of {TOKENS} tokens at a steady pace", header, lines)
    lines = []
    for case in CASES:
        name = f"{case} requests/s"
        spreads = [rounds.spread(who, name) for who in (STUB, LITELLM, OURS)]
        lines.append([case, *spreads, report.ratio(rounds.ratio(name, OURS, LITELLM), BAR)])
    header = ["requests/s", STUB, LITELLM, OURS, "OpenMaaS ÷ LiteLLM"]
    counts = " or ".join(map(str, CONNECTIONS))
    report.table(f"the most with {counts} connections", header, lines)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
