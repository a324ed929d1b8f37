"""What is erased is gone from everywhere, in the right order, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from openmaas import schema
from openmaas.app import Privacy, Store, open_privacy
from openmaas.config import load
from openmaas.errors import Erased, ModelNotFound, NotFound
from openmaas.privacy.eraser import erase_alone, late, step
from openmaas.privacy.erasures import Erasure
from openmaas.privacy.holdings import HOLDINGS, rows_of
from openmaas.privacy.signing import verified
from openmaas.tenancy.privacy import PrivacyPolicy
from tests.privacy.searching import places
from tests.privacy.seeds import canary, fill, ids
from tests.stores import ME, opened

CANARIES = b"canary-acme-"


@pytest.fixture
def store(data: Path, database_url: str | None) -> Iterator[Store]:
    with opened(data, database_url) as store:
        if database_url is not None:  # the model was pulled into another database
            with opened(data) as folder:
                store.records.add(folder.records.version("digits"), ME)
        for tenant in ("acme", "other"):
            fill(store, data, tenant)
        yield store


@pytest.fixture
def privacy(store: Store, data: Path, database_url: str | None) -> Privacy:
    settings = load(None, {}, {"data_dir": str(data), "database_url": database_url})
    return open_privacy(settings, store)


def erase(privacy: Privacy, tenant: str = "acme", dataset: str = "") -> Erasure:
    one = privacy.erasures.request(tenant, ME, dataset)
    return erase_alone(one.id, privacy.erasures, privacy.erasing, privacy.halting)


def counts(store: Store, tenant: str) -> dict[str, int]:
    with store.database.read() as connection:
        return {
            one.kind: connection.execute(
                sa.select(sa.func.count()).select_from(one.table).where(rows_of(one, tenant))
            ).scalar_one()
            for one in HOLDINGS
        }


def test_the_seeds_have_one_of_everything(store: Store) -> None:
    """So that what follows searches for all of it."""
    for tenant in ("acme", "other"):
        missing = {kind for kind, count in counts(store, tenant).items() if not count}
        assert missing == {"erasures"}


def test_nothing_of_a_tenant_is_left_but_what_is_said(
    privacy: Privacy, store: Store, data: Path, database_url: str | None
) -> None:
    others = counts(store, "other")
    content = canary("acme", "content")
    assert places(data, content, database_url) == []  # sealed
    assert places(data, canary("acme", "said"), database_url) == []
    named = places(data, CANARIES, database_url)  # names and the caller's metadata, which are not
    assert named
    assert all(place.startswith(("openmaas.db", "table ")) for place in named)
    done = erase(privacy)
    store.database.close()
    assert places(data, CANARIES, database_url) == []
    left = {kind for kind, count in counts(store, "acme").items() if count}
    assert left == {"tenant", "audit", "usage", "usage by day", "erasures"}
    assert counts(store, "other") == others
    for kind in ("uploads", "datasets", "files", "jobs", "sessions", "batches", "retained"):
        there = {path.name for path in (data / kind).iterdir()} - {".reading"}
        assert len(there) == 1, kind
    assert done.state == "done"
    assert done.record is not None
    assert verified(done.record, privacy.signer.public_key())


def test_the_record_says_what_there_was(privacy: Privacy, store: Store) -> None:
    own = store.records.version("learnt", tenant="acme").digest
    done = erase(privacy)
    assert done.record is not None
    record = done.record.record
    assert record["tenant"] == "acme"
    assert record["artifacts"] == [own]
    assert record["artifacts_of_others_too"] == 1
    assert record["removed"]["files"] == {"count": 1, "bytes": 9}
    assert record["removed"]["retained exchanges"]["count"] == 1
    assert record["requested"] <= record["unreadable"] <= record["finished"]
    assert "canary" not in str(record)
    assert "test" not in record["actor"]  # an account's name is no business of its reader
    assert any("ledger" in line for line in record["kept"])


def test_artifacts_that_others_have_too_stay(privacy: Privacy, store: Store, data: Path) -> None:
    own = store.records.version("learnt", tenant="acme").digest
    erase(privacy)
    with pytest.raises(ModelNotFound):
        store.artifacts.manifest(own, "acme")
    assert {path.name for path in (data / "artifacts" / "tenants").iterdir()} == {"other"}
    store.artifacts.open(store.records.version("digits").digest)
    theirs = store.records.version("learnt", tenant="other").digest
    for file in store.artifacts.manifest(theirs, "other").files:
        with store.artifacts.open_file(theirs, file.path, "other") as opened:
            assert len(opened.read()) == file.size


def test_bills_stay_and_tell_no_more_than_bills(privacy: Privacy, store: Store) -> None:
    erase(privacy)
    with store.database.read() as connection:
        rows = connection.execute(sa.select(schema.usage).order_by(schema.usage.c.tenant)).all()
        acts = connection.execute(
            sa.select(schema.audit).where(schema.audit.c.tenant == "acme")
        ).all()
    mine, others = rows
    assert (mine.tenant, mine.output_tokens, mine.idempotency) == ("acme", 7, None)
    assert others.idempotency == canary("other", "idempotency")
    assert "tenant.erase" in {act.act for act in acts}
    before = [act for act in acts if act.act != "tenant.erase"]
    assert before
    assert all(act.detail == {} for act in before)
    assert "erased" in {act.object for act in before}


def test_nothing_new_begins_from_the_first_moment(privacy: Privacy, store: Store) -> None:
    one = privacy.erasures.request("acme", ME)
    assert store.tenants.get("acme").closed is not None
    assert all(key.revoked for key in store.keys.list("acme"))
    assert not any(key.revoked for key in store.keys.list("other"))
    assert privacy.erasures.request("acme", ME).id == one.id  # twice is once
    assert privacy.erasures.request("acme", ME, ids("acme")["dataset"]).id == one.id
    with pytest.raises(NotFound):
        privacy.erasures.request("nobody", ME)
    with pytest.raises(NotFound):
        privacy.erasures.request("other", ME, ids("acme")["dataset"])


def test_keys_go_before_anything_else(privacy: Privacy, store: Store, data: Path) -> None:
    """From there on it cannot be read, whatever happens to the rest."""
    key = store.keyring.key("acme")
    theirs = store.keyring.key("other")
    one = privacy.erasures.request("acme", ME)
    privacy.halting.alone(one)
    step(one, privacy.erasing)
    step(privacy.erasures.get(one.id), privacy.erasing)
    now = privacy.erasures.get(one.id)
    assert now.state == "unreadable"
    assert now.unreadable is not None
    assert (data / "uploads" / ids("acme")["upload"]).exists()
    with pytest.raises(Erased):
        store.keyring.by_id(key.id)
    assert store.keyring.by_id(theirs.id) == theirs


def test_what_is_at_work_stands_still_first(privacy: Privacy, store: Store) -> None:
    one = privacy.erasures.request("acme", ME)
    privacy.halting.alone(one)
    with store.database.read() as connection:
        states = {
            (row.tenant, row.state)
            for table in (schema.jobs, schema.sessions, schema.batches)
            for row in connection.execute(sa.select(table.c.tenant, table.c.state))
        }
    assert {state for tenant, state in states if tenant == "acme"} == {"cancelled", "closed"}
    assert {state for tenant, state in states if tenant == "other"} == {
        "paused", "idle", "in_progress",
    }  # fmt: skip
    assert [row.tenant for row in store.deployments.all()] == ["other"]


def test_what_comes_late_is_removed_too(privacy: Privacy, store: Store, data: Path) -> None:
    def write() -> None:
        row = {"id": "up_0f", "tenant": "acme", "project": "p", "key": "k", "name": "canary-acme-l",
               "size": 1, "received": 1, "created": 1, "touched": 1}  # fmt: skip
        with store.database.write() as connection:
            connection.execute(schema.uploads.insert().values(**row))
        (data / "uploads" / "up_0f").write_bytes(CANARIES)

    one = privacy.erasures.request("acme", ME)
    privacy.halting.alone(one)
    while privacy.erasures.get(one.id).state != "removed":
        step(privacy.erasures.get(one.id), privacy.erasing)
    write()
    step(privacy.erasures.get(one.id), privacy.erasing)
    assert privacy.erasures.get(one.id).state == "unreadable"  # once more
    erase(privacy)
    assert not (data / "uploads" / "up_0f").exists()
    write()  # behind the end even
    late(privacy.erasures, privacy.erasing)
    assert not (data / "uploads" / "up_0f").exists()
    assert counts(store, "acme")["uploads"] == 0


def test_the_first_tenant_is_there_again_empty(privacy: Privacy, store: Store) -> None:
    done = erase(privacy, "default")
    assert done.state == "done"
    again = store.tenants.get("default")
    assert again.closed is None
    assert [one.id for one in store.tenants.projects("default")] == ["default"]
    assert store.keys.list("default") == []


# --- data sets -----------------------------------------------------------------------------


def test_a_data_set_goes_and_its_versions_are_told_of(
    privacy: Privacy, store: Store, data: Path
) -> None:
    id = ids("acme")["dataset"]
    key = store.keyring.key("acme", id)
    done = erase(privacy, dataset=id)
    assert done.record is not None
    (trained,) = done.record.record["trained_versions"]
    assert (trained["model"], trained["version"], trained["withdrawn"]) == ("learnt", 1, False)
    with pytest.raises(Erased):
        store.keyring.by_id(key.id)
    assert not (data / "datasets" / id).exists()
    assert store.records.version("learnt", tenant="acme")  # the policy says nothing
    with store.database.read() as connection:
        cards = sa.select(schema.cards.c.card).where(schema.cards.c.tenant == "acme")
        assert connection.execute(cards).scalar_one()["dataset"] == {"id": id, "name": "erased"}
        held = sa.select(schema.datasets.c.id)
        assert connection.execute(held).scalars().all() == [ids("other")["dataset"]]
    left = counts(store, "acme")
    assert (left["uploads"], left["files"], left["retained exchanges"]) == (1, 1, 1)
    assert store.tenants.get("acme").closed is None
    jobs = {job.tenant: job.state for job in privacy.halting._jobs.in_state("paused", "cancelled")}
    assert jobs == {"acme": "cancelled", "other": "paused"}


def test_versions_are_withdrawn_where_the_policy_says_so(privacy: Privacy, store: Store) -> None:
    store.tenants.change("acme", ME, privacy=PrivacyPolicy(withdraw=True))
    digest = store.records.version("learnt", tenant="acme").digest
    done = erase(privacy, dataset=ids("acme")["dataset"])
    assert done.record is not None
    assert done.record.record["artifacts"] == [digest]
    with pytest.raises(ModelNotFound):
        store.artifacts.manifest(digest, "acme")
    left = counts(store, "acme")
    assert (left["versions"], left["cards"]) == (1, 0)  # the other model's
    assert (left["deployments"], left["aliases"]) == (0, 0)
    assert counts(store, "other")["versions"] == 2


def test_other_versions_take_over_what_a_withdrawn_one_answered(
    privacy: Privacy, store: Store
) -> None:
    store.tenants.change("acme", ME, privacy=PrivacyPolicy(withdraw=True))
    targets = [
        {"version": 1, "weight": 60.0}, {"version": 2, "weight": 30.0},
        {"version": 3, "weight": 10.0},
    ]  # fmt: skip
    with store.database.write() as connection:
        mine = schema.aliases.c.tenant == "acme"
        values = {"targets": targets, "previous": targets[:1], "shadow": {"version": 1, "share": 1}}
        connection.execute(schema.aliases.update().where(mine).values(**values))
    erase(privacy, dataset=ids("acme")["dataset"])
    (alias,) = store.deployments.aliases("learnt", "acme")
    assert [(one.version, one.weight) for one in alias.targets] == [(2, 75.0), (3, 25.0)]
    assert (alias.previous, alias.shadow) == (None, None)
