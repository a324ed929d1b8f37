"""A language model through the whole server, beside its bare engine and llama.cpp's server."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import peers
import report
from conversations import conversation, long_system_prompt
from launch import free_port, server
from serve import Model, openmaas, prepare, scratch

HERE = Path(__file__).parent
MODEL = "smollm2-135m"
STREAMS = (1, 8, 32)
TOKENS = 128
OURS, BARE, LLAMA = "OpenMaaS", "bare engine", "llama.cpp server"
BARE_TARGETS = {1: 0.95, 8: 0.92, 32: 0.92}
LLAMA_TARGETS = {1: 1.0, 8: 1.0, 32: 2.0}
FIRST_TOKEN_MS = 3.0
# Runs of each contestant in a round. More single ones: with prompt lookup some texts are faster.
SINGLES, TURNS = 8, 2
# Single streams of a few tokens, for the time to the first.
FIRSTS = 40
FIRST_TOKENS = 4

Run = dict[str, Any]
# Runs the conversations of these numbers at the same time, to so many tokens each.
Contestant = Callable[[list[int], int], Run]


def chat(number: int, tokens: int, system: str | None = None) -> dict[str, Any]:
    """A request body: greedy, exactly ``tokens`` long (``ignore_eos`` is an extension)."""
    return {
        "model": MODEL,
        "messages": conversation(number, system=system),
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def stream(url: str, bodies: list[dict[str, Any]], key: str | None) -> dict[str, Any]:
    """Runs the load generator in its own process: all bodies at the same time."""
    with scratch() as folder:
        file = Path(folder) / "bodies.jsonl"
        file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
        command = [sys.executable, str(HERE / "streams.py"), url, str(file), str(len(bodies))]
        done = subprocess.run([*command, *([key] if key else [])], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def through(url: str, key: str | None) -> Contestant:
    """A server, asked by the load generator."""
    return lambda numbers, tokens: stream(url, [chat(n, tokens) for n in numbers], key)


@contextlib.contextmanager
def bare(folder: Path) -> Iterator[Contestant]:
    """The engine alone, in a process of its own."""
    script = str(HERE / "bare_language.py")
    process = subprocess.Popen(
        [sys.executable, script, str(folder), json.dumps(engine_settings())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    send, said = process.stdin, process.stdout

    def run(numbers: list[int], tokens: int) -> Run:
        one = {"conversations": [conversation(n) for n in numbers], "max_tokens": tokens}
        send.write(json.dumps(one) + "\n")
        send.flush()
        result: Run = json.loads(said.readline())
        return result

    with process:
        if said.readline() != "ready\n":
            raise RuntimeError("the bare engine did not start")
        try:
            yield run
        finally:
            send.close()


@contextlib.contextmanager
def llama(cache: Path) -> Iterator[str]:
    """The URL of llama.cpp's chat endpoint on the same weights."""
    port = free_port()
    words = [str(peers.model_file(cache, "smollm2")), str(port), str(max(STREAMS))]
    script = str(HERE / "servers" / "llamacpp_server.py")
    command = [sys.executable, script, *words, str(len(os.sched_getaffinity(0)))]
    url = f"http://127.0.0.1:{port}"
    with server(command, f"{url}/health", cache / "llamacpp.log"):
        yield f"{url}/v1/chat/completions"


def artifact(data: Path) -> Path:
    """Where the language model lies in a data folder."""
    found = [
        path.parent
        for path in data.rglob("manifest.json")
        if json.loads(path.read_bytes())["task"] == "chat"
    ]
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} language models in {data}")
    return found[0]


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.add_argument("--skip", action="append", default=[], choices=["bare", "llama", "prefix"])
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    model = Model(MODEL)
    folder = artifact(prepare(cache, [model]))
    print(report.machine())
    rates, firsts = report.Rounds(), report.Rounds()
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(openmaas(cache, [model]))
        everybody = {OURS: through(f"{served.url}/v1/chat/completions", served.key)}
        if "bare" not in chosen.skip:
            everybody[BARE] = stack.enter_context(bare(folder))
        if "llama" not in chosen.skip:
            everybody[LLAMA] = through(stack.enter_context(llama(cache)), None)
        for run in everybody.values():
            run([0], 16)  # warm
        for number in range(chosen.rounds):
            compete(everybody, number, rates, firsts)
            print(f"round {number + 1} of {chosen.rounds}", flush=True)
    show(rates, firsts)
    if "prefix" not in chosen.skip:
        prefix(cache, chosen)


