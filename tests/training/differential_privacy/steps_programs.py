"""Private steps beside ordinary ones: what is asserted is printed, what is compared is here."""

from __future__ import annotations

import json
import sys

from openmaas.training import frameworks

frameworks.load("jax", 1)

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402
from tests.training.differential_privacy import networks  # noqa: E402

from openmaas.training.differential_privacy import engine as engines  # noqa: E402
from openmaas.training.differential_privacy.engine import PrivateEngine, Step  # noqa: E402
from openmaas.training.differential_privacy.loop import PrivateLoop  # noqa: E402
from openmaas.training.differential_privacy.noise import Cryptographic, Pseudorandom  # noqa: E402
from openmaas.training.loop import Plan  # noqa: E402
from openmaas.training.rows import Rows  # noqa: E402

ROWS, SEED = 40, 3


class Control:
    def say(self, **event):
        pass

    def pausing(self):
        return False


def network():
    """With a penalty, and with dropout that does nothing, so that seeds are there."""
    keras.utils.set_random_seed(SEED)
    given = keras.Input((6,))
    x = layers.Dense(8, activation="relu", kernel_regularizer="l2")(given)
    x = layers.Dropout(0.0)(x)
    model = keras.Model(given, layers.Dense(3, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def rows(weighed=True):
    chance = np.random.default_rng(SEED)
    weights = chance.uniform(0.5, 2, ROWS).astype("f4") if weighed else None
    inputs = chance.normal(size=(ROWS, 6)).astype("f4")
    return Rows([inputs], chance.integers(0, 3, ROWS).astype("i4"), weights)


def trained(model, data, batch, *, noise=0.0, norm=1e9, epochs=2, source=None, spent=None):
    source = source or Pseudorandom(SEED)
    engine = PrivateEngine(model, data, Step(batch, norm, noise), source, SEED)
    plan = Plan(epochs=epochs, batch=batch, seed=SEED)
    loop = PrivateLoop(
        engine, data, None, plan, Control(),
        source=source, rate=batch / data.size, spend=([] if spent is None else spent).append,
    )  # fmt: skip
    loop.run()
    engine.finish()
    return model.get_weights()


def far(one, other):
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def ordinary():
    """Without noise and bound, on all rows at once, it is an ordinary step."""
    data = rows()
    plain = network()
    for _ in range(4):
        plain.train_on_batch(data.inputs[0], data.targets, sample_weight=data.weights)
    found = {}
    for name, source in (
        ("pseudorandom", Pseudorandom(1)),
        ("cryptographic", Cryptographic(bytes(32))),
    ):
        private = network()
        penalised = private.layers[1].kernel.regularizer
        spent = []
        weights = trained(private, data, ROWS, epochs=4, source=source, spent=spent)
        found[name] = far(weights, plain.get_weights())
        assert private.layers[1].kernel.regularizer is penalised
        assert spent == [1, 2, 3, 4], spent
    return found


def microbatches():
    """However the rows of a step are parted, be it into several blocks, it is the same step."""
    data, results = rows(), []
    for share, least, block in ((4, 8, 1 << 20), (1, 64, 1 << 20), (40, 1, 1 << 20), (4, 3, 1)):
        engines.SHARE, engines.LEAST, engines.BLOCK_BYTES = share, least, block
        results.append(trained(network(), data, 16, noise=0.5, norm=0.5, epochs=3))
    return {"far": max(far(results[0], one) for one in results[1:]),
            "moved": far(results[0], network().get_weights())}  # fmt: skip


def noise():
    """The deviation of what a step of size 1 adds to the weights, of rows without gradients."""
    found = {}
    for name, source in (
        ("pseudorandom", Pseudorandom(1)),
        ("cryptographic", Cryptographic(bytes(32))),
    ):
        keras.utils.set_random_seed(SEED)
        model = keras.Sequential([keras.Input((100,)), layers.Dense(400)])
        model.compile(keras.optimizers.SGD(1.0), "mse")
        zeros = np.zeros((ROWS, 100), "f4")
        before = model.get_weights()
        answers = np.zeros((ROWS, 400), "f4")
        data = Rows([zeros], answers)
        after = trained(model, data, 10, noise=2.0, norm=0.5, epochs=1, source=source)
        # Four steps of an epoch; the deviation of each is 2.0 · 0.5 / 10.
        found[name] = [float((a - b).std() / (0.1 * 2)) for a, b in zip(after, before, strict=True)]
    return found


def moved(name):
    """Weights that do not change although all rows were seen."""
    model, inputs, targets = networks.made(name)
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    before = model.get_weights()
    after = trained(model, Rows([inputs], targets), len(inputs), norm=10.0, epochs=1)
    names = [one.path for one in model.weights]
    return [
        name
        for name, a, b in zip(names, after, before, strict=True)
        # What is added to all keys alike changes no softmax over them: its gradient is zero.
        if "seed" not in name and not name.endswith("/key/bias") and (a == b).all()
    ]


def spoiled():
    """A row that is no number changes nothing: not even what others add."""
    data, found = rows(weighed=False), []
    for value in (np.nan, np.inf, 3e38):
        inputs = data.inputs[0].copy()
        inputs[5] = value
        found.append(trained(network(), Rows([inputs], data.targets), ROWS, norm=0.5, epochs=1))
    without = np.delete(np.arange(ROWS), 5)
    step = PrivateEngine(network(), Rows([data.inputs[0][without]], data.targets[without]),
                         Step(ROWS, 0.5, 0.0), Pseudorandom(SEED), SEED)  # fmt: skip
    model = step._model
    loop = PrivateLoop(step, step._rows, None, Plan(epochs=1, batch=ROWS - 1, seed=SEED), Control(),
                       source=Pseudorandom(SEED), rate=1.0, spend=lambda steps: None)  # fmt: skip
    loop.run()
    step.finish()
    return max(far(one, model.get_weights()) for one in found)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
