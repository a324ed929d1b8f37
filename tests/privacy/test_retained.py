"""Exchanges that tenants have kept: sealed, listed, within bounds, and gone when they are to be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openmaas.app import Store
from openmaas.errors import InvalidRequest, NotFound, SealBroken
from openmaas.privacy import retained as module
from openmaas.privacy.retained import Exchange, RetainedExchanges, day_of, object_of, parse_day
from openmaas.redaction.policy import RedactionPolicy
from openmaas.tenancy.privacy import PrivacyPolicy
from openmaas.tenancy.quota import Quota
from tests.stores import ME, opened

NOW = 1_798_000_000.0  # 2026-12-23, in seconds
SENT, ANSWERED = b'{"prompt": "canary-sent"}', b'{"answer": "canary-answered"}'


@pytest.fixture
def store(tmp_path: Path, database_url: str | None) -> Iterator[Store]:
    with opened(tmp_path, database_url) as store:
        for name in ("acme", "other"):
            store.tenants.create(name, ME)
            store.tenants.change(name, ME, privacy=PrivacyPolicy(retain_days=3))
        yield store


@pytest.fixture
def kept(store: Store, tmp_path: Path) -> RetainedExchanges:
    return RetainedExchanges(store.database, store.keyring, tmp_path)


def exchange(number: int, *, tenant: str = "acme", at: float = NOW, sent: bytes = SENT) -> Exchange:
    return Exchange(
        tenant=tenant, request=f"req_{number:04d}", time=int(at * 1000), key="key_1",
        path="/v1/chat/completions", model="echo@1", status=200, request_bytes=len(sent),
        response_bytes=len(ANSWERED), cut=False, sent=sent, answered=ANSWERED,
    )  # fmt: skip


def keep(kept: RetainedExchanges, *group: Exchange) -> int:
    return kept.keep(group[0].tenant, day_of(group[0].time), group)


def test_what_is_kept_is_read_again_and_sealed(kept: RetainedExchanges, tmp_path: Path) -> None:
    assert keep(kept, exchange(1), exchange(2)) == 0
    assert keep(kept, exchange(3, sent=b"\xff\x00")) == 0
    assert [one.request for one in kept.list("acme")] == ["req_0001", "req_0002", "req_0003"]
    about, bodies = kept.get("acme", "req_0002")
    assert (about.day, about.model, about.status) == (20261223, "echo@1", 200)
    assert (bodies.sent, bodies.answered) == (SENT, ANSWERED)
    assert kept.get("acme", "req_0003")[1].sent == b"\xff\x00"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes(), path


def test_pages_and_days(kept: RetainedExchanges) -> None:
    keep(kept, *(exchange(number) for number in range(5)))
    keep(kept, exchange(5, at=NOW + 86_400))
    assert [one.request for one in kept.list("acme", after="req_0001", limit=2)] == [
        "req_0002", "req_0003",
    ]  # fmt: skip
    assert [one.request for one in kept.list("acme", day=20261224)] == ["req_0005"]
    assert [(one.day, one.count) for one in kept.days("acme")] == [(20261223, 5), (20261224, 1)]
    assert parse_day("2026-12-24") == 20261224
    with pytest.raises(InvalidRequest):
        parse_day("yesterday")


def test_anothers_are_as_absent(kept: RetainedExchanges) -> None:
    keep(kept, exchange(1))
    assert kept.list("other") == []
    with pytest.raises(NotFound):
        kept.get("other", "req_0001")
    with pytest.raises(NotFound):
        kept.remove("other", "req_0001", ME)


def test_one_cannot_be_passed_off_as_anothers(kept: RetainedExchanges, tmp_path: Path) -> None:
    keep(kept, exchange(1))
    keep(kept, exchange(1, tenant="other"))
    mine, theirs = kept.path("acme", 20261223), kept.path("other", 20261223)
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(SealBroken):
        kept.get("acme", "req_0001")


def test_one_that_is_removed_is_overwritten(kept: RetainedExchanges) -> None:
    keep(kept, exchange(1), exchange(2))
    path = kept.path("acme", 20261223)
    before = path.read_bytes()
    kept.remove("acme", "req_0001", ME)
    half = len(before) // 2
    assert path.read_bytes() == bytes(half) + before[half:]
    with pytest.raises(NotFound):
        kept.get("acme", "req_0001")
    assert kept.get("acme", "req_0002")[1].sent == SENT
    kept.remove("acme", "req_0002", ME)  # the last of its day: the day goes with it
    assert not path.exists()
    assert kept.days("acme") == []


def test_a_days_key_goes_with_it(kept: RetainedExchanges, store: Store, tmp_path: Path) -> None:
    """So that a copy of the file is of no use, even where its row is put back."""
    keep(kept, exchange(1))
    key = store.keyring.key("acme", object_of(20261223))
    assert kept.remove_all("acme", ME) == 1
    assert store.keyring.key("acme", object_of(20261223)).id != key.id
    assert kept.list("acme") == []


def test_a_day_that_was_removed_begins_anew(kept: RetainedExchanges) -> None:
    """Though another process removed it, and this one remembers its key."""
    keep(kept, exchange(1))
    RetainedExchanges(kept._database, type(kept._keyring)(kept._database, kept._keyring.master),
                      kept.folder.parent).remove_all("acme", ME)  # fmt: skip
    keep(kept, exchange(2))
    assert kept.get("acme", "req_0002")[1].answered == ANSWERED


def test_what_a_crash_left_behind_gives_way(kept: RetainedExchanges) -> None:
    keep(kept, exchange(1))
    path = kept.path("acme", 20261223)
    path.write_bytes(path.read_bytes() + b"half a record")
    keep(kept, exchange(2))
    assert kept.get("acme", "req_0001")[1].sent == SENT
    assert kept.get("acme", "req_0002")[1].sent == SENT
    (day,) = kept.days("acme")
    assert path.stat().st_size == day.bytes


def test_days_keep_their_keys_when_a_tenants_is_replaced(
    kept: RetainedExchanges, store: Store
) -> None:
    """All else is sealed anew then; these have an end of their own."""
    keep(kept, exchange(1))
    store.keyring.rotate("acme", ME, rewrite=True, things=[])
    old = store.keyring.to_rewrite()["acme"]
    store.keyring.retire("acme", old, time.time() + 1)
    assert store.keyring.to_rewrite() == {}
    assert kept.get("acme", "req_0001")[1].sent == SENT
    keep(kept, exchange(2))
    assert kept.get("acme", "req_0002")[1].sent == SENT


def test_the_sweep_goes_by_the_policy(kept: RetainedExchanges, store: Store) -> None:
    for tenant in ("acme", "other"):
        keep(kept, exchange(1, tenant=tenant))
    end = NOW - NOW % 86_400 + 4 * 86_400  # the day itself, and three more
    assert kept.sweep(end - 1) == 0
    store.tenants.change("other", ME, privacy=PrivacyPolicy(retain_days=5))
    assert kept.sweep(end) == 1
    assert (kept.list("acme"), len(kept.list("other"))) == ([], 1)
    assert not kept.path("acme", 20261223).exists()
    store.tenants.change("other", ME, privacy=PrivacyPolicy())  # nothing is to be kept any more
    assert kept.sweep(NOW) == 1
    assert kept.list("other") == []


def test_the_sweep_removes_what_a_crash_left(kept: RetainedExchanges) -> None:
    keep(kept, exchange(1))
    stray = kept.path("acme", 20200101)
    stray.write_bytes(b"x")
    assert kept.sweep(time.time() + 60) >= 0
    assert stray.exists()  # it may be one that is being written
    kept.sweep(stray.stat().st_mtime + module.DAY_SECONDS + 1)
    assert not stray.exists()


def test_a_quota_is_kept_and_what_is_over_is_counted(kept: RetainedExchanges, store: Store) -> None:
    keep(kept, exchange(1))
    used = kept.days("acme")[0].bytes
    assert store.records.stored_bytes("acme") == used
    store.tenants.change("acme", ME, quota=Quota(stored_bytes=used + used // 2))
    assert keep(kept, exchange(2), exchange(3)) == 2
    (day,) = kept.days("acme")
    assert (day.count, day.dropped, day.bytes) == (1, 2, used)
    kept.drop_some("acme", 20261223, 5)
    kept.drop_some("acme", 20261224, 1)
    assert [one.dropped for one in kept.days("acme")] == [7, 1]


def test_nobody_has_more_than_a_bound(
    kept: RetainedExchanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    assert keep(kept, exchange(1)) == 1


def test_a_closed_tenant_keeps_nothing_more(kept: RetainedExchanges, store: Store) -> None:
    store.tenants.close("acme", ME)
    assert keep(kept, exchange(1)) == 1
    assert kept.days("acme") == []


def test_what_is_hidden_is_not_to_be_kept(store: Store) -> None:
    for action in ("hide", "block"):
        policy = PrivacyPolicy(redaction=RedactionPolicy(action=action), retain_days=3)
        with pytest.raises(InvalidRequest, match="retain_days"):
            store.tenants.change("acme", ME, privacy=policy)
    report = PrivacyPolicy(redaction=RedactionPolicy(action="report"), retain_days=3)
    assert store.tenants.change("acme", ME, privacy=report).privacy == report
