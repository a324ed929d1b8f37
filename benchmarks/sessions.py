"""Gradient steps as calls beside the same steps in a loop of one's own, in the same run.

The textbook's network (100 → 64 → 64 → 10), batches of 32 and of 256 rows of float32. A step is
forward_backward and optim_step. "Own loop": the same steps of the same library (Keras on JAX,
compiled) in one process, which reads the loss of each. "fit": Keras's own loop over as many
batches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.processes import ADMIN_KEY, serving

from openmaas.client import Client

SIZES = (32, 256)
LOSS = "sparse_categorical_crossentropy"


def network() -> dict[str, Any]:
    def layer(kind: str, /, **config: Any) -> dict[str, Any]:
        return {"module": "keras.layers", "class_name": kind, "config": config}

    layers = [
        layer("InputLayer", batch_shape=[None, 100], dtype="float32"),
        layer("Dense", units=64, activation="relu"),
        layer("Dense", units=64, activation="relu"),
        layer("Dense", units=10, activation="softmax"),
    ]
    config = {"name": "textbook", "layers": layers}
    return {"module": "keras", "class_name": "Sequential", "config": config}


def rows(size: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    return random.normal(size=(size, 100)).astype(np.float32), random.integers(0, 10, size)


def own(steps: int) -> dict[str, list[float]]:
    """Steps a second: of the loop by hand, then of ``fit``."""
    import keras

    from openmaas.training.session_network import Rows, SessionNetwork

    found = {}
    for size in SIZES:
        model: Any = keras.saving.deserialize_keras_object(network())
        x, y = rows(size)
        learned = SessionNetwork(model, keras.optimizers.Adam(), LOSS)
        batch = Rows([x], y)

        def run(count: int, learned: Any = learned, batch: Any = batch) -> None:
            for _ in range(count):
                learned.forward_backward(batch)
                learned.optim_step(None, None)

        run(20)
        began = time.perf_counter()
        run(steps)
        by_hand = steps / (time.perf_counter() - began)
        fitted: Any = keras.saving.deserialize_keras_object(network())
        fitted.compile("adam", LOSS)
        many = np.tile(x, (steps, 1)), np.tile(y, steps)
        fitted.fit(many[0][: size * 20], many[1][: size * 20], batch_size=size, verbose=0)
        began = time.perf_counter()
        fitted.fit(*many, batch_size=size, verbose=0)
        found[str(size)] = [by_hand, steps / (time.perf_counter() - began)]
    return found


def own_process(steps: int) -> dict[str, list[float]]:
    done = subprocess.run(
        [sys.executable, __file__, "--own", "--steps", str(steps)],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def sessions(client: Client, steps: int) -> dict[str, list[float]]:
    """Steps a second: pipelined, then each call waited for."""
    found = {}
    for size in SIZES:
        x, y = rows(size)
        with client.sessions.open(network(), loss=LOSS, optimizer="adam") as session:

            def pipelined(count: int, session: Any = session, x: Any = x, y: Any = y) -> None:
                waiting = []
                for _ in range(count):
                    waiting.append(session.forward_backward_async(x, y))
                    last = session.optim_step_async()
                last.result()
                assert all(one.result().loss > 0 for one in waiting)

            def waited(count: int, session: Any = session, x: Any = x, y: Any = y) -> None:
                for _ in range(count):
                    assert session.forward_backward(x, y).loss > 0
                    session.optim_step()

            rates = []
            for run, count in ((pipelined, steps), (waited, steps // 4)):
                run(20)
                began = time.perf_counter()
                run(count)
                rates.append(count / (time.perf_counter() - began))
            found[str(size)] = rates
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.own:
        print(json.dumps(own(asked.steps)))
        return
    rounds = []
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder)) as server,
        Client(server.url, ADMIN_KEY) as client,
    ):
        for _ in range(asked.rounds):
            rounds.append((own_process(asked.steps), sessions(client, asked.steps)))
    print("| rows a batch | own loop, steps/s | fit | session, pipelined | each call waited for "
          "| pipelined ÷ own loop | ÷ fit |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for size in map(str, SIZES):
        by_hand, fit, pipelined, waited = (
            statistics.median(one[which][size][at] for one in rounds)
            for which, at in ((0, 0), (0, 1), (1, 0), (1, 1))
        )
        print(
            f"| {size} | {by_hand:.0f} | {fit:.0f} | {pipelined:.0f} | {waited:.0f} "
            f"| {pipelined / by_hand:.2f} | {pipelined / fit:.2f} |"
        )


if __name__ == "__main__":
    main()