def compete(
    everybody: dict[str, Contestant], number: int, rates: report.Rounds, firsts: report.Rounds
) -> None:
    """One round. Contestants take turns at every run, as a machine's speed drifts in minutes;
    the others wait idle. Prompts are new in each round, so no cache of the last one helps."""
    order = list(everybody)
    for count in STREAMS:
        runs: dict[str, list[Run]] = {who: [] for who in order}
        for turn in range(SINGLES if count == 1 else TURNS):
            order.append(order.pop(0))
            seed = 1000 * (number + 1) + 100 * turn
            for who in order:
                runs[who].append(everybody[who]([seed + i for i in range(count)], TOKENS))
        for who, made in runs.items():
            rates.add(who, str(count), median(run["per_second"] for run in made))
            waits = [seconds for run in made for seconds in run["first_seconds"]]
            firsts.add(who, str(count), 1000 * median(waits))
    waits_of: dict[str, list[float]] = {who: [] for who in order}
    for turn in range(FIRSTS):
        for who in order:
            run = everybody[who]([1000 * (number + 1) + 500 + turn], FIRST_TOKENS)
            waits_of[who] += run["first_seconds"]
    for who, waits in waits_of.items():
        firsts.add(who, "first", 1000 * median(waits))


def show(rates: report.Rounds, firsts: report.Rounds) -> None:
    lines = []
    for who in (OURS, BARE, LLAMA):
        lines.append([who, *(rates.spread(who, str(count)) for count in STREAMS)])
    for who, targets in ((BARE, BARE_TARGETS), (LLAMA, LLAMA_TARGETS)):
        cells = [report.ratio(rates.ratio(str(c), OURS, who), targets[c]) for c in STREAMS]
        lines.append([f"OpenMaaS ÷ {who}", *cells])
    header = ["tokens/s (least-most)", *(f"{count} streams" for count in STREAMS)]
    report.table(f"{MODEL}, {TOKENS} tokens a stream, greedy", header, lines)
    lines = []
    for who in (OURS, BARE, LLAMA):
        cells = [firsts.spread(who, case) for case in ("first", *map(str, STREAMS))]
        lines.append([who, *cells])
    header = ["ms, p50", "1 stream, short", *(f"{count} streams" for count in STREAMS)]
    report.table("Time to the first text", header, lines)
    mine, alone = firsts.median(OURS, "first"), firsts.median(BARE, "first")
    if mine is not None and alone is not None:
        verdict = report.ratio(mine - alone, FIRST_TOKEN_MS, most=True)
        print(f"  added to the first token at one stream: {verdict} ms\n")


def prefix(cache: Path, chosen: argparse.Namespace) -> None:
    """A system prompt of about 400 tokens that all streams share: prefix cache on ÷ off, in
    replicas that serve one tenant."""
    system = long_system_prompt()
    rates, firsts = report.Rounds(), report.Rounds()
    for number in range(chosen.rounds):
        for case, cache_of in (("on", "dedicated"), ("off", "false")):
            options = {"prefix_cache": cache_of}
            with openmaas(cache, [Model(MODEL, options=options)]) as served:
                url = f"{served.url}/v1/chat/completions"
                httpx.put(
                    f"{served.url}/v1/tenants/default/privacy",
                    json={"dedicated": True},
                    headers={"Authorization": f"Bearer {served.key}"},
                ).raise_for_status()
                stream(url, [chat(0, 16, system)], served.key)  # warm: the prefix is there now
                for count in STREAMS:
                    bodies = [chat(1000 * number + i, TOKENS, system) for i in range(count)]
                    run = stream(url, bodies, served.key)
                    rates.add(case, str(count), run["per_second"])
                    firsts.add(case, str(count), 1000 * median(run["first_seconds"]))
    lines = []
    for case in ("on", "off"):
        rate = [rates.spread(case, str(count)) for count in STREAMS]
        lines.append([f"tokens/s, {case}", *rate])
    lines.append(["on ÷ off", *(report.ratio(rates.ratio(str(c), "on", "off")) for c in STREAMS)])
    for case in ("on", "off"):
        time = [firsts.spread(case, str(count)) for count in STREAMS]
        lines.append([f"first text, ms, {case}", *time])
    lines.append(["on ÷ off", *(report.ratio(firsts.ratio(str(c), "on", "off")) for c in STREAMS)])
    header = ["prefix cache", *(f"{count} streams" for count in STREAMS)]
    report.table("A system prompt of about 400 tokens, shared by all", header, lines)


def engine_settings() -> dict[str, Any]:
    """What the server gives the engine, for the bare engine to have the same: prompt lookup
    for a stream that is alone included."""
    from openmaas.runtimes import openvino_genai_engine as engine

    return {
        "settings": {
            "cache_size": 1,
            "enable_prefix_caching": False,
            "max_num_seqs": engine.MAX_SEQUENCES,
            "max_num_batched_tokens": engine.MAX_BATCHED_TOKENS,
        },
        "properties": {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False},
        "lookup": {
            "num_assistant_tokens": engine.LOOKUP_TOKENS,
            "max_ngram_size": engine.LOOKUP_NGRAM,
        },
    }


if __name__ == "__main__":
    main()
