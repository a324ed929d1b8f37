"""Jobs through the API: from data to a version that answers, and everything on the way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.processes import ServerProcess, serving
from tests.training.service import dense, digits, layer, submit

from openmaas.client import ApiError, Client, JobFailed
from openmaas.client.training import FINISHED


@pytest.fixture(scope="module")
def house(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("training") / "data"
    shutil.copytree(digits_only, data)
    with serving(data) as server:
        yield server


@pytest.fixture(scope="module")
def client(house: ServerProcess) -> Iterator[Client]:
    with Client(house.url, house.key) as found:
        yield found


@pytest.fixture(autouse=True)
def _nothing_runs_on(client: Client) -> Iterator[None]:
    """Jobs take turns: one that a failed test left would keep the others waiting."""
    yield
    for job in client.training.jobs():
        if job.state not in FINISHED:
            job.cancel()


@pytest.fixture(scope="module")
def dataset(client: Client) -> Any:
    return client.datasets.upload_arrays("digits", **digits())


def test_from_data_to_an_answer_in_one_call(client: Client, dataset: Any) -> None:
    told: list[dict[str, Any]] = []
    job = client.training.train(
        "numbers",
        dataset,
        network={"config": dense(32, 10)},
        target="y",
        fit={"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], "epochs": 12},
        promote={"metric": "accuracy", "at_least": 0.9},
        tell=told.append,
    )
    assert job.state == "succeeded"
    states = [event["data"]["state"] for event in told if event["kind"] == "state"]
    assert states == ["queued", "running", "publishing", "succeeded"]
    epochs = [event["data"] for event in told if event["kind"] == "epoch"]
    assert [one["epoch"] for one in epochs] == list(range(1, 13))
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(epochs[-1]["metrics"])
    numbers = [event["number"] for event in told if "number" in event]
    assert numbers == list(range(1, len(numbers) + 1))

    published = job.card()
    card = published["card"]
    assert card["metrics"]["accuracy"] > 0.9
    assert card["dataset"]["fingerprint"] == client.datasets.get(dataset.id).fingerprint
    assert np.trace(np.array(card["confusion"]["matrix"])) > 0
    assert len(card["history"]) == 12
    assert {"keras", "jax", "openvino"} <= set(card["libraries"])
    assert published["verification"]["max_abs_error"] <= 1e-4
    assert published["digest"].startswith("sha256:")
    assert job.curve().startswith(b"\x89PNG")

    x, y = digits().values()
    (served,) = client.predict("numbers", x[:200].tolist()).values()
    assert (np.array(served.rows()).argmax(1) == y[:200]).mean() > 0.9


def test_a_bound_that_is_missed_leaves_the_version_a_candidate(
    client: Client, dataset: Any
) -> None:
    promote = {"metric": "accuracy", "at_least": 1.0}
    job = submit(client, dataset, "candidate", promote=promote, fit={"epochs": 1}).wait()
    assert job.version == 1
    with pytest.raises(ApiError) as caught:
        client.inputs("candidate")
    assert caught.value.status == 404
    client.training.promote("candidate", 1)
    assert [one["name"] for one in client.inputs("candidate")]


def test_pause_resume_and_cancel(client: Client, house: ServerProcess, dataset: Any) -> None:
    job = submit(client, dataset, "slow", fit={"epochs": 50_000, "batch_size": 8})
    house.wait_until(lambda: job.refresh().progress.get("epoch", 0) > 0, 60)
    assert job.pause().state in ("pausing", "paused")
    house.wait_until(lambda: job.refresh().state == "paused", 60)
    epoch = job.progress["epoch"]
    assert any(event["kind"] == "checkpoint" for event in client.training.events(job.id))
    job.resume()
    house.wait_until(lambda: job.refresh().progress["epoch"] > epoch, 60)
    assert job.cancel().state == "cancelling"
    house.wait_until(lambda: job.refresh().state == "cancelled", 60)
    assert not (house.data / "jobs" / job.id).exists()
    assert job.version is None
    with pytest.raises(JobFailed, match="cancelled"):
        job.wait()
    with pytest.raises(ApiError) as caught:
        job.resume()
    assert caught.value.status == 409


def test_what_diverges_stops_with_a_word_on_why(client: Client, dataset: Any) -> None:
    fit = {"optimizer": {"name": "sgd", "learning_rate": 100.0}, "epochs": 50, "loss": "mse"}
    network = {"config": dense(32, 1)}
    network["config"]["config"]["layers"][-1]["config"]["activation"] = "linear"
    job = submit(client, dataset, "wild", fit=fit | {"metrics": []}, network=network)
    with pytest.raises(JobFailed, match="learning rate"):
        job.wait()
    assert job.error["code"] == "training_diverged"
    assert job.version is None


def test_a_network_that_does_not_fit_the_data(client: Client, dataset: Any) -> None:
    job = submit(client, dataset, "odd", network={"config": dense(10, inputs=63)})
    with pytest.raises(JobFailed, match=r"6[34]"):
        job.wait()


def test_code_in_a_network_is_refused_unrun(
    client: Client, house: ServerProcess, dataset: Any
) -> None:
    canary = house.data / "canary"
    config = dense(10)
    code = f"open({str(canary)!r}, 'w')"
    config["config"]["layers"].insert(1, layer("Lambda", function=code))
    with pytest.raises((ApiError, JobFailed), match="Lambda"):
        submit(client, dataset, "evil", network={"config": config}).wait()
    assert not canary.exists()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"dataset": "ds_00"}, "dataset"),
        ({"network": None}, "recipe"),
        ({"fit": {"epochs": 0}}, "fit.epochs"),
        ({"fit": {"optimiser": "adam"}}, "optimiser"),
        ({"network": {"upload": "up_00"}}, "network.upload"),
        ({"model": "a/b"}, "model"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_bad_jobs_are_refused_by_name(
    house: ServerProcess, dataset: Any, change: dict[str, Any], param: str
) -> None:
    body = {"model": "m", "dataset": dataset.id, "network": {"config": dense(10)}} | change
    body = {name: value for name, value in body.items() if value is not None}
    answer = house.client.post("/v1/training/jobs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_another_tenant_sees_nothing(house: ServerProcess, client: Client, dataset: Any) -> None:
    house.client.post("/v1/tenants", json={"id": "other"})
    body = {"name": "x", "scopes": ["inference", "train"]}
    secret = house.client.post("/v1/tenants/other/keys", json=body).json()["secret"]
    job = submit(client, dataset, "mine", fit={"epochs": 1}).wait()
    with Client(house.url, secret) as other:
        assert other.training.jobs() == []
        with pytest.raises(ApiError) as caught:
            submit(other, dataset.id)
        assert caught.value.status == 400  # as for a data set that is not there
        for ask in (
            lambda: other.training.job(job.id),
            lambda: other.training.versions("mine"),
            lambda: other.training.promote("mine", 1),
        ):
            with pytest.raises(ApiError) as caught:
                ask()
            assert caught.value.status == 404


def test_compute_is_billed_and_bounded_by_quota(house: ServerProcess, dataset: Any) -> None:
    quota = {"compute_seconds_in_all": 3}
    house.client.post("/v1/tenants", json={"id": "poor", "quota": quota})
    body = {"name": "x", "scopes": ["inference", "train"]}
    secret = house.client.post("/v1/tenants/poor/keys", json=body).json()["secret"]
    with Client(house.url, secret) as poor:
        own = poor.datasets.upload_arrays("digits", **digits())
        job = submit(poor, own, fit={"epochs": 100_000})
        house.wait_until(lambda: job.refresh().state == "paused", 60)
        words = [one["data"]["text"] for one in poor.training.events(job.id)
                 if one["kind"] == "message"]  # fmt: skip
        assert any("compute_seconds" in one for one in words)
        house.wait_until(lambda: job.refresh().seconds > 0, 10)  # it is in the ledger then
        found = house.client.get("/v1/tenants/poor/usage?by=task").json()["data"]
        (train,) = [one for one in found if one["task"] == "train"]
        assert job.seconds <= train["seconds"] <= job.seconds + 1  # a begun second counts
        # It stops before the quota is used up, as it could not go on to its next look.
        assert train["seconds"] <= 3 + 30  # what it took to write its checkpoint
        all_of_it = {"compute_seconds_in_all": train["seconds"]}
        house.client.patch("/v1/tenants/poor", json={"quota": all_of_it})
        with pytest.raises(ApiError) as caught:
            submit(poor, own)
        assert caught.value.status == 429
