"""The steps of an erasure. Each may be done twice, and is known to be done by the row's state, so
that whoever finds one half done goes on with it.

The order is what protects: once keys are destroyed nobody can read what they sealed, whatever
happens to the files.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from openmaas import __version__
from openmaas.database import Database
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.memory import Memory
from openmaas.errors import StorageUnavailable
from openmaas.privacy import withdrawing
from openmaas.privacy.erasures import Amount, Erasure, Found, Trained, move
from openmaas.privacy.holdings import HOLDINGS, REMOVED_FIRST, Holding, rows_of
from openmaas.privacy.retained import FOLDER as RETAINED
from openmaas.privacy.signing import SignedRecord, Signer
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.private import FOLDER as PRIVATE
from openmaas.schema import (
    audit,
    batches,
    cards,
    changes,
    data_keys,
    datasets,
    files,
    jobs,
    privacy_budgets,
    projects,
    sessions,
    tenants,
    uploads,
    usage,
    versions,
)
from openmaas.tenancy.privacy import privacy
from openmaas.tenancy.tenants import DEFAULT

ERASED = "erased"  # in the place of a name
# Ids that we made: they tell nothing of whom they belong to.
_ID = re.compile(r"^(up|ds|job|session|file|batch|key|k|req|erasure)[_-][0-9a-f]+$")

KEPT = (
    "the ledger (usage): counts, money, and the names of models and projects that bills tell; "
    "hashes of idempotency keys are removed",
    "the audit log: who did what, without details and without names that the tenant chose",
    "records of erasures, and the tenant's name",
)


class Erasing:
    """All methods block.

    Args:
        folder: the data folder.
        memory: where what is worked with lies unsealed.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        artifacts: ArtifactStore,
        folder: Path,
        memory: Memory,
    ) -> None:
        self._memory = memory
        self._database = database
        self._keyring = keyring
        self._artifacts = artifacts
        self._folder = folder
        self._signer = Signer(keyring)

    # --- the steps ----------------------------------------------------------------------------

    def halted(self, erasure: Erasure) -> None:
        """Nothing is at work any more: what there is is written down before any of it goes."""
        with self._database.write() as connection:
            found = self._found(connection, erasure)
            move(connection, erasure.id, "halted", found=msgspec.to_builtins(found))

    def make_unreadable(self, erasure: Erasure) -> None:
        """Destroys the keys. From here on nobody can read what they sealed."""
        with self._database.write() as connection:
            self._keyring.destroy(connection, erasure.tenant, erasure.object or None)
            now = erasure.unreadable or int(time.time())
            move(connection, erasure.id, "unreadable", unreadable=now)
        self._keyring.scrub()

    def remove(self, erasure: Erasure) -> None:
        """Removes what the keys were for."""
        self.clean(erasure)
        with self._database.write() as connection:
            move(connection, erasure.id, "removed")

    def clean(self, erasure: Erasure) -> None:
        """Files first, which are found by their rows; then the rows, all at once; then artifacts
        that nobody else has."""
        found = erasure.found or Found()
        for path in self._paths(erasure):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with self._database.write() as connection:
            if erasure.object:
                _remove_dataset(connection, erasure, found)
            else:
                _remove_tenant(connection, erasure.tenant)
            self._keyring.destroy(connection, erasure.tenant, erasure.object or None)
        for digest in self._unused(erasure, found.artifacts):
            self._artifacts.remove(digest, erasure.tenant)

    def finish(self, erasure: Erasure) -> bool:
        """Signs the record, once a last look finds nothing and the bytes of what was removed are
        gone from the database's files too.

        Returns:
            Whether it is done; if not, something came late, and is removed once more.

        Raises:
            StorageUnavailable: somebody reads the database for too long.
        """
        if self.left(erasure):
            with self._database.write() as connection:
                move(connection, erasure.id, "unreadable")
            return False
        purge(self._database)
        now = int(time.time())
        signed = self._sign(erasure, now)
        with self._database.write() as connection:
            if not erasure.object and erasure.tenant == DEFAULT:
                again = tenants.update().where(tenants.c.id == DEFAULT)
                connection.execute(again.values(closed=None))
                connection.execute(changes.update().values(number=changes.c.number + 1))
            move(connection, erasure.id, "done", finished=now, record=msgspec.to_builtins(signed))
        return True

    def left(self, erasure: Erasure) -> dict[str, int]:
        """What is there that should not be, by kind."""
        found: dict[str, int] = {}
        with self._database.read() as connection:
            if erasure.object:
                counted = {"data sets": _is_dataset(erasure), "data keys": _its_keys(erasure)}
                tables = {"data sets": datasets, "data keys": data_keys}
                for kind, which in counted.items():
                    found[kind] = _count(connection, tables[kind], which)
            else:
                for holding in HOLDINGS:
                    if holding.fate == "removed":
                        which = rows_of(holding, erasure.tenant)
                        if holding.kind == "projects" and erasure.tenant == DEFAULT:
                            which &= projects.c.id != DEFAULT
                        found[holding.kind] = _count(connection, holding.table, which)
        found["files"] = sum(path.exists() for path in self._paths(erasure))
        return {kind: count for kind, count in found.items() if count}

    def closed(self, tenant: str) -> bool:
        """Whether nothing may be held of a tenant: the one called default goes on, empty."""
        query = sa.select(tenants.c.closed).where(tenants.c.id == tenant)
        with self._database.read() as connection:
            return connection.execute(query).scalar() is not None

    # --- what there is ------------------------------------------------------------------------

    def _found(self, connection: sa.Connection, erasure: Erasure) -> Found:
        if erasure.object:
            return self._found_dataset(connection, erasure)
        things = {}
        for holding in HOLDINGS:
            if holding.fate != "kept":
                things[holding.kind] = amount(connection, holding, erasure.tenant)
        mine = sa.select(versions.c.digest).where(versions.c.tenant == erasure.tenant).distinct()
        others = sa.select(versions.c.digest).where(versions.c.tenant != erasure.tenant)
        digests = set(connection.execute(mine).scalars())
        theirs = set(connection.execute(others).scalars())
        shared = {one for one in digests & theirs if not self._private(one, erasure.tenant)}
        return Found(
            {kind: one for kind, one in things.items() if one.count},
            sorted(digests - shared),
            len(shared),
        )

    def _found_dataset(self, connection: sa.Connection, erasure: Erasure) -> Found:
        row = connection.execute(sa.select(datasets).where(_is_dataset(erasure))).first()
        things = {}
        if row is not None:
            things["data sets"] = Amount(1, row.bytes)
            upload = sa.select(uploads.c.received).where(uploads.c.id == row.upload)
            received = connection.execute(upload).scalar()
            if received is not None:
                things["uploads"] = Amount(1, received)
        keys = _count(connection, data_keys, _its_keys(erasure))
        if keys:
            things["data keys"] = Amount(keys)
        policy = connection.execute(
            sa.select(tenants.c.privacy).where(tenants.c.id == erasure.tenant)
        ).scalar_one()
        withdrawn = privacy(policy).withdraw
        trained = [
            Trained(one.model, one.version, one.digest, withdrawn)
            for one in withdrawing.trained_on(connection, erasure.tenant, erasure.object)
        ]
        gone = sorted({one.digest for one in trained if one.withdrawn})
        return Found(things, gone, 0, trained)

    def _paths(self, erasure: Erasure) -> Sequence[Path]:
        """Files and folders, those too whose rows are gone, as far as they can be known."""
        tenant, folder = erasure.tenant, self._folder
        with self._database.read() as connection:
            found = self._work(connection, erasure)
            if erasure.object:
                found.append(folder / "datasets" / erasure.object)
                upload = sa.select(datasets.c.upload).where(_is_dataset(erasure))
                found += [folder / "uploads" / id for id in connection.execute(upload).scalars()]
                return [path for path in found if path.exists()]
            found += [folder / RETAINED / tenant, folder / "artifacts" / PRIVATE / tenant]
            for place, table in (("uploads", uploads), ("datasets", datasets), ("files", files)):
                ids = connection.execute(sa.select(table.c.id).where(table.c.tenant == tenant))
                found += [folder / place / id for id in ids.scalars()]
            ids = connection.execute(sa.select(batches.c.id).where(batches.c.tenant == tenant))
            found += [folder / "batches" / f"{id}.jsonl" for id in ids.scalars()]
        return [path for path in found if path.exists()]

    def _work(self, connection: sa.Connection, erasure: Erasure) -> list[Path]:
        """Folders of jobs and sessions, on disk and in memory."""
        found = []
        for place, table in (("jobs", jobs), ("sessions", sessions)):
            query = sa.select(table.c.id, table.c.spec).where(table.c.tenant == erasure.tenant)
            for row in connection.execute(query):
                if erasure.object in ("", row.spec.get("dataset")):
                    found += [self._folder / place / row.id, self._memory.path(place, row.id)]
        return found

    def _unused(self, erasure: Erasure, digests: Sequence[str]) -> Sequence[str]:
        """What no version needs any more: of those that lie among the public ones nobody's, of
        those that are the tenant's alone none of its own."""
        of = versions.c
        with self._database.read() as connection:
            rows = connection.execute(sa.select(of.tenant, of.digest)).all()
        own = {row.digest for row in rows if row.tenant == erasure.tenant}
        all_ = {row.digest for row in rows}
        return [
            digest
            for digest in digests
            if digest not in (own if self._private(digest, erasure.tenant) else all_)
        ]

    def _private(self, digest: str, tenant: str) -> bool:
        """Whether an artifact is in the tenant's own folder, sealed."""
        private = self._artifacts.private
        return private is not None and private.has(digest, tenant)

    # --- the record ---------------------------------------------------------------------------

    def _sign(self, erasure: Erasure, now: int) -> SignedRecord:
        found = erasure.found or Found()
        record: dict[str, Any] = {
            "erasure": erasure.id,
            "tenant": erasure.tenant,
            "object": erasure.object or "all of the tenant",
            # an account's name at the command line is no business of the record's reader
            "actor": erasure.actor if _ID.match(erasure.actor) else "an operator",
            "requested": erasure.requested,
            "unreadable": erasure.unreadable,
            "finished": now,
            "removed": msgspec.to_builtins(found.things),
            "artifacts": list(found.artifacts),
            "artifacts_of_others_too": found.shared,
            "trained_versions": msgspec.to_builtins(found.trained),
            "kept": list(KEPT) if not erasure.object else list(KEPT[:2]),
            "database": self._database.dialect,
            "made_by": f"openmaas {__version__}",
        }
        return self._signer.sign(record)


