"""A tenant's sealed model in a real worker: unsealed while it is loaded, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from openmaas.app import Store
from openmaas.encryption.memory import Memory
from openmaas.errors import WorkerFailed
from openmaas.frames import Ready
from openmaas.inference import ModelInfo
from openmaas.placement.base import WorkerSpec
from openmaas.placement.local import LocalPlacement
from openmaas.registry.deployments import Deployments
from openmaas.registry.manifest import Description
from openmaas.serving import unsealing
from openmaas.serving.unsealing import UnsealingPlacement, known, told
from tests.stores import ME, deploy, opened

TENANT = "default"


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    with opened(data) as found:
        yield found
        found.memory.sweep()


def sealed(store: Store) -> WorkerSpec:
    """Of an artifact that is a tenant's."""
    with store.artifacts.scratch(TENANT) as scratch:
        (scratch / "model.bin").write_bytes(b"weights" * 1000)
        said = Description(format="openvino-ir", task="predict", architecture="x")
        digest, _ = store.artifacts.add(
            scratch, said, source="x", source_sha256="0" * 64, tenant=TENANT
        )
    root = str(store.artifacts.root)
    return WorkerSpec(
        deployment="m", runtime="echo", artifacts=root, tenant=TENANT, digest=digest
    )  # fmt: skip


def views(memory: Memory) -> list[Path]:
    place = memory.path("artifacts")
    return list(place.iterdir()) if place.is_dir() else []


@pytest.mark.parametrize("reads_on", [False, True])
async def test_a_worker_loads_what_is_sealed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_on: bool
) -> None:
    spec = sealed(store)
    if reads_on:
        monkeypatch.setattr(unsealing, "READS_ON", frozenset({"echo"}))
    placement = UnsealingPlacement(LocalPlacement(tmp_path / "run"), store.artifacts)
    seen: list[list[Path]] = []
    gone = asyncio.Event()
    worker, first = await placement.start(
        spec,
        lambda _: seen.append(views(store.memory)),
        lambda _: None,
        lambda _: gone.set(),
    )
    assert isinstance(first, Ready)
    assert [len(one) for one in seen] == [1]
    assert bool(views(store.memory)) is reads_on
    await worker.stop(5)
    await gone.wait()
    await asyncio.get_running_loop().shutdown_default_executor()  # which removes it
    assert views(store.memory) == []


async def test_what_cannot_be_unsealed_is_no_worker(store: Store, tmp_path: Path) -> None:
    spec = sealed(store)
    with store.database.write() as connection:
        store.keyring.destroy(connection, TENANT)
    store.keyring.scrub()
    placement = UnsealingPlacement(LocalPlacement(tmp_path / "run"), store.artifacts)
    with pytest.raises(WorkerFailed, match="destroyed"):
        await placement.start(spec, lambda _: None, lambda _: None, lambda _: None)
    assert views(store.memory) == []


def test_labels_are_sealed_in_their_row(store: Store, data: Path) -> None:
    public = store.records.version("digits")
    store.records.add(msgspec.structs.replace(public, tenant=TENANT), ME)
    deploy(data, "digits", tenant=TENANT)
    row = next(one for one in Deployments(store.database).all() if one.tenant == TENANT)
    info = ModelInfo(task="classify", runtime="x", labels=["Ada", "Alan"])
    stored = told(row, info, store.artifacts.private)
    assert "Ada" not in str(stored.info)
    assert known(stored, store.artifacts.private) == info
    assert known(told(row, None, store.artifacts.private), store.artifacts.private) is None
