"""Exchanges are kept beside the answers: nothing waits for it, and what is lost is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from openmaas.app import Store
from openmaas.privacy import retention as module
from openmaas.privacy.retained import RetainedExchanges
from openmaas.privacy.retention import Retention
from openmaas.tenancy.privacy import PrivacyPolicy
from tests.privacy.test_retained import NOW, exchange
from tests.stores import ME, opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path) as store:
        for name in ("acme", "other"):
            store.tenants.create(name, ME)
            store.tenants.change(name, ME, privacy=PrivacyPolicy(retain_days=3650))
        yield store


@pytest.fixture
def kept(store: Store, tmp_path: Path) -> RetainedExchanges:
    return RetainedExchanges(store.database, store.keyring, tmp_path)


@pytest.fixture
async def retention(kept: RetainedExchanges) -> AsyncIterator[Retention]:
    service = Retention(kept)
    await service.start()
    yield service
    await service.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110  the database tells nobody
            await asyncio.sleep(0.01)


def count(kept: RetainedExchanges, tenant: str = "acme") -> int:
    return len(kept.list(tenant))


async def test_groups_of_several_tenants_and_days(
    retention: Retention, kept: RetainedExchanges
) -> None:
    for number in range(20):
        for tenant in ("acme", "other"):
            retention.add(exchange(number, tenant=tenant, at=NOW + number % 2 * 86_400))
    await until(lambda: count(kept) == 20)
    await until(lambda: count(kept, "other") == 20)
    assert [one.count for one in kept.days("acme")] == [10, 10]


async def test_the_last_group_is_written_at_the_end(kept: RetainedExchanges) -> None:
    service = Retention(kept)
    await service.start()
    service.add(exchange(1))
    await service.stop()
    assert len(kept.list("acme")) == 1


async def test_what_cannot_be_written_now_is_tried_again(
    retention: Retention,
    kept: RetainedExchanges,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    kept.folder.write_bytes(b"")  # where its folder is to be
    retention.add(exchange(1))
    await until(lambda: "cannot be retained" in caplog.text)
    assert kept.list("acme") == []
    kept.folder.unlink()
    await until(lambda: count(kept) == 1)
    assert "canary" not in caplog.text


async def test_more_than_memory_holds_is_dropped_counted_and_told(
    retention: Retention,
    kept: RetainedExchanges,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "PENDING_BYTES", 2 * exchange(1).size)
    for number in range(5):
        retention.add(exchange(number))
    await until(lambda: count(kept) == 2)
    await until(lambda: sum(day.dropped for day in kept.days("acme")) == 3)
    assert "3 exchanges of tenant acme are not retained" in caplog.text
    retention.add(exchange(9))  # there is room again
    await until(lambda: count(kept) == 3)
