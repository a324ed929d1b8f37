"""Training as a job of the service beside plain TensorFlow: the textbook network and an LSTM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import peers
import report
from serve import Served, openmaas, scratch

from openmaas.client import Client

HERE = Path(__file__).parent
ROWS, EPOCHS, BATCH = 28_572, 10, 32  # of which 20,000 are trained on
OURS, PLAIN = "OpenMaaS", "TensorFlow"
BARS = {"textbook": (0.3, 0.8), "lstm": (0.7, None)}  # of an epoch, of the whole


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    rounds = report.Rounds()
    print(report.machine())
    with scratch() as folder, openmaas(cache, []) as served:
        for network in BARS:
            file = Path(folder) / f"{network}.npz"
            np.savez(file, **data(network))
            for number in range(chosen.rounds):
                turns = [plain, ours] if number % 2 else [ours, plain]
                for turn in turns:
                    turn(rounds, network, file, served)
                print(f"{network}: round {number + 1}", flush=True)
    show(rounds)


def data(network: str) -> dict[str, np.ndarray]:
    """Rows whose class can be learned: of numbers, or of words that stand for classes."""
    rng = np.random.default_rng(1)
    if network == "textbook":
        x = rng.standard_normal((ROWS, 100)).astype(np.float32)
        return {"x": x, "y": (x @ rng.standard_normal((100, 10))).argmax(1)}
    words = rng.integers(1, 2000, (ROWS, 40)).astype(np.int32)
    return {"x": words, "y": np.stack([(words % 10 == k).sum(1) for k in range(10)]).argmax(0)}


def plain(rounds: report.Rounds, network: str, file: Path, _: Served) -> None:
    script = [sys.executable, str(HERE / "plain_training.py"), str(file), network]
    began = time.perf_counter()
    done = subprocess.run(
        [*script, str(EPOCHS), str(BATCH)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
    )
    rounds.add(PLAIN, f"{network} whole", time.perf_counter() - began)
    told = json.loads(done.stdout.splitlines()[-1])
    rounds.add(PLAIN, f"{network} epoch", median(told["seconds"][1:]))
    rounds.add(PLAIN, f"{network} accuracy", told["accuracy"])


def ours(rounds: report.Rounds, network: str, file: Path, served: Served) -> None:
    """Submission, training and publishing; the data were sent before, as the script's lie on
    its disk."""
    with Client(served.url, served.key) as client:
        dataset = client.datasets.upload(file, name=network, target="y")
        began = time.perf_counter()
        job = client.training.train(
            f"bench-{network}",
            dataset,
            network={"config": NETWORKS[network]},
            target="y",
            fit={
                "optimizer": "adam",
                "loss": "sparse_categorical_crossentropy",
                "metrics": ["accuracy"],
                "epochs": EPOCHS,
                "batch_size": BATCH,
            },
        )
        rounds.add(OURS, f"{network} whole", time.perf_counter() - began)
        card = job.card()["card"]
    seconds = [epoch["seconds"] for epoch in card["history"]]
    rounds.add(OURS, f"{network} epoch", median(seconds[1:]))
    rounds.add(OURS, f"{network} accuracy", card["metrics"]["accuracy"])


def layer(name: str, **config: object) -> dict[str, object]:
    return {"module": "keras.layers", "class_name": name, "config": config}


def sequential(*layers: dict[str, object]) -> dict[str, object]:
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "net", "layers": list(layers)},
    }


NETWORKS = {
    "textbook": sequential(
        layer("InputLayer", batch_shape=[None, 100], dtype="float32"),
        layer("Dense", units=64, activation="relu"),
        layer("Dense", units=64, activation="relu"),
        layer("Dense", units=10, activation="softmax"),
    ),
    "lstm": sequential(
        layer("InputLayer", batch_shape=[None, 40], dtype="int32"),
        layer("Embedding", input_dim=2000, output_dim=32),
        layer("LSTM", units=32),
        layer("Dense", units=10, activation="softmax"),
    ),
}


def show(rounds: report.Rounds) -> None:
    lines = []
    for network, (of_epoch, of_whole) in BARS.items():
        for case, bar in (("epoch", of_epoch), ("whole", of_whole), ("accuracy", None)):
            name = f"{network} {case}"
            ratio = report.ratio(rounds.ratio(name, OURS, PLAIN), bar, most=True)
            lines.append([name, rounds.spread(OURS, name), rounds.spread(PLAIN, name), ratio])
    report.table(
        f"{EPOCHS} epochs of 20,000 rows in batches of {BATCH}: seconds of an epoch (the median "
        "but the first), and of the whole job or script",
        ["", OURS, PLAIN, "ratio"],
        lines,
    )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
