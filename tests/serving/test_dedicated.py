"""Replicas that serve one tenant alone, with workers that are simulated."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openmaas.errors import ConfigurationError
from openmaas.inference import Predict
from openmaas.registry.deployments import Shadow, Target
from openmaas.serving import fleet
from openmaas.serving.choice import DEDICATED
from openmaas.serving.deployment import Deployment
from openmaas.serving.fairness import Share
from tests.serving.test_fleet import ME, House, house

TENANTS = ("acme", "beta")


class Asked:
    """Whose calls came to which worker."""

    def __init__(self, one: House) -> None:
        self.house = one
        self.seen: dict[int, set[str]] = {}

    async def call(self, tenant: str, *, dedicated: bool = True) -> tuple[str, Deployment]:
        found = self.house.fleet.find(tenant, "m")
        assert found is not None
        answering = found.deployment
        if dedicated:
            answering = self.house.fleet.dedicated(answering, tenant)
        deadline = time.monotonic() + 30
        await answering.known(deadline)
        call = answering.submit(Predict(inputs=[]), deadline, Share(tenant))
        call.route = found.route
        if found.route is not None:
            self.house.fleet.copy(found.route, call, deadline, dedicated=dedicated)
        await call.result()
        for replica in answering.replicas:
            assert replica.pid is not None
            self.seen.setdefault(replica.pid, set()).add(tenant)
        return call.version, answering


def options_of(one: House) -> dict[int, Any]:
    return {worker.pid: worker.options.get("prefix_cache") for worker in one.place.workers}


async def test_each_tenant_has_workers_of_its_own_and_all_others_share(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        one.deploy(one.version("m", "a"), options={"prefix_cache": DEDICATED})
        await one.fleet.start()
        asked = Asked(one)
        for _ in range(3):
            for tenant in TENANTS:
                await asked.call(tenant)
            for tenant in ("gamma", "delta"):
                await asked.call(tenant, dedicated=False)
        assert sorted(map(sorted, asked.seen.values())) == [["acme"], ["beta"], ["delta", "gamma"]]
        # A cache of prompts is on where one tenant asks, and nowhere else.
        assert options_of(one) == {pid: len(tenants) == 1 for pid, tenants in asked.seen.items()}
        labels = {each.label for each in one.fleet.everything()}
        assert labels == {"m", "m (for acme)", "m (for beta)"}
        await one.fleet._reconcile()
        (row,) = one.store.deployments.all()
        assert set(row.workers) == set(asked.seen)


async def test_a_tenants_own_model_needs_no_other_workers(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        made = msgspec.structs.replace(one.version("other", "a"), model="m", tenant="acme")
        mine = one.store.records.add(made, ME)
        one.deploy(mine, options={"prefix_cache": True})
        await one.fleet.start()
        _, shared = await Asked(one).call("acme", dedicated=False)
        assert one.fleet.dedicated(shared, "acme") is shared
        assert set(options_of(one).values()) == {True}


async def test_aliases_weights_hold_and_what_is_replaced_goes(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        one.deploy(one.version("m", "a"))
        await one.fleet.start()
        asked = Asked(one)
        await asked.call("acme")
        one.version("m", "b")
        one.deploy(one.store.records.version("m", 2), live=False)
        targets = [Target(1, 50), Target(2, 50)]
        one.store.deployments.point(("", "m", "live"), targets, ME)
        await one.until(lambda: one.live().targets == targets)
        versions = [(await asked.call("acme"))[0] for _ in range(10)]
        assert versions.count("1") == versions.count("2") == 5
        assert all(tenants == {"acme"} for tenants in asked.seen.values())
        _, old = await asked.call("acme")
        one.deploy(one.store.records.version("m", int(old.version)), live=False, options={"x": 1})
        await one.until(lambda: old.state == "stopping" and old.gone)
        for _ in range(2):  # one of each version
            version, new = await asked.call("acme")
            assert new is not old
            assert version != old.version or new.spec.options == {"x": 1}


async def test_they_take_part_in_the_budget_and_leave_when_idle(tmp_path: Path) -> None:
    async with house(tmp_path, 250) as one:
        one.deploy(one.version("m", "a"), idle_seconds=0.3)
        await one.fleet.start()
        asked = Asked(one)
        for _ in range(2):
            for tenant in (*TENANTS, "gamma"):  # three of 100 MiB never fit at one time
                await asked.call(tenant)
                assert one.place.resident() <= 250 << 20
        owns = [each for each in one.fleet.everything() if each.serves is not None]
        assert len(owns) == 3
        await one.until(lambda: all(each.state == "asleep" for each in owns))
        _, again = await asked.call("acme")
        assert again in owns
        assert again.loads >= 2


async def test_no_shadow_sees_what_a_tenants_own_workers_are_asked(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        one.deploy(one.version("m", "a"))
        one.version("m", "b")
        await one.fleet.start()
        one.deploy(one.store.records.version("m", 2), live=False)
        one.store.deployments.point(("", "m", "live"), [Target(1)], ME, shadow=Shadow(2, 1.0))
        await one.until(lambda: one.live().shadow is not None)
        await one.fleet._reconcile()
        asked = Asked(one)
        for _ in range(5):
            await asked.call("acme")
        await asyncio.sleep(0)

        def copies() -> int:
            seen = one.fleet.comparison(one.live())
            assert seen is not None
            return seen.calls + seen.left_out

        assert copies() == 0
        await asked.call("gamma", dedicated=False)
        await one.until(lambda: copies() > 0)  # it would have been seen


def test_many_tenants_may_not_share_a_cache_of_prompts(tmp_path: Path) -> None:
    one = House(tmp_path, 100)
    try:
        one.version("m", "a")
        for options in ({"prefix_cache": True}, {"prefix_cache": True, "threads": 1}):
            with pytest.raises(ConfigurationError, match="dedicated"):
                fleet.deploy(
                    one.store.records,
                    one.store.deployments,
                    one.store.artifacts,
                    "m",
                    ME,
                    options=options,
                )
        assert one.store.deployments.all() == []
    finally:
        one.store.database.close()


async def test_a_row_that_an_earlier_release_wrote_has_no_cache_either(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        one.deploy(one.version("m", "a"), options={"prefix_cache": True})
        await one.fleet.start()
        await Asked(one).call("gamma", dedicated=False)
        assert list(options_of(one).values()) == [False]
