"""Private jobs and sessions on a real server: what they spend, what they are refused, and that a
spend outlives whoever is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.processes import ServerProcess, serving
from tests.training.service import dense, digits, layer, submit, trainer

from openmaas.client import ApiError, Client, JobFailed
from openmaas.training.differential_privacy import accounting
from openmaas.training.differential_privacy.accounting import Mechanism

PRIVACY = {"epsilon": 3.0, "delta": 1e-5}
FIT = {"batch_size": 128, "epochs": 4}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("private")) as server:
        yield server


@pytest.fixture(scope="module")
def client(house: ServerProcess) -> Iterator[Client]:
    with Client(house.url, house.key, timeout=300) as found:
        yield found


@pytest.fixture
def dataset(client: Client) -> Any:
    return client.datasets.upload(digits(), name="digits", target="y")


def promised(card: dict[str, Any]) -> float:
    """What a card says of ε, counted from its other facts."""
    step = Mechanism(card["sampling_rate"], card["noise_multiplier"])
    found = accounting.epsilon(step, card["steps"], card["delta"])
    assert card["epsilon"] == found
    return found


def test_a_private_job_spends_of_its_data_sets_budget(client: Client, dataset: Any) -> None:
    client.datasets.budget(dataset.id, epsilon=4.0, delta=2e-5)
    job = submit(client, dataset, "private", privacy=PRIVACY, fit=FIT)
    held = client.datasets.budget(dataset.id)
    assert held["held"] == {"epsilon": 3.0, "delta": 1e-5}
    with pytest.raises(ApiError, match="ε = 1 and δ = 1e-05 are left") as refused:
        submit(client, dataset, "private", privacy=PRIVACY)
    assert refused.value.status == 409
    with pytest.raises(ApiError, match="without privacy would make void") as refused:
        submit(client, dataset, "plain")
    assert refused.value.status == 409
    job.wait()
    card = job.card()["card"]
    told = card["privacy"]
    assert promised(told) <= 3.0
    assert told["steps"] == told["planned_steps"] == 4 * -(-1258 // 128)
    assert (told["sampling"], told["noise"]) == ("Poisson", "cryptographic")
    assert any("validation and test rows" in one for one in told["not_covered"])
    after = client.datasets.budget(dataset.id)
    assert after["spent"] == {"epsilon": told["epsilon"], "delta": 1e-5}
    assert after["held"]["epsilon"] == 0
    (spend,) = after["spends"]
    assert (spend["id"], spend["event"], spend["steps"]) == (job.id, told["event"], told["steps"])
    # Nothing of the rows that were trained on is told beside.
    told_of = {name for row in card["history"] for name in row}
    assert told_of == {"epoch", "seconds", "learning_rate", "val_loss", "val_accuracy"}


@pytest.mark.slow
def test_steps_that_stop_early_spend_less(client: Client, dataset: Any) -> None:
    job = submit(
        client, dataset, "early", privacy=PRIVACY,
        fit={"batch_size": 128, "epochs": 40,
             "callbacks": [{"name": "early_stopping", "patience": 1, "min_delta": 10.0}]},
    )  # fmt: skip
    job.wait()
    told = job.card()["card"]["privacy"]
    assert told["steps"] == 2 * -(-1258 // 128)
    assert promised(told) < 1.5


@pytest.mark.parametrize(
    ("layers", "more", "why"),
    [
        ([layer("BatchNormalization")], {}, "LayerNormalization or GroupNormalization"),
        ([], {"privacy": {"epsilon": 3, "delta": 0.009}}, "below 1 / rows"),
        ([], {"privacy": PRIVACY | {"noise_multiplier": 0.5}}, "which is more than 3"),
    ],
)
def test_what_cannot_be_private_is_refused(
    client: Client, dataset: Any, layers: list[Any], more: dict[str, Any], why: str
) -> None:
    network = dense(16, 10)
    network["config"]["layers"][2:2] = layers
    job = submit(client, dataset, network={"config": network}, **{"privacy": PRIVACY} | more)
    with pytest.raises(JobFailed, match=why):
        job.wait()
    spent = client.datasets.budget(dataset.id)
    assert (spent["spent"]["epsilon"], spent["held"]["epsilon"]) == (0, 0)


def test_without_rows_that_are_held_out_there_is_no_private_version(client: Client) -> None:
    whole = client.datasets.upload(
        digits(), name="whole", target="y", split={"validation": 0.0, "test": 0.0}
    )
    job = submit(client, whole, privacy=PRIVACY, fit=FIT)
    with pytest.raises(JobFailed, match="validation or test rows"):
        job.wait()


SESSION = PRIVACY | {"steps": 4, "batch_size": 128}


def opened(client: Client, dataset: Any, **privacy: Any) -> Any:
    return client.sessions.open(
        {"config": dense(16, 10)}, model="learnt", dataset=dataset.id, target="y",
        loss="sparse_categorical_crossentropy", optimizer={"name": "adam", "learning_rate": 0.01},
        privacy=SESSION | privacy,
    )  # fmt: skip


@pytest.mark.slow
def test_a_private_session_spends_by_the_step(client: Client, dataset: Any) -> None:
    x, y = (one[:5] for one in digits().values())
    with opened(client, dataset) as session:
        for body, why in (
            ({"rows": [1, 2]}, "the server draws the rows"),
            ({"x": x, "y": y}, "the server draws the rows"),
            ({"per_example": True}, "no loss of single rows"),
        ):
            with pytest.raises(ApiError, match=why):
                session.forward_backward(**body)
        for call in (session.forward, session.predict):
            with pytest.raises(ApiError, match="nothing is told of single rows"):
                call(rows=[1, 2])
        assert client.datasets.budget(dataset.id)["spends"][0]["steps"] == 0
        before = session.weights()
        answer = session.forward_backward()
        assert answer.loss is None
        assert answer.rows == 128  # as many as on average, not as many as there were
        for _ in range(3):  # their gradients are averaged
            assert session.forward_backward().loss is None
        session.optim_step()
        after = session.weights()
        assert all(np.any(np.not_equal(before[name], after[name])) for name in before)
        assert session.forward(x, y).loss > 0  # one's own rows
        with pytest.raises(ApiError, match="it has made its 4 steps") as refused:
            session.forward_backward()
        assert refused.value.status == 409
        published = session.publish()
        card = client.training.versions("learnt")[published["version"] - 1]["card"]["privacy"]
        assert (card["steps"], card["planned_steps"]) == (4, 4)
        assert promised(card) <= 3.0
    (spend,) = client.datasets.budget(dataset.id)["spends"]
    assert (spend["state"], spend["epsilon"]) == ("settled", card["epsilon"])


@pytest.mark.slow
def test_what_a_session_spent_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.url, server.key, timeout=300) as client:
        dataset = client.datasets.upload(digits(), name="digits", target="y")
        client.datasets.budget(dataset.id, epsilon=5.0, delta=2e-5)
        session = opened(client, dataset)
        session.save("begin")
        session.forward_backward()
        session.forward_backward()
        server.process.kill()
        server.process.wait()
        session.leave()
    with serving(tmp_path) as server, Client(server.url, server.key, timeout=300) as client:
        (spend,) = client.datasets.budget(dataset.id)["spends"]
        assert (spend["state"], spend["steps"], spend["epsilon"]) == ("held", 2, 3.0)
        again = client.sessions.get(session.id)
        for _ in range(2):
            again.forward_backward()
        with pytest.raises(ApiError, match="it has made its 4 steps"):
            again.forward_backward()
        again.close()
        (spend,) = client.datasets.budget(dataset.id)["spends"]
        assert (spend["state"], spend["steps"]) == ("settled", 4)


@pytest.mark.slow
def test_a_job_that_is_killed_or_cancelled_spends_what_it_began(
    client: Client, house: ServerProcess, dataset: Any
) -> None:
    """Its trainer dies, it goes on, and is cancelled: the steps until then are spent, and those
    that were made twice count once, as they were the same."""
    job = submit(
        client, dataset, "cancelled", privacy=PRIVACY,
        network={"config": dense(256, 256, 10)}, fit={"batch_size": 256, "epochs": 2000},
    )  # fmt: skip

    def epochs() -> int:
        return int(job.refresh().progress.get("epoch", 0))

    house.wait_until(lambda: epochs() > 0, 120)
    pid = trainer(house)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    after = epochs() + 5
    house.wait_until(lambda: epochs() >= after, 120)
    seen = epochs()
    job.cancel()
    house.wait_until(lambda: job.refresh().state == "cancelled", 60)
    (spend,) = client.datasets.budget(dataset.id)["spends"]
    steps = -(-1258 // 256)
    assert spend["state"] == "settled"
    assert spend["steps"] >= (seen - 1) * steps
    assert 0 < spend["epsilon"] < 3.0
    sampled = spend["event"]["self_composed"]["event"]["poisson_sampled"]
    noise = sampled["event"]["gaussian"]["noise_multiplier"]
    step = Mechanism(sampled["sampling_probability"], noise)
    assert spend["epsilon"] == accounting.epsilon(step, spend["steps"], 1e-5)
    assert json.dumps(spend["event"])
    assert np.isfinite(noise)
