"""One-row predictions over HTTP, beside LitServe, BentoML, MLServer, FastAPI and a bare echo."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import peers
import report
from launch import free_port, server
from load import wrk
from onnx import TensorProto, helper, numpy_helper
from serve import Model, openmaas, scratch

SERVERS = Path(__file__).with_name("servers")
CONNECTIONS = (1, 16, 64)
OURS = "OpenMaaS"
# requests/s ÷ theirs at 64 connections
TARGETS = {
    "LitServe": 4.0,
    "LitServe, 2 workers": 4.0,
    "BentoML": 4.0,
    "BentoML, 2 workers": 4.0,
    "MLServer": 2.0,
    "FastAPI, 2 workers": 0.7,
}


@dataclass(frozen=True)
class Target:
    """A running server: where to POST, which body, and a key."""

    url: str
    v2: bool
    key: str | None = None


def small_network(path: Path) -> None:
    """100 → 64 → 64 → 10, relu and softmax, random weights, as ONNX with a free batch."""
    rng = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for layer, (a, b) in enumerate([(100, 64), (64, 64), (64, 10)]):
        for part, value in (
            ("w", rng.standard_normal((a, b)) / np.sqrt(a)),
            ("b", rng.standard_normal(b)),
        ):
            weights.append(numpy_helper.from_array(value.astype(np.float32), f"{part}{layer}"))
        last = layer == 2
        nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [f"h{layer}"]))
        name = "probabilities" if last else f"a{layer}"
        nodes.append(helper.make_node("Softmax" if last else "Relu", [f"h{layer}"], [name]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 100])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def bodies(folder: Path, rows: np.ndarray[Any, Any]) -> dict[bool, Path]:
    """One request a line: True, Open Inference Protocol V2; False, the peers' own form."""
    files = {True: folder / "v2.jsonl", False: folder / "own.jsonl"}
    with files[True].open("w") as v2, files[False].open("w") as own:
        for row in rows:
            x = [float(f"{value:.6f}") for value in row]
            tensor = {"name": "x", "shape": [1, len(x)], "datatype": "FP32", "data": x}
            v2.write(json.dumps({"inputs": [tensor]}, separators=(",", ":")) + "\n")
            own.write(json.dumps({"x": x}, separators=(",", ":")) + "\n")
    return files


@contextlib.contextmanager
def ours(cache: Path, model: Path) -> Iterator[Target]:
    with openmaas(cache, [Model("small", model)]) as served:
        yield Target(f"{served.url}/v2/models/small/infer", True, served.key)


@contextlib.contextmanager
def peer(
    cache: Path, model: Path, name: str, words: Sequence[str], path: str, ready: str, **env: str
) -> Iterator[Target]:
    """A peer in its own environment; ``{port}`` in ``words`` and ``env`` is replaced."""
    port = str(free_port())
    program = peers.environment(cache, name) / words[0]
    command = [str(program), *(word.replace("{port}", port) for word in words[1:])]
    env = {key: value.replace("{port}", port) for key, value in env.items()}
    env["MODEL"] = str(model)
    folder = SERVERS / "mlserver" if name == "mlserver" else SERVERS
    url = f"http://127.0.0.1:{port}"
    log = cache / f"{name}.log"
    with server(command, url + ready, log, env=env, cwd=folder):
        yield Target(url + path, v2=name not in ("litserve", "bentoml"))


def contestants(cache: Path, model: Path) -> dict[str, AbstractContextManager[Target]]:
    """Everybody, each to be started. Where no setting of a peer was always ahead of another,
    both take part."""
    uvicorn = ["uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--no-access-log"]
    ml = {f"MLSERVER_{k}": v for k, v in MLSERVER.items()}

    def lit(workers: str) -> AbstractContextManager[Target]:
        env = {**LITSERVE, "WORKERS": workers}
        words = ["python", "litserve_app.py"]
        return peer(cache, model, "litserve", words, "/predict", "/health", **env)

    def bento(workers: str) -> AbstractContextManager[Target]:
        env = {**BENTOML, "WORKERS": workers}
        words = ["bentoml", "serve", "bentoml_app:Small", "--host", "127.0.0.1", "--port", "{port}"]
        return peer(cache, model, "bentoml", words, "/predict", "/readyz", **env)

    def asgi(words: list[str], path: str, ready: str) -> AbstractContextManager[Target]:
        return peer(cache, model, "fastapi", [*uvicorn, *words], path, ready)

    return {
        OURS: ours(cache, model),
        "LitServe": lit("1"),
        "LitServe, 2 workers": lit("2"),
        "BentoML": bento("1"),
        "BentoML, 2 workers": bento("2"),
        "MLServer": peer(
            cache,
            model,
            "mlserver",
            ["mlserver", "start", "."],
            "/v2/models/small/infer",
            "/v2/models/small/ready",
            **ml,
        ),
        "FastAPI, 2 workers": asgi(["--workers", "2", "fastapi_app:app"], "/infer", "/ready"),
        "bare ASGI echo": asgi(["echo_asgi:app"], "/", "/"),
    }