def amount(connection: sa.Connection, holding: Holding, tenant: str) -> Amount:
    """How much of a kind a tenant has."""
    size = (
        sa.literal(0) if holding.bytes is None else sa.func.coalesce(sa.func.sum(holding.bytes), 0)
    )
    query = sa.select(sa.func.count(), size).select_from(holding.table)
    count, bytes_ = connection.execute(query.where(rows_of(holding, tenant))).one()
    return Amount(int(count), int(bytes_))


def purge(database: Database) -> None:
    """What was deleted is in no file of the database any more. On SQLite its file is written anew,
    and calls that write wait meanwhile; on PostgreSQL the space of deleted rows is free to be
    overwritten, and its write-ahead log is its operator's.

    Raises:
        StorageUnavailable: somebody reads for too long, or writes.
    """
    with contextlib.closing(database.engine.raw_connection()) as connection:
        raw: Any = connection.dbapi_connection
        try:
            if database.dialect != "sqlite":
                raw.autocommit = True
            raw.execute("VACUUM")
        except raw.Error as error:
            raise StorageUnavailable("the database cannot be rewritten", retry_after=1) from error
        finally:
            if database.dialect != "sqlite":
                raw.autocommit = False
    if not database.scrub():
        raise StorageUnavailable("the database is read for too long", retry_after=1)


