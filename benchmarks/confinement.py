"""What the sandbox costs a worker: until it is ready, and for each request.

Pairs of workers, one confined and one not (``tests/unconfined.py``), which otherwise are started
and asked alike, by turns; the ratio is the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import report
from serve import scratch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from tests.processes import cli  # noqa: E402
from tests.stores import opened  # noqa: E402

from openmaas.frames import Emit, Ready, Submit  # noqa: E402
from openmaas.inference import Chat, Delta, Message, Predict, Request, Sampling, Tensor  # noqa: E402
from openmaas.placement import local  # noqa: E402
from openmaas.placement.base import WorkerSpec  # noqa: E402
from openmaas.placement.local import LocalPlacement, LocalWorker  # noqa: E402

CONFINED, FREE = local.SANDBOX, "tests.unconfined"
PIXELS = np.zeros((1, 64), np.float32)


class Case(NamedTuple):
    runtime: str
    model: str  # whose artifact it opens
    options: dict[str, Any]
    request: Request
    requests: int


ASKED = Chat(messages=[Message(role="user", content="Hi")], sampling=Sampling(max_tokens=1))
DIGITS = Predict(
    inputs=[Tensor(name="pixels", datatype="FP32", shape=[1, 64], data=PIXELS.tobytes())]
)
CASES = [
    Case("echo", "digits", {"task": "chat"}, ASKED, 300),
    Case("openvino_tensors", "digits", {}, DIGITS, 1000),
    Case("openvino_genai", "smollm2-135m", {"prompt_lookup": False}, ASKED, 30),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--data", type=Path, help="a data folder that has the models")
    chosen = parser.parse_args()
    os.environ["PYTHONPATH"] = f"{ROOT / 'src'}:{ROOT}"
    with scratch() as temporary:
        data = chosen.data or Path(temporary) / "data"
        if chosen.data is None:
            cli(data, "models", "pull", *{case.model for case in CASES})
        asyncio.run(_run(data, Path(temporary), chosen.pairs))


async def _run(data: Path, temporary: Path, pairs: int) -> None:
    print(report.machine())
    place = LocalPlacement(temporary / "run")
    rows = []
    for case in CASES:
        with opened(data) as store:
            version = store.records.version(case.model)
            root = str(store.artifacts.root)
        spec = WorkerSpec(
            deployment=case.model, runtime=case.runtime, artifacts=root, digest=version.digest,
            options=case.options,
        )  # fmt: skip
        seen: dict[str, list[tuple[float, float]]] = {CONFINED: [], FREE: []}
        for number in range(pairs + 1):
            for how in (CONFINED, FREE) if number % 2 else (FREE, CONFINED):
                local.SANDBOX = how
                figures = await _measured(place, spec, case)
                if number:  # the first reads from disk what all others find in memory
                    seen[how].append(figures)
        for at, what in ((0, "until ready, s"), (1, "a request, ms")):
            scale = 1 if at == 0 else 1000
            confined, free = ([one[at] * scale for one in seen[how]] for how in (CONFINED, FREE))
            ratios = [a / b for a, b in zip(confined, free, strict=True)]
            medians = (f"{statistics.median(one):.3f}" for one in (confined, free))
            rows.append([case.runtime, what, *medians, f"{statistics.median(ratios):.3f}"])
    header = ["runtime", "what", "confined", "not confined", "ratio"]
    report.table(f"Medians of {pairs} pairs", header, rows)


async def _measured(place: LocalPlacement, spec: WorkerSpec, case: Case) -> tuple[float, float]:
    """Seconds until a worker is ready, and of a request, the median of many one by one."""
    loop = asyncio.get_running_loop()
    answered: list[asyncio.Future[None]] = []

    def heard(frame: Any) -> None:
        for item in frame:
            if isinstance(item, Emit) and not isinstance(item.event, Delta):
                answered[-1].set_result(None)

    began = time.monotonic()
    worker, first = await place.start(spec, lambda _: None, heard, lambda _: None)
    took = time.monotonic() - began
    assert isinstance(first, Ready), first
    assert bool(first.info.layers) == (local.SANDBOX == CONFINED)
    each = [await _asked(worker, id, case.request, answered, loop) for id in range(case.requests)]
    await worker.stop(5)
    return took, statistics.median(each)


async def _asked(
    worker: LocalWorker,
    id: int,
    request: Request,
    answered: list[asyncio.Future[None]],
    loop: asyncio.AbstractEventLoop,
) -> float:
    answered.append(loop.create_future())
    began = time.monotonic()
    worker.send([Submit(id=id + 1, request=request, seconds=60)])
    await answered[-1]
    return time.monotonic() - began


if __name__ == "__main__":
    main()
