"""Jobs as rows: whose they are, what may be done to them when, and their events."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from openmaas.audit import By, acts
from openmaas.database import Database, open_database
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.master import MasterFile
from openmaas.errors import Conflict, InvalidRequest, NotFound
from openmaas.schema import datasets
from openmaas.training.datasets import Datasets
from openmaas.training.jobs import UNFINISHED, Job, Jobs
from openmaas.training.spec import Fit, JobSpec, Network, Promotion
from openmaas.training.supervisor import check, choose
from openmaas.training.uploads import Uploads
from openmaas.training.work import withheld

ME = By("a test")
ACME, OTHER = ("acme", "default", "key_1"), ("other", "default", "key_2")
SPEC = JobSpec(model="m", dataset="ds_1", recipe="tabular_mlp", fit=Fit(epochs=3))


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    found = open_database(tmp_path, database_url)
    add_dataset(found, "ds_1", "acme", "ready")
    add_dataset(found, "ds_2", "acme", "failed")
    add_dataset(found, "ds_3", "other", "reading")
    yield found
    found.close()


def add_dataset(database: Database, id: str, tenant: str, state: str) -> None:
    with database.write() as connection:
        connection.execute(
            datasets.insert().values(
                id=id, tenant=tenant, project="default", key="", name="d",
                format="csv", state=state, upload="", options={}, bytes=0, created=0,
            )
        )  # fmt: skip


def test_a_job_is_its_tenants_alone(database: Database) -> None:
    jobs = Jobs(database)
    made = jobs.create(SPEC, ACME, ME)
    assert jobs.get(made.id, "acme") == made
    assert made.spec == SPEC
    for id in (made.id, "job_0"):
        with pytest.raises(NotFound, match=id):
            jobs.get(id, "other")
        with pytest.raises(NotFound, match=id):
            jobs.act(id, "cancel", "other", ME)
    assert jobs.list("other") == []


@pytest.mark.parametrize("dataset", ["ds_2", "ds_3", "ds_9"])
def test_data_that_are_not_there_are_refused(database: Database, dataset: str) -> None:
    """Failed, another tenant's, and absent."""
    spec = JobSpec(model="m", dataset=dataset, recipe="tabular_mlp")
    with pytest.raises(InvalidRequest, match="data set"):
        Jobs(database).create(spec, ACME, ME)


def test_data_that_a_job_begins_with_are_not_removed(database: Database, tmp_path: Path) -> None:
    """Whichever comes first, a job and a removal at the same time: one is refused."""
    jobs, start = Jobs(database), threading.Barrier(2)
    keyring = Keyring(database, MasterFile(tmp_path / "master.key"))
    uploads = Uploads(database, tmp_path / "uploads", 1, keyring)
    kept = Datasets(database, tmp_path / "datasets", uploads, keyring)

    def create(id: str) -> bool:
        start.wait()
        with contextlib.suppress(InvalidRequest):
            jobs.create(msgspec.structs.replace(SPEC, dataset=id), ACME, ME)
            return True
        return False

    def remove(id: str) -> bool:
        start.wait()
        with contextlib.suppress(Conflict):
            kept.remove(id, "acme", ME)
            return True
        return False

    with ThreadPoolExecutor(2) as pool:
        for number in range(100, 140):
            add_dataset(database, id := f"ds_{number}", "acme", "ready")
            created, removed = pool.submit(create, id), pool.submit(remove, id)
            assert created.result() != removed.result()


def test_what_is_done_depends_on_the_state(database: Database) -> None:
    jobs = Jobs(database)
    id = jobs.create(SPEC, ACME, ME).id
    with pytest.raises(Conflict, match="queued"):
        jobs.act(id, "resume", "acme", ME)
    assert jobs.act(id, "pause", "acme", ME).state == "paused"
    assert jobs.act(id, "resume", "acme", ME).state == "queued"
    assert jobs.move(id, ["queued"], "running")
    assert not jobs.move(id, ["queued"], "running")  # only one server has it
    assert jobs.act(id, "pause", "acme", ME).state == "pausing"
    assert jobs.act(id, "resume", "acme", ME).state == "running"
    assert jobs.act(id, "cancel", "acme", ME).state == "cancelling"
    assert jobs.move(id, ["cancelling"], "cancelled")
    ended = jobs.get(id)
    assert ended.finished is not None
    with pytest.raises(Conflict, match="cancelled"):
        jobs.act(id, "cancel", "acme", ME)
    told = [event.data["state"] for event in jobs.events(id)]
    assert told == ["queued", "paused", "queued", "running", "pausing", "running", "cancelling",
                    "cancelled"]  # fmt: skip
    assert [act.act for act in acts(database, tenant="acme")][::-1] == [
        "job.create", "job.pause", "job.resume", "job.pause", "job.resume", "job.cancel",
    ]  # fmt: skip