def _remove_tenant(connection: sa.Connection, tenant: str) -> None:
    by_kind = {holding.kind: holding for holding in HOLDINGS if holding.fate == "removed"}
    first = [by_kind.pop(kind) for kind in REMOVED_FIRST]
    for holding in [*first, *by_kind.values()]:
        which = rows_of(holding, tenant)
        if holding.kind == "projects" and tenant == DEFAULT:
            which &= projects.c.id != DEFAULT
        connection.execute(holding.table.delete().where(which))
    _scrub_audit(connection, audit.c.tenant == tenant, tenant)
    marked = (usage.c.tenant == tenant) & usage.c.idempotency.is_not(None)
    connection.execute(usage.update().where(marked).values(idempotency=None))
    empty = {"quota": {}, "privacy": {}, "weight": 1.0}
    connection.execute(tenants.update().where(tenants.c.id == tenant).values(**empty))
    if tenant == DEFAULT:
        own = (projects.c.tenant == tenant) & (projects.c.id == DEFAULT)
        connection.execute(projects.update().where(own).values(quota={}))
    connection.execute(changes.update().values(number=changes.c.number + 1))


def _remove_dataset(connection: sa.Connection, erasure: Erasure, found: Found) -> None:
    row = connection.execute(sa.select(datasets.c.upload).where(_is_dataset(erasure))).first()
    names = [erasure.object]
    if row is not None:
        names.append(row.upload)
        own = (uploads.c.id == row.upload) & (uploads.c.tenant == erasure.tenant)
        connection.execute(uploads.delete().where(own))
    connection.execute(datasets.delete().where(_is_dataset(erasure)))
    budget = privacy_budgets.c.dataset == erasure.object  # what was spent of it stays
    connection.execute(privacy_budgets.delete().where(budget))
    for one in found.trained:
        if one.withdrawn:
            withdrawing.withdraw(connection, erasure.tenant, one.model, one.version)
        else:
            _scrub_card(connection, erasure.tenant, one)
    mine = (audit.c.tenant == erasure.tenant) & audit.c.object.in_(names)
    _scrub_audit(connection, mine, erasure.tenant)


