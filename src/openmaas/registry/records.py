"""Models and their versions as rows."""

from __future__ import annotations

import time

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database
from openmaas.errors import Conflict, ModelNotFound, QuotaExhausted
from openmaas.schema import (
    PUBLIC,
    datasets,
    deployments,
    files,
    retained_days,
    uploads,
    versions,
)


class Version(msgspec.Struct, frozen=True):
    """An immutable artifact under a model's name."""

    model: str
    version: int
    digest: str
    task: str
    format: str
    source: str
    licence: str
    size: int
    created: int
    tenant: str = PUBLIC  # whose it is

    @property
    def label(self) -> str:
        return f"{self.tenant}/{self.model}" if self.tenant else self.model


_VERSION = [versions.c[name] for name in Version.__struct_fields__]


class Records:
    """All methods are short transactions; call them from a thread in the gateway.

    A model is a name of a tenant's; ``PUBLIC`` ones are everybody's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, version: Version, by: By, *, most_bytes: int | None = None) -> Version:
        """Registers an artifact as the model's next version; ``version.version`` is ignored
        and returned filled. An artifact that is the newest version already is returned as is.

        Args:
            most_bytes: that all of the tenant's may take on disk.

        Raises:
            QuotaExhausted: they would take more.
        """
        with self._database.write() as connection:
            newest = connection.execute(
                sa.select(*_VERSION)
                .where(is_of(versions, version.model, version.tenant))
                .order_by(versions.c.version.desc())
                .limit(1)
            ).first()
            if newest is not None and newest.digest == version.digest:
                return Version(*newest)
            if most_bytes is not None:
                total = stored(connection, version.tenant) + version.size
                if total > most_bytes:
                    raise QuotaExhausted(
                        f"tenant {version.tenant} would store {total} bytes; its quota is "
                        f"stored_bytes={most_bytes}"
                    )
            number = 1 if newest is None else newest.version + 1
            added = msgspec.structs.replace(version, version=number, created=int(time.time()))
            connection.execute(versions.insert().values(**msgspec.structs.asdict(added)))
            by.note(
                connection,
                "version.add",
                f"{added.model}:{added.version}",
                tenant=added.tenant,
                digest=added.digest,
                source=added.source,
            )
            return added

    def versions(self, model: str | None = None, tenant: str | None = None) -> list[Version]:
        """
        Args:
            tenant: only those of one owner.
        """
        query = sa.select(*_VERSION).order_by(*versions.primary_key.columns)
        if model is not None:
            query = query.where(versions.c.model == model)
        if tenant is not None:
            query = query.where(versions.c.tenant == tenant)
        with self._database.read() as connection:
            return [Version(*row) for row in connection.execute(query)]

    def version(self, model: str, number: int | None = None, tenant: str = PUBLIC) -> Version:
        """The numbered version, or the newest.

        Raises:
            ModelNotFound
        """
        found = self.versions(model, tenant)
        if number is not None:
            found = [one for one in found if one.version == number]
        if not found:
            what = model if number is None else f"{model} version {number}"
            of = f" of tenant {tenant!r}" if tenant else ""
            raise ModelNotFound(f"no model {what!r}{of} here; see `openmaas models list`")
        return found[-1]

    def stored_bytes(self, tenant: str) -> int:
        """What a tenant's versions, data sets, uploads and files take on disk."""
        with self._database.read() as connection:
            return stored(connection, tenant)

    def remove(
        self, model: str, by: By, number: int | None = None, tenant: str = PUBLIC
    ) -> list[str]:
        """Forgets a version, or all of a model; returns digests that nothing refers to now.

        Raises:
            ModelNotFound
            Conflict: it is deployed.
        """
        self.version(model, number, tenant)
        with self._database.write() as connection:
            mine = is_of(versions, model, tenant)
            connection.execute(sa.select(versions.c.version).where(mine).with_for_update()).all()
            query = sa.select(deployments.c.version).where(is_of(deployments, model, tenant))
            used = set(connection.execute(query).scalars())
            if number in used or (number is None and used):
                which_one = "" if number is None else f" --version {number}"
                raise Conflict(
                    f"{model}{f' version {number}' if number else ''} is deployed; first: "
                    f"openmaas undeploy {model}{which_one}"
                )
            which = is_of(versions, model, tenant)
            if number is not None:
                which &= versions.c.version == number
            gone = connection.execute(sa.select(versions.c.digest).where(which)).scalars().all()
            connection.execute(versions.delete().where(which))
            what = model if number is None else f"{model}:{number}"
            by.note(connection, "version.remove", what, tenant=tenant)
            kept = set(connection.execute(sa.select(versions.c.digest)).scalars())
            return [digest for digest in dict.fromkeys(gone) if digest not in kept]


def stored(connection: sa.Connection, tenant: str) -> int:
    """Bytes that count towards ``stored_bytes``: an upload's count whole from its beginning."""
    return sum(
        int(
            connection.execute(
                sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(of == tenant)
            ).scalar_one()
        )
        for column, of in (
            (versions.c.size, versions.c.tenant),
            (datasets.c.bytes, datasets.c.tenant),
            (uploads.c.size, uploads.c.tenant),
            (files.c.bytes, files.c.tenant),
            (retained_days.c.bytes, retained_days.c.tenant),
        )
    )


def is_of(table: sa.Table, model: str, tenant: str) -> sa.ColumnElement[bool]:
    """The rows of one model."""
    return (table.c.model == model) & (table.c.tenant == tenant)
