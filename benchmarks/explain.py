"""What explanations cost: gradients beside plain predictions, and interactive calls beside both.

Usage: ``explain.py [--rounds 3] [--seconds 10] [--only gradients|beside]``.

Integrated gradients of 64 steps are 64 rows forward and back, so that they are held against one
prediction of a batch of 64. Interactive calls leave at a steady pace (``paced.py``, a process of
its own), with and without callers who explain one input after another as fast as they can; both
runs of a round are on one server, one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx
from peers import arguments, cache_folder
from report import Rounds, machine, number, ratio, table
from serve import Model, Served, openmaas, scratch

HERE = Path(__file__).parent
BAR = 1.5
BATCH = 64
CALLERS = 4  # who explain, each one input after another
TEXT = "The film was wonderful, but the seats were hard and the hall was far too cold for us."
PIXELS = [float(7 * at % 17) for at in range(64)]


class Beside(NamedTuple):
    """Interactive calls, and explanations that saturate beside them."""

    path: str
    pace: float  # interactive calls a second
    body: dict[str, Any]
    explain: dict[str, Any]


SENTIMENT = {"model": "sentiment", "input": "We waited for an hour, and the soup was cold."}
DIGIT = {"instances": [PIXELS]}
OF_TEXT = {"model": "sentiment", "input": TEXT, "target": "positive"}
OF_DIGIT = {"model": "digits", "input": PIXELS, "target": 3}
CASES = {
    "sentiment beside Shapley values": Beside(
        "/v1/sentiment", 20.0, SENTIMENT, OF_TEXT | {"method": "shapley", "budget": 2000}
    ),
    "sentiment beside integrated gradients": Beside(
        "/v1/sentiment", 20.0, SENTIMENT, OF_TEXT | {"method": "integrated_gradients"}
    ),
    "digits beside Shapley values": Beside(
        "/v1/models/digits:predict", 100.0, DIGIT,
        OF_DIGIT | {"method": "shapley", "budget": 2000},
    ),
    "digits beside integrated gradients": Beside(
        "/v1/models/digits:predict", 100.0, DIGIT, OF_DIGIT | {"method": "integrated_gradients"}
    ),
}  # fmt: skip


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--only", choices=("gradients", "beside"))
    asked = parser.parse_args()
    print(machine())
    with openmaas(cache_folder(asked.cache), [Model("sentiment"), Model("digits")]) as served:
        if asked.only != "beside":
            gradients(served, asked.rounds)
        if asked.only != "gradients":
            beside(served, asked.rounds, asked.seconds)


# --- gradients ---------------------------------------------------------------------------------


def gradients(served: Served, rounds: int) -> None:
    """Seconds of an explanation, and of a prediction of as many rows as it has steps."""
    how = {"method": "integrated_gradients", "budget": BATCH}
    cases: dict[str, tuple[Callable[[httpx.Client], Any], Callable[[httpx.Client], Any]]] = {
        "text of 18 words": (
            lambda http: post(http, "/v1/sentiment", {"model": "sentiment", "input": texts()}),
            lambda http: post(http, "/v1/explain", OF_TEXT | how),
        ),
        "row of 64 numbers": (
            lambda http: post(http, "/v1/models/digits:predict", {"instances": rows()}),
            lambda http: post(http, "/v1/explain", OF_DIGIT | how),
        ),
    }
    seen = Rounds()
    with client(served) as http:
        for name, pair in cases.items():
            for who, call in zip(("predict", "explain"), pair, strict=True):
                began = time.perf_counter()
                call(http)  # loads, and compiles for this shape
                seen.add(who, f"{name} first", time.perf_counter() - began)
        for _ in range(rounds):
            for name, pair in cases.items():
                for who, call in zip(("predict", "explain"), pair, strict=True):
                    seen.add(
                        who, name, median(timed(lambda call=call: call(http)) for _ in range(7))
                    )
    lines = [
        [
            name,
            number(1000 * (seen.median("predict", name) or 0)),
            number(1000 * (seen.median("explain", name) or 0)),
            ratio(seen.ratio(name, "explain", "predict")),
            number(seen.median("explain", f"{name} first")),
        ]
        for name in cases
    ]
    header = ["input", f"prediction of {BATCH}, ms", "explanation, ms", "ratio", "the first, s"]
    table(f"Integrated gradients of {BATCH} steps, medians of {rounds} rounds", header, lines)


def texts() -> list[str]:
    """Different ones of the same length: equal ones would share a row."""
    return [TEXT.replace("wonderful", f"wonderful{at}"[:9]) + f" {at}" for at in range(BATCH)]


def rows() -> list[list[float]]:
    return [[*PIXELS[at:], *PIXELS[:at]] for at in range(BATCH)]


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# --- beside others -----------------------------------------------------------------------------


def beside(served: Served, rounds: int, seconds: float) -> None:
    seen = Rounds()
    made: dict[str, list[float]] = {name: [] for name in CASES}
    with client(served) as http:
        for case in CASES.values():
            post(http, "/v1/explain", case.explain)
    for round_ in range(rounds):
        for name, case in CASES.items():
            seen.add("alone", name, p99(interactive(served, case, seconds)))
            with explaining(served, case.explain) as count:
                before, began = count[0], time.monotonic()
                seen.add("beside", name, p99(interactive(served, case, seconds)))
                made[name].append((count[0] - before) / (time.monotonic() - began))
            print(f"round {round_ + 1}, {name}: done", file=sys.stderr)
    lines = [
        [
            name,
            number(seen.median("alone", name)),
            number(seen.median("beside", name)),
            ratio(seen.ratio(name, "beside", "alone"), BAR, most=True),
            f"{median(made[name]):.2f}",
        ]
        for name in CASES
    ]
    header = ["interactive calls", "p99 alone, ms", "p99 beside, ms", "ratio", "explanations/s"]
    table(f"While {CALLERS} callers explain, medians of {rounds} rounds", header, lines)


def p99(times: list[float]) -> float:
    return times[min(len(times) - 1, int(0.99 * len(times)))]


@contextmanager
def explaining(served: Served, body: dict[str, Any]) -> Iterator[list[int]]:
    """Callers who explain, until it is left; counts what they got."""
    over, count = threading.Event(), [0]

    def work() -> None:
        with client(served) as http:
            while not over.is_set():
                post(http, "/v1/explain", body)
                count[0] += 1

    callers = [threading.Thread(target=work) for _ in range(CALLERS)]
    for one in callers:
        one.start()
    time.sleep(2)  # they are under way
    try:
        yield count
    finally:
        over.set()
        for one in callers:
            one.join()


def interactive(served: Served, case: Beside, seconds: float) -> list[float]:
    """Milliseconds of each call, sorted."""
    with scratch() as folder:
        bodies = Path(folder) / "bodies"
        bodies.write_text(json.dumps(case.body) + "\n")
        words = [served.url + case.path, str(bodies), str(case.pace), str(seconds), served.key]
        done = subprocess.run(
            [sys.executable, str(HERE / "paced.py"), *words, "5"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    told = json.loads(done.stdout)
    if told["failed"]:
        raise RuntimeError(f"{told['failed']} interactive calls failed")
    return list(told["ms"])


def post(http: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    response = http.post(path, json=body)
    if response.is_error:
        raise RuntimeError(response.text)
    return response.json()


def client(served: Served) -> httpx.Client:
    headers = {"Authorization": f"Bearer {served.key}"}
    return httpx.Client(base_url=served.url, headers=headers, timeout=300)


if __name__ == "__main__":
    main()
