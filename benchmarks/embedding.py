"""Embeddings over HTTP, one sentence a request, beside the bare engine and infinity-emb."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import peers
import report
from launch import free_port, server
from load import Load, wrk
from sentences import sentences
from serve import Model, openmaas, prepare, scratch

CONNECTIONS = 64
MODEL = "minilm-l6-v2"
OURS, BARE, INFINITY = "OpenMaaS", "bare engine, sorted by length", "infinity-emb"
TARGETS = {BARE: 0.85, INFINITY: 4.0}


def bodies(path: Path, model: str, texts: list[str]) -> Path:
    """One request a line; base64 is what OpenAI's client asks for, and the cheaper for both."""
    with path.open("w") as file:
        for text in texts:
            body = {"model": model, "input": text, "encoding_format": "base64"}
            file.write(json.dumps(body) + "\n")
    return path


@contextlib.contextmanager
def infinity(cache: Path) -> Iterator[str]:
    """The URL of infinity-emb's endpoint on the same weights; torch, its fastest here."""
    port = free_port()
    program = peers.environment(cache, "infinity") / "infinity_emb"
    words = ["v2", "--model-id", str(peers.model_file(cache, "minilm")), "--engine", "torch"]
    words += ["--served-model-name", MODEL, "--device", "cpu", "--port", str(port)]
    words += ["--host", "127.0.0.1", "--no-bettertransformer", "--log-level", "warning"]
    env = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    url = f"http://127.0.0.1:{port}"
    with server([str(program), *words], f"{url}/health", cache / "infinity.log", env=env):
        yield f"{url}/embeddings"


def bare(folder: Path, texts: Path, precision: str) -> float:
    """Sentences a second of the engine alone, in a process of its own."""
    script = Path(__file__).with_name("bare_embedding.py")
    command = [sys.executable, str(script), str(folder), str(texts), precision]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["per_second"])


def artifact(data: Path) -> Path:
    """Where the encoder lies in a data folder: the artifact that has a tokenizer."""
    found = [path.parent for path in data.rglob("tokenizer.json")]
    encoders = [folder for folder in found if _task(folder) == "embed"]
    if len(encoders) != 1:
        raise RuntimeError(f"{len(encoders)} encoders in {data}")
    return encoders[0]


def _task(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_bytes())["task"])


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.add_argument("--seconds", type=int, default=6, help="of each run")
    parser.add_argument("--sentences", type=int, default=1024)
    parser.add_argument("--precision", default="default", help="default, f32 or bf16")
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    texts = sentences(chosen.sentences)
    options = {} if chosen.precision == "default" else {"precision": chosen.precision}
    model = Model(MODEL, options=options)
    folder = artifact(prepare(cache, [model]))
    words = sum(len(text.split()) for text in texts) / len(texts)
    print(f"{report.machine()}; {len(texts)} sentences of {words:.0f} words on average")
    rates, latency = report.Rounds(), {}
    with scratch() as temporary:
        list_file = Path(temporary) / "sentences.json"
        list_file.write_text(json.dumps(texts))
        posts = bodies(Path(temporary) / "bodies.jsonl", MODEL, texts)
        for number in range(chosen.rounds):
            rates.add(BARE, "", bare(folder, list_file, chosen.precision))
            with openmaas(cache, [model]) as served:
                url = f"{served.url}/v1/embeddings"
                latency[OURS] = measure(rates, OURS, url, posts, chosen.seconds, served.key)
            with infinity(cache) as url:
                latency[INFINITY] = measure(rates, INFINITY, url, posts, chosen.seconds)
            print(f"round {number + 1} of {chosen.rounds}", flush=True)
    show(rates, latency)


def measure(
    rates: report.Rounds, name: str, url: str, posts: Path, seconds: int, key: str | None = None
) -> Load:
    """Warms up, measures and keeps the rate; returns the run for its latencies."""
    wrk(url, posts, connections=CONNECTIONS, seconds=2, key=key)
    load = wrk(url, posts, connections=CONNECTIONS, seconds=seconds, key=key)
    rates.add(name, "", load.per_second)
    return load


def show(rates: report.Rounds, latency: dict[str, Load]) -> None:
    lines = []
    for name in (OURS, BARE, INFINITY):
        load = latency.get(name)
        times = f"{load.p50_ms:.0f} / {load.p99_ms:.0f}" if load else "-"
        compared = rates.ratio("", OURS, name) if name != OURS else None
        lines.append(
            [name, rates.spread(name, ""), times, report.ratio(compared, TARGETS.get(name))]
        )
    header = ["MiniLM-L6, 64 connections", "sentences/s (least-most)", "p50 / p99 ms", "OpenMaaS ÷"]
    report.table("Embeddings, one sentence a request", header, lines)


if __name__ == "__main__":
    main()
