"""A data set's budget: held when a job is made, settled at its end, and never overspent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training.test_jobs import ACME, ME, SPEC, add_dataset

from openmaas.audit import acts
from openmaas.database import Database, open_database
from openmaas.errors import Conflict, InvalidRequest, NotFound
from openmaas.training.differential_privacy import accounting, guarantee
from openmaas.training.differential_privacy.accounting import Mechanism
from openmaas.training.differential_privacy.budgets import Amount, Budgets
from openmaas.training.differential_privacy.guarantee import Spent
from openmaas.training.differential_privacy.settling import Settling
from openmaas.training.jobs import Jobs
from openmaas.training.metering import Owner
from openmaas.training.session_records import SessionRecords
from openmaas.training.spec import (
    Budget,
    EarlyStopping,
    Fit,
    JobSpec,
    Privacy,
    ReduceOnPlateau,
    SessionPrivacy,
    SessionSpec,
)
from openmaas.training.supervisor import check

PRIVATE = msgspec.structs.replace(SPEC, privacy=Privacy(epsilon=1.0, delta=1e-6))
SESSION = SessionSpec(
    model="m",
    dataset="ds_1",
    recipe="tabular_mlp",
    privacy=SessionPrivacy(epsilon=1.0, delta=1e-6, steps=3, batch_size=10),
)


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    found = open_database(tmp_path / "db", database_url)
    add_dataset(found, "ds_1", "acme", "ready")
    yield found
    found.close()


@pytest.fixture
def budgets(database: Database) -> Budgets:
    return Budgets(database)


def test_of_twenty_jobs_at_once_those_that_fit_are_made(
    database: Database, budgets: Budgets
) -> None:
    budgets.set("ds_1", "acme", Budget(epsilon=7.0, delta=1e-4), ME)
    jobs, start = Jobs(database), threading.Barrier(20)

    def create(_: int) -> bool:
        start.wait()
        with contextlib.suppress(Conflict):
            jobs.create(PRIVATE, ACME, ME)
            return True
        return False

    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(create, range(20)))
    assert sum(made) == 7
    told = budgets.get("ds_1", "acme")
    assert (told.held.epsilon, told.spent.epsilon) == (7.0, 0.0)
    assert told.left is not None
    assert told.left.epsilon == 0
    assert len(jobs.list("acme")) == 7


@pytest.mark.parametrize(("epsilon", "delta"), [(2.5, 1e-4), (100, 2e-6)])
def test_a_job_that_would_overspend_is_told_the_numbers(
    database: Database, budgets: Budgets, epsilon: float, delta: float
) -> None:
    """Of ε, and of δ."""
    jobs = Jobs(database)
    budgets.set("ds_1", "acme", Budget(epsilon=epsilon, delta=delta), ME)
    jobs.create(PRIVATE, ACME, ME)
    jobs.create(PRIVATE, ACME, ME)
    with pytest.raises(Conflict, match=f"budget of ε = {epsilon:g} and δ = {delta:g}") as told:
        jobs.create(PRIVATE, ACME, ME)
    assert "of which ε = 2 and δ = 2e-06 are spent or held" in told.value.message
    assert "ε = 1 and δ = 1e-06 would be spent" in told.value.message
    assert told.value.param == "privacy"
    assert len(jobs.list("acme")) == 2


def test_what_learns_without_privacy_is_refused_where_there_is_a_budget(
    database: Database, budgets: Budgets
) -> None:
    jobs, sessions = Jobs(database), SessionRecords(database)
    plain = msgspec.structs.replace(SESSION, privacy=None)
    before = jobs.create(SPEC, ACME, ME)
    with pytest.raises(Conflict, match=f"{before.id} learns from data set ds_1 without privacy"):
        budgets.set("ds_1", "acme", Budget(epsilon=1, delta=1e-5), ME)
    jobs.act(before.id, "cancel", "acme", ME)
    assert budgets.set("ds_1", "acme", Budget(epsilon=1, delta=1e-5), ME).unprotected == 1
    with pytest.raises(Conflict, match="without privacy would make void"):
        jobs.create(SPEC, ACME, ME)
    with pytest.raises(Conflict, match="without privacy would make void"):
        sessions.create(plain, Owner(*ACME), ME)
    assert sessions.list("acme") == []


def test_a_budget_is_not_lowered_below_what_is_spent(database: Database, budgets: Budgets) -> None:
    """What was spent before there was a budget counts too."""
    job = Jobs(database).create(PRIVATE, ACME, ME)
    for low in (Budget(epsilon=0.5, delta=1e-4), Budget(epsilon=5, delta=1e-7)):
        with pytest.raises(Conflict, match="are spent or held already"):
            budgets.set("ds_1", "acme", low, ME)
    assert budgets.get("ds_1", "acme").budget is None
    budgets.set("ds_1", "acme", Budget(epsilon=1.0, delta=1e-6), ME)
    budgets.settle(job.id, Amount(0.4, 1e-6), 10, None)
    told = budgets.set("ds_1", "acme", Budget(epsilon=0.4, delta=1e-6), ME)
    assert told.budget == Amount(0.4, 1e-6)
    assert (told.spent, told.held) == (Amount(0.4, 1e-6), Amount(0.0, 0.0))
    assert [one.act for one in acts(database) if one.act == "dataset.budget"] == [
        "dataset.budget"
    ] * 2


def test_budgets_are_of_a_tenant(budgets: Budgets) -> None:
    with pytest.raises(NotFound):
        budgets.get("ds_1", "other")
    with pytest.raises(NotFound):
        budgets.set("ds_1", "other", Budget(epsilon=1, delta=1e-5), ME)


def test_a_job_is_settled_to_the_steps_that_it_began(
    database: Database, budgets: Budgets, tmp_path: Path
) -> None:
    job = Jobs(database).create(PRIVATE, ACME, ME)
    folder = tmp_path / job.id
    folder.mkdir()
    spent = Spent(rate=0.1, noise_multiplier=4.0, delta=1e-6, steps=12)
    guarantee.write(folder, spent)
    settling = Settling(budgets)
    settling.job(job.id, folder, 1)
    (found,) = budgets.get("ds_1", "acme").spends
    assert found.state == "settled"
    assert found.epsilon == accounting.epsilon(Mechanism(0.1, 4.0), 12, 1e-6)
    assert (found.delta, found.steps) == (1e-6, 12)
    assert found.event == guarantee.event(0.1, 4.0, 12)
    settling.job(job.id, folder, 1)
    assert budgets.get("ds_1", "acme").spends == [found]


@pytest.mark.parametrize("left", ["nothing", "folder", "damage", "no folder"])
def test_what_cannot_be_told_is_taken_for_spent(
    database: Database, budgets: Budgets, tmp_path: Path, left: str
) -> None:
    """Jobs that were cancelled while nothing worked on them: never begun, begun without a step,
    with a file that is damaged, and with a folder that is gone."""
    jobs = Jobs(database)
    job = jobs.create(PRIVATE, ACME, ME)
    if left != "nothing":
        jobs.note(job.id, attempts=1)
    if left in ("folder", "damage"):
        (tmp_path / job.id).mkdir()
    if left == "damage":
        (tmp_path / job.id / guarantee.LEDGER).write_bytes(b"{")
    settling = Settling(budgets)
    settling.ended(tmp_path.joinpath)
    assert budgets.get("ds_1", "acme").held.epsilon == 1.0  # it may be begun yet
    jobs.act(job.id, "cancel", "acme", ME)
    settling.ended(tmp_path.joinpath)
    told = budgets.get("ds_1", "acme")
    assert told.held.epsilon == 0
    assert told.spent.epsilon == (0.0 if left in ("nothing", "folder") else 1.0)


def test_a_session_spends_step_by_step(database: Database, budgets: Budgets) -> None:
    sessions = SessionRecords(database)
    row = sessions.create(SESSION, Owner(*ACME), ME)
    Settling(budgets).opened(row.id, 0.1, 4.0)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: _step(budgets, row.id), range(8)))
    assert sorted(one for one in taken if one is not None) == [0, 1, 2]
    with pytest.raises(Conflict, match="it has made its 3 steps"):
        budgets.step(row.id)
    sessions.change(row.id, state="closed")
    Settling(budgets).ended(Path("/nowhere").joinpath)
    (found,) = budgets.get("ds_1", "acme").spends
    assert found.steps == 3
    assert found.epsilon == accounting.epsilon(Mechanism(0.1, 4.0), 3, 1e-6)
    with pytest.raises(Conflict):
        budgets.step(row.id)


def _step(budgets: Budgets, id: str) -> int | None:
    with contextlib.suppress(Conflict):
        return budgets.step(id)
    return None


def test_sessions_and_jobs_share_a_budget(database: Database, budgets: Budgets) -> None:
    budgets.set("ds_1", "acme", Budget(epsilon=1.5, delta=1e-4), ME)
    SessionRecords(database).create(SESSION, Owner(*ACME), ME)
    with pytest.raises(Conflict, match=r"ε = 0\.5 and"):
        Jobs(database).create(PRIVATE, ACME, ME)


def private(**fit: object) -> JobSpec:
    return msgspec.structs.replace(PRIVATE, fit=Fit(**fit))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (private(backend="torch"), "private training is on jax"),
        (private(backend="tensorflow"), "private training is on jax"),
        (private(class_weight="balanced"), "counted from the rows"),
        (private(callbacks=[EarlyStopping(monitor="loss")]), "watches 'loss' of rows that are"),
        (private(callbacks=[ReduceOnPlateau(monitor="accuracy")]), "val_accuracy"),
    ],
)
def test_what_no_noise_hides_is_refused(spec: JobSpec, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        check(spec)
    check(msgspec.structs.replace(spec, privacy=None))


@given(
    st.dictionaries(
        st.sampled_from(["epsilon", "delta", "max_grad_norm", "noise_multiplier", "noise", "odd"]),
        st.one_of(
            st.floats(),
            st.sampled_from([0, -1, 1e-5, 0.5, 3, 1e308, None, "cryptographic", "none", True]),
        ),
    )
)
def test_what_is_asked_for_is_bounded(told: dict[str, object]) -> None:
    """Nothing is taken that is not known, not finite, or beyond its bounds."""
    try:
        found = msgspec.convert(told, Privacy)
    except msgspec.ValidationError:
        return
    assert told.keys() <= set(Privacy.__struct_fields__)
    assert 0 < found.epsilon <= 1000
    assert 0 < found.delta <= 0.01
    assert 0 < found.max_grad_norm <= 1e6
    assert found.noise_multiplier is None or 0.4 <= found.noise_multiplier <= 1e4
    assert found.noise in ("cryptographic", "pseudorandom")
