"""Rollouts and memory with workers that are simulated: their memory, times and deaths are exact."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openmaas.app import Store, open_store
from openmaas.audit import By
from openmaas.config import Limits, load
from openmaas.errors import (
    ConfigurationError,
    Conflict,
    InsufficientMemory,
    ModelNotFound,
    OpenMaaSError,
)
from openmaas.frames import Cancelled, Emit, Ready, Refused, Submit
from openmaas.inference import ModelInfo, Predict, Predicted, Usage
from openmaas.registry.deployments import Bounds, Replicas, Target
from openmaas.registry.records import Version
from openmaas.schema import versions
from openmaas.serving.fleet import Fleet
from openmaas.serving.residency import Residency

ME = By("a test")
MIB = 1 << 20
CALL_SECONDS = 0.01


class Worker:
    """Answers each call a moment later, unless its digest says that it crashes."""

    last = 0

    def __init__(self, spec: Any, on_frame: Any, on_exit: Any, crashes: bool) -> None:
        Worker.last += 1
        self.pid = Worker.last
        self.bytes = 10 * MIB
        self.options = spec.options
        self._on_frame, self._on_exit, self._crashes = on_frame, on_exit, crashes
        self._dead = False

    def send(self, frame: Any) -> None:
        loop = asyncio.get_running_loop()
        for item in frame:
            if not isinstance(item, Submit):
                loop.call_soon(self._on_frame, [Cancelled(id=item.id)])
            elif self._crashes:
                loop.call_soon(self.kill)
            else:
                loop.call_later(CALL_SECONDS, self._answer, item.id)

    def _answer(self, id: int) -> None:
        if not self._dead:
            event = Predicted(outputs=[], usage=Usage(rows=1))
            self._on_frame([Emit(id=id, event=event)])

    def kill(self) -> None:
        if not self._dead:
            self._dead, self.bytes = True, 0
            self._on_exit("killed")

    async def stop(self, seconds: float) -> None:
        await asyncio.sleep(0.02)
        self.kill()

    def last_words(self) -> str:
        return ""

    def memory(self) -> int:
        return self.bytes


class Place:
    """Where workers are simulated.

    Args:
        takes: MiB by the first letter of a digest, 100 otherwise; 0: it cannot be loaded.
        crashing: letters of those that die on every call.
    """

    def __init__(self) -> None:
        self.takes: dict[str, int] = {}
        self.crashing = ""
        self.load_seconds = 0.1
        self.loads: Counter[str] = Counter()
        self.workers: list[Worker] = []

    async def start(self, spec: Any, on_start: Any, on_frame: Any, on_exit: Any) -> Any:
        letter = spec.digest[7]
        worker = Worker(spec, on_frame, on_exit, letter in self.crashing)
        self.workers.append(worker)
        on_start(worker)
        self.loads[letter] += 1
        takes = self.takes.get(letter, 100) * MIB
        if not takes or spec.options.get("bad"):
            return worker, Refused(code="configuration", message="no such option")
        for part in range(8):
            await asyncio.sleep(self.load_seconds / 8)
            worker.bytes = takes * (part + 1) // 8
        return worker, Ready(info=ModelInfo(task="predict", runtime="echo"))

    def resident(self) -> int:
        return sum(worker.bytes for worker in self.workers)


class House:
    """A fleet over a database of its own."""

    def __init__(self, data: Path, budget: int) -> None:
        self.store: Store = open_store(load(None, {}, {"data_dir": str(data)}))
        self.place = Place()
        self.answered: Counter[str] = Counter()  # by version or error
        self._callers: list[asyncio.Task[None]] = []
        self.fleet = Fleet(
            self.store.records,
            self.store.deployments,
            SimpleNamespace(root=data, private=self.store.artifacts.private),  # type: ignore[arg-type]
            self.place,  # type: ignore[arg-type]
            Residency(budget * MIB),
            Limits(drain_seconds=1, request_seconds=30, load_seconds=2),
            SimpleNamespace(finished=lambda *a, **k: None, restarted=lambda *a: None),  # type: ignore[arg-type]
        )

    def version(self, model: str, letter: str) -> Version:
        one = Version(
            model, 0, "sha256:" + letter * 64, "predict", "openvino-ir", "file:x", "", MIB, 0
        )
        return self.store.records.add(one, ME)

    def deploy(self, version: Version, *, live: bool = True, **how: Any) -> None:
        options = how.pop("options", {})
        self.store.deployments.deploy(version, ME, "echo", "", options, live=live, **how)

    async def call(self, model: str) -> str:
        """The version that answers, or the code of the error."""
        found = self.fleet.find("", model)
        if found is None:
            return ModelNotFound.code
        try:
            deadline = time.monotonic() + 30
            await found.deployment.known(deadline)
            call = found.deployment.submit(Predict(inputs=[]), deadline)
            call.route = found.route
            await call.result()
        except OpenMaaSError as error:
            return error.code
        return call.version

    def callers(self, model: str, count: int = 3) -> None:
        """So many that call a model without a pause."""

        async def go() -> None:
            while True:
                said = await self.call(model)
                self.answered[f"{model} {said}"] += 1
                if not said.isdigit():
                    await asyncio.sleep(0.02)

        self._callers += [asyncio.create_task(go()) for _ in range(count)]

    async def until(self, holds: Callable[[], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, (self.answered, self.place.loads, self.states())
            await asyncio.sleep(0.02)

    def states(self) -> dict[str, str]:
        return {f"{d.model}@{d.version}": d.state for d in self.fleet.everything()}

    def live(self, model: str = "m") -> Any:
        return next(a for a in self.store.deployments.aliases(model) if a.alias == "live")

    async def stop(self) -> None:
        for task in self._callers:
            task.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        await self.fleet.stop()
        self.store.database.close()


@contextlib.asynccontextmanager
async def house(data: Path, budget: int) -> AsyncIterator[House]:
    one = House(data, budget)
    try:
        yield one
    finally:
        await one.stop()


async def test_a_rollout_whose_versions_do_not_fit_together_ends(tmp_path: Path) -> None:
    async with house(tmp_path, 150) as one:
        one.deploy(one.version("m", "a"))
        await one.fleet.start()
        one.callers("m")
        await one.until(lambda: one.answered["m 1"] > 20)
        one.deploy(one.version("m", "b"))
        await one.until(lambda: one.live().targets == [Target(2)])
        before = one.answered["m 2"]
        await one.until(lambda: one.answered["m 2"] > before + 20)
        assert set(one.answered) == {"m 1", "m 2"}  # nobody was refused
        assert one.place.loads["b"] <= 3


async def test_a_canary_that_crashes_on_every_call_is_taken_back(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        one.place.crashing = "b"
        one.deploy(one.version("m", "a"))
        one.version("m", "b")
        await one.fleet.start()
        one.callers("m")
        one.deploy(one.store.records.version("m", 2), live=False)
        targets = [Target(1, 50), Target(2, 50)]
        one.store.deployments.point(("", "m", "live"), targets, ME, bounds=Bounds(calls=50))
        await one.until(lambda: one.live().targets == targets)
        await one.until(lambda: one.live().targets == [Target(1)])
        assert "version 2" in one.live().detail


async def test_a_model_that_outgrows_its_guess_is_loaded_when_there_is_room(tmp_path: Path) -> None:
    """300 MiB, of which its size on disk says nothing."""
    async with house(tmp_path, 320) as one:
        one.place.takes, one.place.load_seconds = {"b": 300}, 1.0
        one.deploy(one.version("small", "a"))
        one.deploy(one.version("large", "b"))
        await one.fleet.start()
        one.callers("small")
        await one.until(lambda: one.answered["small 1"] > 5)
        for _ in range(2):
            assert await one.call("large") == "1"
        assert one.place.resident() <= 1.05 * 320 * MIB


async def test_what_never_fits_is_refused_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openmaas.serving.deployment.REFUSED_SECONDS", 0.5)
    async with house(tmp_path, 200) as one:
        one.place.takes, one.place.load_seconds = {"b": 300}, 2.0
        one.deploy(one.version("m", "b"))
        await one.fleet.start()
        assert await one.call("m") == InsufficientMemory.code
        one.place.takes = {"b": 150}  # as if it were another's that left
        one.fleet.find("", "m").deployment._needs = 0  # type: ignore[union-attr]
        await one.until(lambda: one.states() == {"m@1": "asleep"})
        assert await one.call("m") == "1"


async def test_a_pinned_version_lets_go_when_no_call_comes_to_it(tmp_path: Path) -> None:
    async with house(tmp_path, 250) as one:
        pinned = Replicas(min=1, max=1)
        one.deploy(one.version("m", "a"), replicas=pinned)
        await one.fleet.start()
        one.deploy(one.version("m", "b"), replicas=pinned)
        await one.until(lambda: one.live().targets == [Target(2)])
        one.deploy(one.version("other", "c"))  # takes the room of the first, which is on standby
        await one.until(lambda: "other@1" in one.states())
        assert await one.call("other") == "1"
        assert one.states()["m@2"] == "ready"
        assert one.place.resident() <= 1.05 * 250 * MIB


async def test_two_busy_models_that_do_not_fit_together_take_turns(tmp_path: Path) -> None:
    async with house(tmp_path, 150) as one:
        for name, letter in (("x", "a"), ("y", "b")):
            one.deploy(one.version(name, letter))
        await one.fleet.start()
        one.callers("x")
        one.callers("y")
        await one.until(lambda: min(one.place.loads["a"], one.place.loads["b"]) >= 3)
        loads = sum(one.place.loads.values())
        assert set(one.answered) == {"x 1", "y 1"}
        # a turn lasts a second, in which three callers get some hundred answers
        assert sum(one.answered.values()) > 40 * (loads - 2)


async def test_a_version_that_is_gone_stops_nobody_else(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        gone = one.version("gone", "a")
        one.deploy(gone)
        with one.store.database.write() as connection:  # as no release should ever do
            connection.execute(versions.delete().where(versions.c.model == "gone"))
        one.deploy(one.version("m", "b"))
        await one.fleet.start()
        assert await one.call("m") == "1"
        with pytest.raises(OpenMaaSError):
            one.deploy(gone)


async def test_new_settings_that_cannot_be_loaded_leave_the_old_ones(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        version = one.version("m", "a")
        one.deploy(version, options={"good": 1})
        await one.fleet.start()
        assert await one.call("m") == "1"
        one.deploy(version, options={"bad": 1})
        rows = one.store.deployments
        await one.until(lambda: "as before: no such option" in rows.all()[0].detail)
        assert rows.all()[0].options == {"good": 1}  # the next server has them too
        await one.until(lambda: one.live().pending is None)
        assert await one.call("m") == "1"
        assert one.place.loads["a"] == 2
        one.deploy(version, options={"good": 2})
        await one.until(lambda: one.place.loads["a"] == 3)
        assert rows.all()[0].options == {"good": 2}


async def test_a_rollout_that_fails_leaves_bounds_and_weights(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        one.place.takes = {"c": 0}
        one.deploy(one.version("m", "a"))
        for letter in "bc":
            one.deploy(one.version("m", letter), live=False, kept=True)
        await one.fleet.start()
        bounds, weights = Bounds(errors=0.1), [Target(1, 90), Target(2, 10)]
        point = one.store.deployments.point
        point(("", "m", "live"), weights, ME, bounds=bounds)
        await one.until(lambda: one.live().targets == weights)
        point(("", "m", "live"), [Target(3)], ME)
        await one.until(lambda: one.live().pending is None)
        assert (one.live().targets, one.live().bounds) == (weights, bounds)
        assert "no such option" in one.live().detail


async def test_what_is_removed_and_made_again_between_two_looks_is_noticed(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        first, second = one.version("m", "a"), one.version("m", "b")
        one.deploy(first)
        await one.fleet.start()
        assert await one.call("m") == "1"
        one.store.deployments.undeploy("m", ME)
        one.deploy(second)

        one.callers("m", 1)
        await one.until(lambda: one.answered["m 2"] > 0)
        with pytest.raises(Conflict):
            one.store.deployments.roll_back(("", "m", "live"), ME)


async def test_the_server_tells_that_it_is_loading_only_at_its_start(tmp_path: Path) -> None:
    async with house(tmp_path, 1000) as one:
        one.deploy(one.version("m", "a"))
        await one.fleet.start()
        assert one.fleet.loading()
        await one.until(lambda: not one.fleet.loading())
        one.deploy(one.version("other", "b"))
        await one.until(lambda: one.states().get("other@1") == "loading")
        assert not one.fleet.loading()


def test_a_bad_runtime_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """An alias that cannot be is none, and deploys nothing."""
    from openmaas.serving.fleet import point

    one = House(tmp_path, 1000)
    one.version("m", "a")
    one.version("m", "b")
    one.deploy(one.store.records.version("m", 1))
    rows = one.store.deployments
    for alias, targets in (("1", [Target(2)]), ("live", [Target(2, 150)])):
        with pytest.raises((OpenMaaSError, ConfigurationError)):
            point(one.store.records, rows, one.store.artifacts, ("", "m", alias), targets, ME)
    assert [row.version for row in rows.all()] == [1]
    one.store.database.close()


async def explained(one: House, model: str = "m") -> str:
    """As ``House.call``, of what explains a model's answers."""
    found = one.fleet.find("", model)
    assert found is not None
    explainer = one.fleet.explainer(found.deployment)
    deadline = time.monotonic() + 30
    try:
        await explainer.known(deadline)
        await explainer.submit(Predict(inputs=[]), deadline).result()
    except OpenMaaSError as error:
        return error.code
    return "explained"


