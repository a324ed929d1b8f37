"""Sessions on a real server: the three steps, their order, and what they are refused."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.processes import ServerProcess, serving

from openmaas.client import ApiError, Client, ClientError
from openmaas.client.sessions import Session

Array = NDArray[Any]
LOSS = "sparse_categorical_crossentropy"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("sessions")) as running:
        yield running


@pytest.fixture(scope="module")
def client(house: ServerProcess) -> Iterator[Client]:
    with Client(house.url, house.key) as made:
        yield made


def layer(kind: str, /, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": config}


def network(*units: int, inputs: int = 6, noise: float = 0.0, name: str = "n") -> dict[str, Any]:
    """A classifier with a batch normalisation."""
    layers = [
        layer("InputLayer", batch_shape=[None, inputs], dtype="float32", name="given"),
        *(layer("Dense", units=one, activation="tanh", name=f"d{one}") for one in units[:-1]),
        layer("BatchNormalization", name="normal"),
        layer("Dropout", rate=noise, name="drop"),
        layer("Dense", units=units[-1], activation="softmax", name="last"),
    ]
    config = {"name": name, "layers": layers}
    return {"config": {"module": "keras", "class_name": "Sequential", "config": config}}


def rows(count: int, inputs: int = 6, classes: int = 3) -> tuple[Array, Array]:
    random = np.random.default_rng(11)
    x = random.normal(size=(count, inputs)).astype(np.float32)
    y = np.argmax(x[:, :classes] + x[:, -classes:], axis=1)
    return x, y.astype(np.int64)


def values(found: Any) -> dict[str, Array]:
    return {name: np.asarray(one) for name, one in found.items()}


@pytest.fixture(scope="module")
def session(client: Client) -> Iterator[Session]:
    """One that many tests use: none relies on where another left it."""
    with client.sessions.open(network(8, 3), loss=LOSS, optimizer="sgd") as made:
        yield made


@pytest.fixture
def fresh(session: Session) -> Session:
    """It, as it was when it was opened."""
    session.resume()
    names = {one["name"] for one in session.refresh()["weights"]}
    assert "last/kernel" in names
    try:
        session.load("start")
    except ApiError:
        session.save("start")
    return session


# --- the three steps -------------------------------------------------------------------------


def test_a_loop_gives_the_weights_of_fit(client: Client, fresh: Session, tmp_path: Path) -> None:
    """Batch normalisation and an odd last batch included; pipelined."""
    x, y = rows(200)
    epochs, found = 3, {}
    start = values(fresh.weights())
    with client.sessions.open(network(8, 3), loss=LOSS, optimizer="adam") as other:
        for name, session in (("sgd", fresh), ("adam", other)):
            for weight, array in values(session.weights()).items():
                np.testing.assert_array_equal(array, start[weight])  # of the same seed
            step = session.step
            for _ in range(epochs):
                for at in range(0, len(x), 32):
                    session.forward_backward_async(x[at : at + 32], y[at : at + 32])
                    last = session.optim_step_async()
            assert last.result().step == step + epochs * 7
            found[name] = values(session.weights())
    np.savez(tmp_path / "start.npz", x=x, y=y, **start)
    told = {"network": network(8, 3)["config"], "loss": LOSS, "epochs": epochs,
            "optimizers": list(found)}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(told))
    reference("fit", str(tmp_path))
    for optimizer, weights in found.items():
        wanted = np.load(tmp_path / f"{optimizer}.npz")
        assert set(weights) == {one for one in wanted.files if "seed" not in one}
        for name, array in weights.items():
            np.testing.assert_allclose(array, wanted[name], atol=1e-5, rtol=0, err_msg=name)
        assert np.abs(weights["last/kernel"] - start["last/kernel"]).max() > 1e-3


def test_gradients_are_finite_differences() -> None:
    """Relative to the largest of each array, in float64."""
    found = json.loads(reference("differences"))
    assert set(found) == {"dense", "convolution", "lstm", "attention"}
    assert all(far < 1e-6 for far in found.values()), found


def test_four_small_batches_are_one_big_one(client: Client) -> None:
    """In float64, which it is all the way."""
    plain = network(8, 3)
    del plain["config"]["config"]["layers"][2]  # whose statistics are of each batch
    x, y = rows(40)
    weights = np.linspace(0.1, 2, 40)
    with client.sessions.open(plain, loss=LOSS, dtype="float64") as session:
        found = values(session.weights())
        assert {one.dtype for one in found.values()} == {np.dtype(np.float64)}
        hidden = np.tanh(x @ found["d8/kernel"] + found["d8/bias"])
        logits = hidden @ found["last/kernel"] + found["last/bias"]
        outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        each = -weights * np.log(outputs[np.arange(40), y])
        forward = session.forward(x, y, weights=weights)
        np.testing.assert_allclose(forward.outputs, outputs, rtol=1e-12)
        np.testing.assert_allclose(forward.per_example, each, rtol=1e-12)
        assert forward.loss == pytest.approx(each.mean(), rel=1e-12)

        whole = session.forward_backward(x, y, weights=weights)
        assert whole.loss == pytest.approx(each.mean(), rel=1e-12)
        wanted = values(session.gradients())
        norm = np.sqrt(sum((one**2).sum() for one in wanted.values()))
        step = session.optim_step(learning_rate=1e-12, clip_norm=norm / 4)
        assert step.gradient_norm == pytest.approx(norm, rel=1e-9)
        assert all((np.asarray(one) == 0).all() for one in session.gradients().values())
        for part in (slice(0, 7), slice(7, 20), slice(20, 21), slice(21, 40)):
            answer = session.forward_backward(x[part], y[part], weights=weights[part])
        assert answer.rows == 40
        for name, array in values(session.gradients()).items():
            np.testing.assert_allclose(array, wanted[name], rtol=1e-8, atol=1e-11)


def test_clipping_and_the_learning_rate_are_of_one_step(fresh: Session) -> None:
    x, y = rows(32)
    before = values(fresh.weights())
    learned = fresh.forward_backward(x, y, per_example=True)
    assert learned.loss == pytest.approx(np.mean(learned.per_example), rel=1e-5)
    gradients = values(fresh.gradients())
    norms = {"d8", "last", "normal"}
    assert set(learned.gradient_norms) == norms
    for one in norms:
        own = [array for name, array in gradients.items() if name.startswith(f"{one}/")]
        wanted = np.sqrt(sum((array**2).sum() for array in own))
        assert learned.gradient_norms[one] == pytest.approx(wanted, rel=1e-5)
    norm = fresh.optim_step(learning_rate=0.25, clip_norm=0.01).gradient_norm
    after = values(fresh.weights())
    for name, gradient in gradients.items():
        wanted = before[name] - 0.25 * gradient * 0.01 / norm
        np.testing.assert_allclose(after[name], wanted, atol=1e-7)
    # the next one has the optimizer's own again: sgd's is 0.01
    fresh.forward_backward(x, y)
    gradient = np.asarray(fresh.gradients(["last/bias"])["last/bias"])
    fresh.optim_step()
    moved = np.asarray(fresh.weights(["last/bias"])["last/bias"]) - after["last/bias"]
    np.testing.assert_allclose(moved, -0.01 * gradient, atol=1e-7)


def test_dropout_is_part_of_a_sessions_state(client: Client) -> None:
    x, y = rows(32)
    with client.sessions.open(network(8, 3, noise=0.5), loss=LOSS, seed=1) as session:
        session.save("start")
        made = [session.forward_backward(x, y).loss for _ in range(2)]
        use = [session.forward(x, y).loss for _ in range(2)]
        assert made[0] != made[1]
        assert use[0] == use[1]
        session.load("start")
        assert [session.forward_backward(x, y).loss for _ in range(2)] == made


# --- order -------------------------------------------------------------------------------------


def test_calls_run_in_the_order_of_their_numbers(house: ServerProcess, fresh: Session) -> None:
    """Sent backwards, each over a connection of its own."""
    first = fresh.refresh()["sequence"]
    step = fresh.step
    x, y = rows(8)
    data = {"inputs": x.tolist(), "targets": y.tolist()}
    kinds = ["forward_backward", "optim_step"] * 8
    answers: dict[int, httpx.Response] = {}
    waiting = threading.Semaphore(0)

    def ask(number: int, kind: str) -> None:
        with httpx.Client(base_url=house.url, headers=house.client.headers, timeout=60) as own:
            waiting.release()
            body = {"sequence": number, "acknowledged": first - 1}
            body |= data if kind == "forward_backward" else {}
            path = f"/v1/training/sessions/{fresh.id}/{kind}"
            answers[number] = own.post(path, json=body)

    threads = []
    for number, kind in reversed(list(enumerate(kinds, first))):
        threads.append(threading.Thread(target=ask, args=(number, kind)))
        threads[-1].start()
        waiting.acquire()
    for thread in threads:
        thread.join()
    steps = []
    for number, kind in enumerate(kinds, first):
        assert answers[number].status_code == 200, answers[number].text
        if kind == "optim_step":
            steps.append(answers[number].json()["step"])
    assert steps == list(range(step + 1, step + 9))


def test_a_number_twice_or_too_far(house: ServerProcess, fresh: Session) -> None:
    told = fresh.refresh()
    path = f"/v1/training/sessions/{fresh.id}/optim_step"
    answer = house.client.post(path, json={"sequence": told["sequence"] - 1})
    assert answer.status_code == 409
    assert answer.json()["error"]["param"] == "sequence"
    assert f"expects call {told['sequence']}" in answer.text
    answer = house.client.post(path, json={"expected_step": fresh.step + 3})
    assert answer.status_code == 409
    assert f"is at step {fresh.step}" in answer.text


def test_what_was_sent_before_a_failure_was_known_fails_too(fresh: Session) -> None:
    x, y = rows(8)
    step = fresh.optim_step if fresh.forward_backward(x, y) else None
    assert step is not None
    was = step().step
    good = fresh.forward_backward_async(x, y)
    bad = fresh.forward_backward_async(x[:, :5], y)
    after = [fresh.forward_backward_async(x, y), fresh.optim_step_async()]
    good.result()
    for one in after:
        with pytest.raises(ClientError):
            one.result()
    with pytest.raises(ApiError, match="shape"):
        bad.result()
    # … and whoever knows of it goes on, with the gradients of the good one
    assert fresh.optim_step().step == was + 1


def test_several_calls_of_one_request(house: ServerProcess, fresh: Session) -> None:
    x, y = rows(8)
    learn = {"call": "forward_backward", "inputs": x.tolist(), "targets": y.tolist()}
    bad = learn | {"targets": [9] * 8}
    path = f"/v1/training/sessions/{fresh.id}/calls"
    calls = [learn, {"call": "optim_step"}, bad, learn, {"call": "optim_step"}]
    found = house.client.post(path, json={"calls": calls}).json()["results"]
    assert found[1]["step"] == fresh.step + 1
    assert found[2]["status"] == 400
    assert "whole numbers from 0 to 2" in found[2]["error"]["message"]
    assert [one["status"] for one in found[3:]] == [409, 409]


# --- what is refused -----------------------------------------------------------------------------


def wrong(name: str) -> tuple[Any, ...]:
    x, y = rows(4)
    holed = x.copy()
    holed[2, 1] = np.nan
    cases: dict[str, tuple[Any, Any, str, str]] = {
        "features": (x[:, :4], y, "invalid_request", "of shape [4, 4]; the network takes [any, 6]"),
        "rank": (x[0], y, "invalid_request", "of shape [6]"),
        "rows": (x, y[:3], "invalid_request", "there are 4 rows of inputs"),
        "none": (x[:0], y[:0], "invalid_request", "one row at least"),
        "class": (x, y + 3, "invalid_request", "whole numbers from 0 to 2"),
        "one hot": (x, np.eye(3)[y], "invalid_request", "targets are of shape [4, 3]"),
        "text": ([["a"]], y, "invalid_request", "no number"),
        "ragged": ([[1, 2], [1]], y, "invalid_request", "rows differ in shape"),
        "NaN": (holed, y, "not_finite", "row 2 of the inputs holds NaN"),
        "infinite": (np.full_like(x, np.inf), y, "not_finite", "the loss is nan"),
    }
    return cases[name]


@pytest.mark.parametrize(
    "name",
    ["features", "rank", "rows", "none", "class", "one hot", "text", "ragged", "NaN", "infinite"],
)
def test_batches_that_do_not_fit(fresh: Session, name: str) -> None:
    x, y, code, told = wrong(name)
    before = values(fresh.weights())
    with pytest.raises(ApiError) as error:
        fresh.forward_backward(x, y)
    assert error.value.status == 400
    assert error.value.code == code
    assert told in error.value.message
    with pytest.raises(ApiError, match="no gradients to apply"):
        fresh.optim_step()
    after = values(fresh.weights())
    assert all((after[one] == before[one]).all() for one in before)


def test_a_step_that_would_end_in_no_numbers_is_not_made(client: Client) -> None:
    plain = network(8, 1)
    plain["config"]["config"]["layers"][-1]["config"]["activation"] = "linear"
    with client.sessions.open(plain, loss="mse", optimizer="sgd") as session:
        with pytest.raises(ApiError, match="real rows, and this session has seen none"):
            session.publish()
        x, _ = rows(8)
        y = np.full((8, 1), 1e18)
        before = values(session.weights())

        def diverge() -> None:
            for _ in range(20):
                session.forward_backward(x, y)
                session.optim_step(learning_rate=100)

        with pytest.raises(ApiError) as error:
            diverge()
        assert error.value.code == "not_finite"
        assert all(np.isfinite(one).all() for one in values(session.weights()).values())
        assert set(before) == set(values(session.weights()))


OPENINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no loss": ({"network": network(8, 3)}, "loss", "needs a loss"),
    "loss": ({"network": network(8, 3), "loss": "nope"}, "loss", "no loss 'nope'"),
    "optimizer": ({"network": network(8, 3), "loss": LOSS, "optimizer": "x"}, "optimizer", "'x'"),
    "nothing": ({"loss": LOSS}, "network", "either"),
    "unknown": ({"network": network(8, 3), "loss": LOSS, "lr": 1}, "lr", "unknown field"),
    "code": (
        {"network": {"config": layer("Lambda", function="x")}, "loss": LOSS},
        "network",
        "not on the list",
    ),
    "data set": (
        {"network": network(8, 3), "loss": LOSS, "dataset": "ds_00"}, "dataset", "no data set"
    ),
    "target": ({"network": network(8, 3), "loss": LOSS, "target": "y"}, "target", "data set"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(OPENINGS))
def test_networks_that_are_refused(house: ServerProcess, name: str) -> None:
    body, param, told = OPENINGS[name]
    answer = house.client.post("/v1/training/sessions", json={"model": "m", **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"] or "").split(".")[0] == param
    assert told in error["message"]


# --- publishing --------------------------------------------------------------------------------


def test_what_is_published_answers_as_the_session(
    house: ServerProcess, client: Client, fresh: Session
) -> None:
    x, y = rows(64)
    for _ in range(5):
        fresh.forward_backward(x, y)
        fresh.optim_step(learning_rate=0.1)
    done = fresh.publish("fromsession", deploy=True, description="by hand")
    again = fresh.publish("fromsession")
    assert (done["model"], done["version"], again["version"]) == ("fromsession", 1, 1)
    ready = "/v2/models/fromsession/ready"
    house.wait_until(lambda: house.client.get(ready).status_code == 200, 60)
    served = client.predict("fromsession", x.tolist())["last"].rows()
    np.testing.assert_allclose(served, np.asarray(fresh.predict(x)), atol=1e-4)
    version = client.training.versions("fromsession")[0]
    assert version["card"]["made_by"].startswith(f"session:{fresh.id}@")
    assert version["card"]["description"] == "by hand"
    assert version["verification"]["max_abs_error"] < 1e-4
    fresh.forward_backward(x, y)
    fresh.optim_step()
    assert fresh.publish("fromsession")["version"] == 2


def reference(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.session_reference", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- data sets -----------------------------------------------------------------------------------


def test_rows_of_a_data_set_by_their_numbers(house: ServerProcess, client: Client) -> None:
    x, y = rows(60)
    data = client.datasets.upload_arrays("numbers", x=x, y=y)
    given = {"loss": LOSS, "dataset": data, "target": "y"}
    with client.sessions.open(network(8, 3), model="ofrows", **given) as session:
        numbers = [59, 3, 17, 17]
        by_number = session.forward(rows=numbers)
        by_value = session.forward(x[numbers], y[numbers])
        assert by_number.loss == by_value.loss
        np.testing.assert_array_equal(by_number.outputs, by_value.outputs)
        session.forward_backward(rows=range(60))
        session.optim_step()
        with pytest.raises(ApiError, match="from 0 to 59"):
            session.predict(rows=[60])
        published = session.publish()
    card = client.training.versions("ofrows")[0]["card"]
    assert published["version"] == 1
    assert card["dataset"]["fingerprint"] == data.fingerprint


def test_a_recipe_on_a_data_set(client: Client, tmp_path: Path) -> None:
    texts = [("good fine great", "up"), ("bad poor awful", "down")] * 40
    file = tmp_path / "texts.csv"
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in texts))
    data = client.datasets.upload(file, name="texts")
    parameters = {"length": 8, "dimensions": 8}
    with client.sessions.open(
        recipe="text_embeddings", parameters=parameters, dataset=data, model="moods"
    ) as session:
        losses = []
        for _ in range(8):
            losses.append(session.forward_backward(rows=range(80)).loss)
            session.optim_step(learning_rate=0.05)
        assert losses[-1] < losses[0] / 2
        session.publish(deploy=True)
    version = client.training.versions("moods")[0]
    assert (version["task"], version["card"]["recipe"]) == ("classify", "text_embeddings")
    assert set(version["labels"]) == {"up", "down"}
