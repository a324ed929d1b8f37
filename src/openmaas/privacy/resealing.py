"""Seals anew, beside requests, what retired keys have sealed; then these are destroyed.

Which keys those are, the database says, so that a server that dies goes on where it was. What is
being written at the moment keeps its key until it is finished, and the key waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from openmaas import background
from openmaas.audit import By
from openmaas.database import Database
from openmaas.disk import disk_errors, need_space
from openmaas.encryption.folders import is_scratch
from openmaas.encryption.keyring import Key, Keyring
from openmaas.encryption.sealed import reseal, sealed_by
from openmaas.errors import Erased, OpenMaaSError, SealBroken
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.private import FOLDER as PRIVATE
from openmaas.registry.records import Records
from openmaas.schema import datasets, files, jobs, sessions, uploads
from openmaas.tenancy.tenants import Tenants
from openmaas.training.datasets import Datasets
from openmaas.training.publishing import Publisher
from openmaas.training.uploads import Uploads

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
GRACE_SECONDS = 60.0  # for which somebody may still seal with a key that was retired
SEALED = ("artifacts", "batches", "datasets", "files", "jobs", "sessions", "uploads")
FOLDERS = (("files", files), ("jobs", jobs), ("sessions", sessions))  # sealed by tenants' own keys


def rotate(
    database: Database, keyring: Keyring, tenants: Tenants, tenant: str, by: By, rewrite: bool
) -> Key:
    """Gives a tenant a new key; with ``rewrite`` its data sets too, and all is sealed anew.

    Raises:
        NotFound: no such tenant.
        Conflict: somebody else does so at this moment.
    """
    tenants.get(tenant)
    things: list[str] = []
    if rewrite:
        with database.read() as connection:
            query = sa.select(datasets.c.id).where(datasets.c.tenant == tenant)
            things = list(connection.execute(query).scalars())
    return keyring.rotate(tenant, by, rewrite=rewrite, things=things)


class Resealer:
    """
    Args:
        folder: the data folder.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        folder: Path,
        records: Records,
        artifacts: ArtifactStore,
        uploads: Uploads,
        datasets: Datasets,
        publisher: Publisher,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._folder = folder
        self._records = records
        self._artifacts = artifacts
        self._uploads = uploads
        self._datasets = datasets
        self._publisher = publisher
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        await background.end(self._task)

    async def _follow(self) -> None:
        while True:
            try:
                wanted = await asyncio.to_thread(self._keyring.to_rewrite)
                for tenant, keys in wanted.items():
                    await asyncio.to_thread(self.reseal, tenant, keys)
            except OpenMaaSError as error:  # the database is away, the disk full: tried again
                log.warning("cannot seal anew: %s", error.message)
            except Exception:
                log.exception("cannot seal anew")
            await asyncio.sleep(POLL_SECONDS)

    def reseal(self, tenant: str, keys: set[str]) -> bool:
        """Seals anew what these keys sealed of a tenant, and what an older release left as it is.
        It blocks.

        Returns:
            Whether nothing is sealed with them any more.

        Raises:
            StorageFull
        """
        began = time.time()
        self._take_in(tenant)
        for path, thing in self._finished(tenant):
            self._one(path, tenant, thing, keys)
        for id in self._ids(uploads, tenant):
            if self._sealed_by(self._folder / "uploads" / id) in (None, *keys):
                self._uploads.seal_anew(id, tenant)
        for id in self._ids(datasets, tenant):
            self._datasets.describe_anew(id, tenant)
        self._publisher.seal_anew(tenant)
        used = {self._sealed_by(path) for path in self._all()}
        self._keyring.retire(tenant, keys - used, began - GRACE_SECONDS)
        return not keys & used

    def _one(self, path: Path, tenant: str, thing: str, keys: set[str]) -> None:
        name = path.relative_to(self._folder).as_posix()
        try:
            if sealed_by(path) in (None, *keys):
                with disk_errors():
                    need_space(path.parent, path.stat().st_size)
                    reseal(path, self._keyring, self._keyring.key(tenant, thing), name)
        except (FileNotFoundError, Erased):
            return  # it was removed meanwhile
        except SealBroken as error:
            log.error("%s cannot be sealed anew: %s", name, error.message)

    def _take_in(self, tenant: str) -> None:
        """Seals versions that an older release stored as they are."""
        private = self._artifacts.private
        assert private is not None, "a server has keys"
        versions = self._records.versions()
        for one in versions:
            plain = self._artifacts.root / one.digest.removeprefix("sha256:")
            if one.tenant == tenant and plain.is_dir() and not private.has(one.digest, tenant):
                private.take_in(plain, one.digest, tenant)
        self._artifacts.collect(
            {(one.tenant, one.digest) for one in versions}, [one.digest for one in versions]
        )

    def _finished(self, tenant: str) -> Iterator[tuple[Path, str]]:
        """Sealed files that are not appended to, and the thing whose key seals each."""
        yield from ((path, "") for path in _files(self._private(tenant)))
        for id in self._ids(datasets, tenant):
            yield from ((path, id) for path in _files(self._folder / "datasets" / id))
        for place, table in FOLDERS:
            for id in self._ids(table, tenant):
                yield from ((path, "") for path in _files(self._folder / place / id))

    def _all(self) -> Iterator[Path]:
        """Everybody's, also what has no row yet."""
        for place in SEALED:
            yield from _files(self._folder / place)

    def _private(self, tenant: str) -> Path:
        return self._artifacts.root / PRIVATE / tenant

    def _sealed_by(self, path: Path) -> str | None:
        try:
            return sealed_by(path)
        except (OSError, SealBroken):
            return None

    def _ids(self, table: sa.Table, tenant: str) -> list[str]:
        with self._database.read() as connection:
            query = sa.select(table.c.id).where(table.c.tenant == tenant)
            return list(connection.execute(query).scalars())


def _files(path: Path) -> Iterator[Path]:
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file() and not one.is_symlink() and not is_scratch(one):
            yield one
