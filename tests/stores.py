"""Data folders set up from within the tests' process: what commands do, without their start."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from openmaas.app import Store, open_store
from openmaas.audit import By
from openmaas.config import load
from openmaas.encryption.memory import open_memory
from openmaas.registry.deployments import Replicas
from openmaas.registry.manifest import Description
from openmaas.serving import fleet

ME = By("test")


def memory_of(data: Path) -> Path:
    """Where a server lays unsealed what its processes work with."""
    return open_memory(load(None, {}, {"data_dir": str(data)})).folder


@contextlib.contextmanager
def opened(data: Path, database_url: str | None = None) -> Iterator[Store]:
    store = open_store(load(None, {}, {"data_dir": str(data), "database_url": database_url}))
    try:
        yield store
    finally:
        store.database.close()


def deploy(
    data: Path,
    model: str,
    *,
    tenant: str = "",
    database_url: str | None = None,
    runtime: str | None = None,
    replicas: tuple[int, int] = (0, 1),
    **options: Any,
) -> None:
    """Has a model's newest version served."""
    with opened(data, database_url) as store:
        fleet.deploy(
            store.records,
            store.deployments,
            store.artifacts,
            model,
            ME,
            tenant=tenant,
            runtime=runtime,
            options=options,
            replicas=Replicas(min=replicas[0], max=replicas[1]),
        )


def copy_model(data: Path, model: str, *names: str) -> None:
    """Registers a model's newest version under further names."""
    with opened(data) as store:
        version = store.records.version(model)
        for name in names:
            store.records.add(msgspec.structs.replace(version, model=name), ME)


def another_version(data: Path, model: str, of: str = "digits") -> None:
    """A further version of a model: the artifact of another's, under another licence."""
    with opened(data) as store:
        version = store.records.version(of)
        manifest = store.artifacts.manifest(version.digest)
        with store.artifacts.scratch() as scratch:
            for file in manifest.files:
                shutil.copyfile(
                    store.artifacts.open(version.digest) / file.path, scratch / file.path
                )
            names = Description.__struct_fields__
            digest, _ = store.artifacts.add(
                scratch,
                Description(**{name: getattr(manifest, name) for name in names}),
                source=manifest.source,
                source_sha256=manifest.source_sha256,
                licence=f"a licence of {model}",
            )
        new = msgspec.structs.replace(store.records.version(model), digest=digest)
        store.records.add(new, ME)
