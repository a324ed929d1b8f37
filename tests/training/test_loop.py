"""The loop gives what ``model.fit`` gives on the same rows in the same order."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import openmaas

COMPARE = """
import json, sys
from openmaas.training import frameworks
backend = sys.argv[1]
keras = frameworks.load(backend, 1)
import numpy as np
from keras import layers as L
from openmaas.training import fitting, loop, network
from openmaas.training.rows import Rows
from openmaas.training.spec import EarlyStopping, Fit, Optimizer, ReduceOnPlateau, CosineDecay
if backend == "jax":
    from openmaas.training.loop_jax import JaxEngine as Engine
else:
    from openmaas.training.loop_keras import KerasEngine as Engine

class Control:
    def say(self, **event): pass
    def pausing(self): return False

class Ordered(keras.utils.PyDataset):
    "Rows in the loop's order."
    def __init__(self, rows, batch):
        super().__init__()
        self.rows, self.batch, self.epoch = rows, batch, 0
    def __len__(self): return -(-self.rows.size // self.batch)
    def __getitem__(self, at):
        places = loop.order(SEED, self.epoch, self.rows.size)
        part = self.rows.take(places[at * self.batch : (at + 1) * self.batch])
        given = (part.inputs[0], part.targets)
        return given if part.weights is None else (*given, part.weights)

class Counted(keras.callbacks.Callback):
    def __init__(self, data):
        super().__init__()
        self.data = data
    def on_epoch_begin(self, epoch, logs=None): self.data.epoch = epoch

SEED = 3
# Torch's dropout takes its numbers from where Keras's reader of data takes some too.
DROPOUT = 0.0 if backend == "torch" else 0.2
chance = np.random.default_rng(0)
x = chance.normal(size=(130, 12)).astype("f4")
y = (x[:, :3].argmax(1)).astype("i4")
config = json.loads(keras.Sequential([
    L.Input((12,)), L.Dense(16, activation="relu"), L.BatchNormalization(), L.Dropout(DROPOUT),
    L.Dense(3, activation="softmax")]).to_json())

def both(fit, callbacks, epochs, weights=None):
    rows, held = Rows([x[:101]], y[:101], weights), Rows([x[101:]], y[101:])
    model = network.from_config(config, SEED)
    fitting.compile_network(model, fit, "classes", 7)
    engine = Engine(model, rows, 16)
    plan = loop.Plan(epochs=epochs, batch=16, seed=SEED, callbacks=fit.callbacks or [])
    fitted = loop.Loop(engine, rows, held, plan, Control()).run()
    engine.finish()
    keras.utils.set_random_seed(SEED)
    plain = keras.models.model_from_json(json.dumps(config))
    fitting.compile_network(plain, fit, "classes", 7)
    data = Ordered(rows, 16)
    history = plain.fit(data, epochs=epochs, shuffle=False, verbose=0,
                        validation_data=(held.inputs[0], held.targets),
                        callbacks=[Counted(data), *callbacks]).history
    far = max(float(np.abs(a - b).max()) for a, b in zip(model.get_weights(), plain.get_weights()))
    names = [name for name in history if name != "learning_rate"]
    told = max(abs(row[name] - history[name][at]) for at, row in enumerate(fitted.history)
               for name in names)
    return {"weights": far, "metrics": told, "names": sorted(names),
            "epochs": [len(fitted.history), len(history["loss"])]}

K = keras.callbacks
if backend == "jax":
    found = {
        "weighted, scheduled": both(
            Fit(optimizer=Optimizer(name="sgd", learning_rate=0.1, momentum=0.9, clip_norm=1.0),
                epochs=3, callbacks=[CosineDecay(warmup=0.2)]),
            [], 3, chance.uniform(0.5, 2, 101).astype("f4")),
        "callbacks": both(
            Fit(optimizer=Optimizer(learning_rate=0.1),
                callbacks=[ReduceOnPlateau(patience=1, factor=0.5), EarlyStopping(patience=4)]),
            [K.ReduceLROnPlateau(patience=1, factor=0.5),
             K.EarlyStopping(patience=4, restore_best_weights=True)], 30),
    }
else:
    found = {"adam": both(Fit(optimizer="adam", epochs=2), [], 2)}
print(json.dumps(found))
"""


def compared(backend: str, tmp_path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, backend],
        env={"PYTHONPATH": str(Path(openmaas.__file__).parent.parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


OTHERS = [pytest.param(one, marks=pytest.mark.slow) for one in ("tensorflow", "torch")]


@pytest.mark.parametrize("backend", ["jax", *OTHERS])
def test_weights_and_metrics_are_those_of_fit(backend: str, tmp_path: Path) -> None:
    """With a last batch that is smaller, dropout, statistics of batches, weights of rows, a
    schedule, and Keras's own callbacks."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    for what, one in compared(backend, tmp_path).items():
        assert one["weights"] < 1e-5, what
        assert one["metrics"] < 1e-5, what
        assert one["names"] == ["accuracy", "loss", "val_accuracy", "val_loss"]
        assert one["epochs"][0] == one["epochs"][1], what
