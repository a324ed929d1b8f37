"""Aliases as rows: what is pending, what answers, and where a rollback leads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openmaas.audit import By
from openmaas.database import Database, open_database
from openmaas.errors import Conflict, InvalidRequest, ModelNotFound
from openmaas.registry.deployments import Alias, Deployments, Plan, Replicas, Shadow, Target
from openmaas.registry.records import Records, Version

ME = By("a test")
LIVE = ("", "m", "live")


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    found = open_database(tmp_path, database_url)
    yield found
    found.close()


@pytest.fixture
def rows(database: Database) -> Deployments:
    """Three versions of m, deployed; the first one is live."""
    records, rows = Records(database), Deployments(database)
    for digest in "abc":
        one = Version("m", 0, digest, "predict", "openvino-ir", "file:m", "", 10, 0)
        version = records.add(one, ME)
        rows.deploy(version, ME, "openvino_tensors", "", {}, live=digest == "a")
    return rows


def live(rows: Deployments) -> Alias:
    return next(one for one in rows.aliases("m") if one.alias == "live")


def go(rows: Deployments, *targets: Target) -> Alias:
    """As a gateway does it that has all of them loaded."""
    done = rows.settle(rows.point(LIVE, targets, ME))
    assert done is not None
    return done


def deployed(rows: Deployments) -> list[int]:
    return [one.version for one in rows.all()]


def test_a_way_from_one_version_to_the_next_can_be_taken_back_at_any_step(
    rows: Deployments,
) -> None:
    for steps in ([10], [10, 50], [10, 50, 100]):
        for percent in steps:
            rest = [Target(1, 100 - percent)] if percent < 100 else []
            assert go(rows, *rest, Target(2, percent)).previous == [Target(1)]
        back = rows.settle(rows.roll_back(LIVE, ME, "it was slow"))
        assert back is not None
        assert (back.targets, back.previous) == ([Target(1)], None)
        assert back.detail == "rolled back: it was slow"
        assert deployed(rows) == [1]  # what was taken back is deployed no more
        with pytest.raises(Conflict):
            rows.roll_back(LIVE, ME)
        version = Version("m", 2, "b", "predict", "openvino-ir", "file:m", "", 10, 0)
        rows.deploy(version, ME, "openvino_tensors", "", {}, live=False)


def test_the_next_rollout_is_taken_back_to_the_last(rows: Deployments) -> None:
    assert go(rows, Target(2)).previous == [Target(1)]
    assert deployed(rows) == [1, 2]  # the third was nobody's
    with pytest.raises(ModelNotFound):
        rows.point(LIVE, [Target(3)], ME)


def test_what_is_pending_is_given_up_by_a_rollback_or_a_failure(rows: Deployments) -> None:
    pending = rows.point(LIVE, [Target(2)], ME)
    assert (pending.targets, pending.pending) == ([Target(1)], Plan([Target(2)]))
    back = rows.roll_back(LIVE, ME)
    assert (back.targets, back.pending) == ([Target(1)], None)
    again = rows.point(LIVE, [Target(2)], ME)
    rows.give_up(pending, "an old look")  # it was changed since
    assert live(rows).pending == Plan([Target(2)])
    rows.give_up(again, "it cannot be loaded")
    assert (live(rows).pending, live(rows).detail) == (None, "it cannot be loaded")


def test_a_look_that_is_old_settles_nothing(rows: Deployments) -> None:
    old = rows.point(LIVE, [Target(2)], ME)
    rows.point(LIVE, [Target(1, 50), Target(2, 50)], ME)
    assert rows.settle(old) is None
    assert live(rows).targets == [Target(1)]


def test_what_an_alias_refers_to_stays(rows: Deployments) -> None:
    rows.point(LIVE, [Target(1)], ME, shadow=Shadow(3))
    rows.point(("", "m", "next"), [Target(2)], ME)
    for number in (1, 2, 3):
        with pytest.raises(Conflict):
            rows.undeploy("m", ME, number=number)
    rows.remove_alias(("", "m", "next"), ME)
    assert deployed(rows) == [1, 3]
    go(rows, Target(3))
    rows.undeploy("m", ME, number=1)  # where a rollback led
    assert live(rows).previous is None
    rows.undeploy("m", ME)
    assert rows.everything() == ([], [])


@pytest.mark.parametrize(
    "targets",
    [[], [Target(1, 50)], [Target(1), Target(1, 0)], [Target(1, 60), Target(2, 60)]],
)
def test_weights_are_percent(rows: Deployments, targets: list[Target]) -> None:
    with pytest.raises(InvalidRequest):
        rows.point(LIVE, targets, ME)


def test_bounds_of_replicas(rows: Deployments) -> None:
    version = Version("m", 1, "a", "predict", "openvino-ir", "file:m", "", 10, 0)
    with pytest.raises(InvalidRequest):
        rows.deploy(version, ME, "r", "", {}, replicas=Replicas(min=3, max=2))