# What was tried on two cores is in README.md.
LITSERVE = {"PORT": "{port}", "BATCH": "1", "API_SERVERS": "2"}
BENTOML = {"BENTOML_DO_NOT_TRACK": "true", "OTEL_SDK_DISABLED": "true"}
MLSERVER = {
    "HOST": "127.0.0.1",
    "HTTP_PORT": "{port}",
    "GRPC_PORT": "0",
    "METRICS_PORT": "0",
    "PARALLEL_WORKERS": "0",
    "DEBUG": "false",
}


def check(target: Target, body: str, wanted: np.ndarray[Any, Any]) -> None:
    """Raises RuntimeError unless the server's numbers are the model's."""
    headers = {"Content-Type": "application/json"}
    if target.key:
        headers["Authorization"] = f"Bearer {target.key}"
    asked = urllib.request.Request(target.url, body.encode(), headers)
    with urllib.request.urlopen(asked, timeout=30) as reply:
        answer = json.load(reply)
    if target.v2:
        answer = answer["outputs"][0]["data"]
    elif isinstance(answer, dict):
        answer = answer["probabilities"]
    if not np.allclose(np.ravel(answer), wanted, atol=1e-4):
        raise RuntimeError(f"{target.url} answers other numbers: {answer}")


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.add_argument("--seconds", type=int, default=4, help="of each run")
    parser.add_argument("--only", action="append", help="a contestant; repeatable")
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    model = cache / "small.onnx"
    if not model.exists():
        small_network(model)
    rows = np.random.default_rng(1).standard_normal((64, 100)).astype(np.float32).round(6)
    compiled = ov.Core().compile_model(str(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = compiled(rows)[0][0]
    print(report.machine())
    rates, p50, p99 = report.Rounds(), report.Rounds(), report.Rounds()
    names = chosen.only or list(contestants(cache, model))
    with scratch() as folder:
        files = bodies(Path(folder), rows)
        for number in range(chosen.rounds):
            for name in names:
                with contestants(cache, model)[name] as target:
                    if "echo" not in name:
                        check(target, files[target.v2].read_text().splitlines()[0], wanted)
                    measure(target, files[target.v2], name, chosen.seconds, rates, p50, p99)
                print(f"round {number + 1}: {name}", flush=True)
    show(names, rates, p50, p99)


def measure(
    target: Target,
    file: Path,
    name: str,
    seconds: int,
    *all_: report.Rounds,
) -> None:
    """Warms up, then measures at each number of connections."""
    wrk(target.url, file, connections=16, seconds=1, key=target.key)
    for connections in CONNECTIONS:
        load = wrk(target.url, file, connections=connections, seconds=seconds, key=target.key)
        for rounds, figure in zip(all_, (load.per_second, load.p50_ms, load.p99_ms), strict=True):
            rounds.add(name, str(connections), figure)


def show(names: list[str], rates: report.Rounds, p50: report.Rounds, p99: report.Rounds) -> None:
    header = ["requests/s (least-most)", *(f"{c} conn." for c in CONNECTIONS), "OpenMaaS ÷, at 64"]
    lines = []
    for name in names:
        figures = [rates.spread(name, str(c)) for c in CONNECTIONS]
        compared = rates.ratio("64", OURS, name) if name != OURS else None
        lines.append([name, *figures, report.ratio(compared, TARGETS.get(name))])
    report.table("100→64→64→10 network, one row a request, JSON", header, lines)
    header = ["p50 / p99 ms", *(f"{c} conn." for c in CONNECTIONS), "OpenMaaS' p99 ÷, at 64"]
    lines = []
    for name in names:
        pairs = [
            f"{report.number(p50.median(name, str(c)))} / {report.number(p99.median(name, str(c)))}"
            for c in CONNECTIONS
        ]
        compared = p99.ratio("64", OURS, name) if name != OURS else None
        bar = 1.0 if name in TARGETS else None
        lines.append([name, *pairs, report.ratio(compared, bar, most=True)])
    report.table("the same runs, latency", header, lines)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
