"""What a private step costs beside an ordinary one of the same network and batch size.

Both are steps as jobs make them, many in one call of a compiled program, on one thread; rounds take
turns. Private steps take their rows by chance, so that a batch is as large on average.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import report

BAR = 2.5
SECONDS = 3.0  # of one contestant's turn
NETWORKS = {
    "MLP 100-64-64-10, 256 rows": ("mlp", 256),
    "CNN 28x28, 16 and 32 filters, 64 rows": ("cnn", 64),
    "LSTM both ways, 40 words, 64 units, 128 rows": ("lstm", 128),
}
PLAIN, PSEUDORANDOM, CRYPTOGRAPHIC = "ordinary", "pseudorandom", "cryptographic"
WHO = (PLAIN, PSEUDORANDOM, CRYPTOGRAPHIC)
ROWS = {"mlp": 8192, "cnn": 512, "lstm": 2048}  # of an epoch, which is the least of a turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", help="measures this one, in this process")
    parser.add_argument("--batch", type=int)
    chosen = parser.parse_args()
    if chosen.network:
        print(json.dumps(measured(chosen.network, chosen.batch, chosen.rounds)))
        return
    rounds = report.Rounds()
    print(report.machine())
    for case, (network, batch) in NETWORKS.items():
        command = [sys.executable, __file__, "--network", network, "--batch", str(batch)]
        done = subprocess.run(
            [*command, "--rounds", str(chosen.rounds)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        for turn in json.loads(done.stdout.splitlines()[-1]):
            for who, milliseconds in turn.items():
                rounds.add(who, case, milliseconds)
    show(rounds)


def show(rounds: report.Rounds) -> None:
    rows = []
    for case in NETWORKS:
        ratios = [
            report.ratio(rounds.ratio(case, who, PLAIN), BAR, most=True)
            for who in (PSEUDORANDOM, CRYPTOGRAPHIC)
        ]
        rows.append([case, *(rounds.spread(who, case) for who in WHO), *ratios])
    header = ["network", *(f"{who}, ms" for who in WHO), "ratio", "ratio, cryptographic"]
    report.table("A step, median (least-most)", header, rows)


def measured(network: str, batch: int, rounds: int) -> list[dict[str, float]]:
    """Milliseconds of a step, of each contestant in each round."""
    from openmaas.training import frameworks

    frameworks.load("jax", 1)
    contestants = [_plain(network, batch)] + [
        _private(network, batch, kind) for kind in (PSEUDORANDOM, CRYPTOGRAPHIC)
    ]
    for turn in contestants:
        turn()  # compiled
    found = []
    for number in range(rounds):
        order = list(range(3))[:: -1 if number % 2 else 1]
        times = {WHO[at]: _timed(contestants[at]) for at in order}
        found.append(times)
    return found


def _timed(turn: Any) -> float:
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        steps += turn()
    return 1000 * (time.perf_counter() - began) / steps


def _made(network: str) -> tuple[Any, Any]:
    import keras
    import numpy as np
    from keras import layers

    from openmaas.training.rows import Rows

    keras.utils.set_random_seed(0)
    rng, count = np.random.default_rng(0), ROWS[network]
    if network == "mlp":
        inputs = keras.Input((100,))
        x = layers.Dense(64, activation="relu")(inputs)
        x = layers.Dense(64, activation="relu")(x)
        data = rng.normal(size=(count, 100)).astype("f4")
    elif network == "cnn":
        inputs = keras.Input((28, 28, 1))
        x = layers.Conv2D(16, 3, activation="relu", padding="same")(inputs)
        x = layers.MaxPooling2D()(x)
        x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
        data = rng.normal(size=(count, 28, 28, 1)).astype("f4")
    else:
        inputs = keras.Input((40,), dtype="int32")
        x = layers.Embedding(2000, 64, mask_zero=True)(inputs)
        x = layers.Bidirectional(layers.LSTM(64, return_sequences=True))(x)
        x = layers.GlobalAveragePooling1D()(x)
        data = rng.integers(1, 2000, (count, 40)).astype("i4")
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, Rows([data], rng.integers(0, 10, count).astype("i4"))


def _plain(network: str, batch: int) -> Any:
    """A turn: an epoch, as the loop makes it."""
    from openmaas.training import loop
    from openmaas.training.loop_jax import JaxEngine

    model, rows = _made(network)
    engine = JaxEngine(model, rows, batch)
    epochs = iter(range(1 << 30))

    def turn() -> int:
        places = loop.order(0, next(epochs), rows.size)
        engine.load(rows.take(places), batch, loop.room(rows, batch))
        engine.run(0, rows.size // batch)
        engine.metrics()
        return rows.size // batch

    return turn


def _private(network: str, batch: int, noise: str) -> Any:
    from openmaas.training.differential_privacy.engine import PrivateEngine, Step
    from openmaas.training.differential_privacy.loop import PrivateLoop
    from openmaas.training.differential_privacy.noise import Cryptographic, Pseudorandom
    from openmaas.training.loop import Plan

    class Control:
        def say(self, **event: Any) -> None:
            pass

        def pausing(self) -> bool:
            return False

    model, rows = _made(network)
    source: Any = Pseudorandom(0) if noise == PSEUDORANDOM else Cryptographic(bytes(32))
    engine = PrivateEngine(model, rows, Step(batch, 1.0, 1.0), source, 0)
    plan = Plan(epochs=1 << 30, batch=batch, seed=0)
    loop = PrivateLoop(
        engine, rows, None, plan, Control(),
        source=source, rate=batch / rows.size, spend=lambda steps: None,
    )  # fmt: skip

    def turn() -> int:
        loop._step = 0
        loop._train_epoch()
        loop._epoch += 1
        return rows.size // batch

    return turn


if __name__ == "__main__":
    main()