async def test_an_explainer_is_loaded_when_it_is_asked_and_leaves_when_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openmaas.serving.fleet.EXPLAINER_SECONDS", 1.5)
    async with house(tmp_path, 400) as one:
        one.deploy(one.version("m", "a"))
        await one.fleet.start()
        assert await one.call("m") == "1"
        assert one.place.loads["a"] == 1
        assert await explained(one) == "explained"
        assert await explained(one) == "explained"
        assert one.place.loads["a"] == 2
        await one.until(lambda: one.fleet.residency.taken() == 200 * MIB)
        await one.until(lambda: one.place.resident() == 100 * MIB)  # nobody asks why
        assert one.states() == {"m@1": "ready"}
        assert await explained(one) == "explained"


async def test_an_explainer_gets_room_as_models_do(tmp_path: Path) -> None:
    async with house(tmp_path, 150) as one:
        one.deploy(one.version("m", "a"))
        await one.fleet.start()
        one.callers("m")
        await one.until(lambda: one.answered["m 1"] > 5)
        assert await explained(one) == "explained"
        before = one.answered["m 1"]
        await one.until(lambda: one.answered["m 1"] > before + 5)
        assert set(one.answered) == {"m 1"}
        assert one.place.resident() <= 1.05 * 150 * MIB


async def test_an_explainer_goes_with_what_it_explains(tmp_path: Path) -> None:
    async with house(tmp_path, 500) as one:
        version = one.version("m", "a")
        one.deploy(version)
        one.deploy(one.version("other", "b"))
        await one.fleet.start()
        assert await one.call("m") == "1"
        assert await explained(one) == "explained"
        await one.fleet.undeploy("", "m", ME)
        await one.until(lambda: one.place.resident() == 100 * MIB)
        one.deploy(version)
        await one.until(lambda: "m@1" in one.states())
        assert await one.call("m") == "1"
        assert await explained(one) == "explained"


async def test_an_explainer_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    async with house(tmp_path, 500) as one:
        one.deploy(one.version("m", "a"))
        await one.fleet.start()
        assert await one.call("m") == "1"
        one.place.takes = {"a": 0}
        assert await explained(one) == "overloaded"
        found = one.fleet.find("", "m")
        assert found is not None
        explainer = one.fleet.explainer(found.deployment)
        assert (explainer.state, explainer.detail) == ("broken", "no such option")
        assert await one.call("m") == "1"