def _scrub_audit(connection: sa.Connection, which: sa.ColumnElement[bool], tenant: str) -> None:
    for row in connection.execute(sa.select(audit.c.id, audit.c.object).where(which)).all():
        name = row.object if _ID.match(row.object) or row.object == tenant else ERASED
        scrubbed = audit.update().where(audit.c.id == row.id)
        connection.execute(scrubbed.values(object=name, detail={}))


def _scrub_card(connection: sa.Connection, tenant: str, one: Trained) -> None:
    """A version's card tells that it was trained on data that are erased, and not what they were
    called, nor which values they had."""
    which = (
        (cards.c.tenant == tenant) & (cards.c.model == one.model) & (cards.c.version == one.version)
    )
    card = connection.execute(sa.select(cards.c.card).where(which)).scalar()
    if isinstance(card, dict) and isinstance(card.get("dataset"), dict):
        card = {name: value for name, value in card.items() if name != "confusion"}
        card["dataset"] = card["dataset"] | {"name": ERASED}
        connection.execute(cards.update().where(which).values(card=card))


def _is_dataset(erasure: Erasure) -> sa.ColumnElement[bool]:
    return (datasets.c.id == erasure.object) & (datasets.c.tenant == erasure.tenant)


def _its_keys(erasure: Erasure) -> sa.ColumnElement[bool]:
    return (data_keys.c.object == erasure.object) & (data_keys.c.tenant == erasure.tenant)


def _count(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).select_from(table).where(which)
    return int(connection.execute(query).scalar_one())