def test_events_are_numbered_and_paged(database: Database) -> None:
    jobs = Jobs(database)
    id = jobs.create(SPEC, ACME, ME).id
    for epoch in range(1, 6):
        jobs.note(id, ("epoch", {"epoch": epoch}), progress={"epoch": epoch, "epochs": 5})
    assert [event.number for event in jobs.events(id)] == [1, 2, 3, 4, 5, 6]
    assert [event.data for event in jobs.events(id, after=2, limit=2)] == [
        {"epoch": 2},
        {"epoch": 3},
    ]
    assert jobs.get(id).progress.epoch == 5


def test_pages_of_jobs(database: Database) -> None:
    jobs = Jobs(database)
    made = {jobs.create(SPEC, ACME, ME).id for _ in range(5)}
    seen: list[str] = []
    while page := jobs.list("acme", before=seen[-1] if seen else "", limit=2):
        seen += [job.id for job in page]
    assert len(seen) == 5
    assert set(seen) == made


def test_times_of_the_database_are_whole(database: Database) -> None:
    jobs = Jobs(database)
    id = jobs.create(SPEC, ACME, ME).id
    jobs.note(id, seconds=1.5, billed=2)
    assert jobs.get(id).seconds == 1.5
    assert jobs.billed(id) == 2
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM jobs")).scalar_one() == 1


def job(id: str, tenant: str, created: int) -> Job:
    return Job(id, tenant, "default", "k", "m", SPEC, "queued", None, None, None, 0.0, 0, created,
               None, None)  # type: ignore[arg-type]  # fmt: skip


def test_the_next_job_is_of_whoever_has_the_fewest_running() -> None:
    queued = [job("a1", "a", 1), job("a2", "a", 2), job("b1", "b", 3)]
    assert choose(queued, {}).id == "a1"  # type: ignore[union-attr]
    assert choose(queued, {"a0": "a"}).id == "b1"  # type: ignore[union-attr]
    assert choose(queued, {"a0": "a", "b0": "b"}).id == "a1"  # type: ignore[union-attr]
    assert choose([], {}) is None


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_no_tenant_waits_for_anothers_queue(tenants: list[str]) -> None:
    """One at a time, each tenant's first job is among the first as many as there are tenants
    when all of theirs run on."""
    queued = [job(f"{at}", tenant, at) for at, tenant in enumerate(tenants)]
    running: dict[str, str] = {}
    order = []
    while (one := choose(queued, running)) is not None:
        order.append(one.tenant)
        running[one.id] = one.tenant
        queued.remove(one)
    kinds = len(set(tenants))
    assert set(order[:kinds]) == set(tenants)


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        (JobSpec(model="m", dataset="ds_1"), "recipe"),
        (
            JobSpec(model="m", dataset="ds_1", recipe="tabular_mlp", network=Network(config={})),
            "recipe",
        ),
        (JobSpec(model="m", dataset="ds_1", network=Network()), "network"),
        (
            JobSpec(model="m", dataset="ds_1", network=Network(config={}, upload="up_1")),
            "network",
        ),
        (
            JobSpec(model="m", dataset="ds_1", network=Network(config={}), parameters={"units": 1}),
            "parameters",
        ),
        (
            JobSpec(model="m", dataset="ds_1", recipe="tabular_mlp", promote=Promotion()),
            "promote",
        ),
    ],
)
def test_what_says_too_little_or_too_much_is_refused(spec: JobSpec, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(spec)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("promote", "metrics", "allowed"),
    [
        (False, {"accuracy": 1.0}, False),
        (True, {}, True),
        (Promotion(at_least=0.9), {"accuracy": 0.9}, True),
        (Promotion(at_least=0.9), {"accuracy": 0.89}, False),
        (Promotion(at_least=0.9), {"accuracy": None}, False),
        (Promotion(at_least=0.9), {}, False),
        (Promotion(metric="mae", at_most=2.0), {"mae": 2.1}, False),
        (Promotion(metric="mae", at_most=2.0), {"mae": 1.9}, True),
    ],
)
def test_promotion_by_a_bound(
    promote: bool | Promotion, metrics: dict[str, float | None], allowed: bool
) -> None:
    spec = JobSpec(model="m", dataset="ds_1", recipe="tabular_mlp", promote=promote)
    assert (withheld(spec, metrics) is None) is allowed


def test_the_states_that_are_not_finished() -> None:
    assert set(UNFINISHED).isdisjoint(("succeeded", "failed", "cancelled"))


def test_who_acts_while_a_trainer_tells_waits(database: Database) -> None:
    """Events are numbered one after the other, whoever adds them; nobody holds another up."""
    jobs = Jobs(database)
    made = jobs.create(SPEC, ACME, ME)
    jobs.move(made.id, ["queued"], "running")

    def tell() -> None:
        for number in range(60):
            jobs.note(made.id, ("epoch", {"epoch": number}), seconds=float(number))

    def act() -> None:
        for _ in range(30):
            jobs.act(made.id, "pause", "acme", ME)
            assert jobs.move(made.id, ["pausing"], "running")

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(tell), pool.submit(tell), pool.submit(act)]:
            done.result()
    events = jobs.events(made.id)
    assert [one.number for one in events] == list(range(1, len(events) + 1))
    assert len(events) == 2 + 120 + 60
