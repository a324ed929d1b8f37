"""Models, versions and deployments as rows: what is there, what is wanted, what was seen."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import sqlalchemy as sa

from openmaas.database import Database
from openmaas.errors import Conflict, ModelNotFound
from openmaas.schema import PUBLIC, deployments, versions


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


class Deployed(msgspec.Struct, frozen=True):
    """A version that is to be served, and what became of it."""

    model: str
    version: int
    runtime: str
    reason: str
    options: dict[str, Any]
    generation: int
    state: str = "waiting for a server"
    detail: str = ""
    gateway_pid: int | None = None
    worker_pid: int | None = None
    restarts: int = 0


class Records:
    """All methods are short transactions; call them from a thread in the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, version: Version) -> Version:
        """Registers an artifact as the model's next version; ``version.version`` is ignored
        and returned filled. An artifact that is the newest version already is returned as is."""
        with self._database.write() as connection:
            newest = connection.execute(
                sa.select(versions)
                .where(versions.c.model == version.model)
                .order_by(versions.c.version.desc())
                .limit(1)
            ).first()
            if newest is not None and newest.digest == version.digest:
                return Version(*newest)
            number = 1 if newest is None else newest.version + 1
            added = msgspec.structs.replace(version, version=number, created=int(time.time()))
            connection.execute(versions.insert().values(**msgspec.structs.asdict(added)))
            return added

    def versions(self, model: str | None = None) -> list[Version]:
        query = sa.select(versions).order_by(versions.c.model, versions.c.version)
        if model is not None:
            query = query.where(versions.c.model == model)
        with self._database.read() as connection:
            return [Version(*row) for row in connection.execute(query)]

    def version(self, model: str, number: int | None = None) -> Version:
        """The numbered version, or the newest.

        Raises:
            ModelNotFound
        """
        found = self.versions(model)
        if number is not None:
            found = [one for one in found if one.version == number]
        if not found:
            what = model if number is None else f"{model} version {number}"
            raise ModelNotFound(f"no model {what!r} here; see `openmaas models list`")
        return found[-1]

    def remove(self, model: str, number: int | None = None) -> list[str]:
        """Forgets a version, or all of a model; returns digests that nothing refers to now.

        Raises:
            ModelNotFound
            Conflict: it is deployed.
        """
        self.version(model, number)
        with self._database.write() as connection:
            used = connection.execute(
                sa.select(deployments.c.version).where(deployments.c.model == model)
            ).scalar()
            if used is not None and number in (None, used):
                raise Conflict(f"{model} is deployed; first: openmaas undeploy {model}")
            which = versions.c.model == model
            if number is not None:
                which &= versions.c.version == number
            gone = connection.execute(sa.select(versions.c.digest).where(which)).scalars().all()
            connection.execute(versions.delete().where(which))
            kept = set(connection.execute(sa.select(versions.c.digest)).scalars())
            return [digest for digest in dict.fromkeys(gone) if digest not in kept]

    def deploy(
        self, version: Version, runtime: str, reason: str, options: dict[str, Any]
    ) -> Deployed:
        """Writes down that a version is wanted; servers act on it within a second."""
        with self._database.write() as connection:
            old = connection.execute(
                sa.select(deployments.c.generation).where(deployments.c.model == version.model)
            ).scalar()
            wanted = Deployed(
                model=version.model,
                version=version.version,
                runtime=runtime,
                reason=reason,
                options=options,
                generation=1 if old is None else old + 1,
            )
            connection.execute(deployments.delete().where(deployments.c.model == version.model))
            connection.execute(deployments.insert().values(**msgspec.structs.asdict(wanted)))
            return wanted

    def undeploy(self, model: str) -> None:
        """
        Raises:
            ModelNotFound: it is not deployed.
        """
        with self._database.write() as connection:
            done = connection.execute(deployments.delete().where(deployments.c.model == model))
            if not done.rowcount:
                raise ModelNotFound(f"{model!r} is not deployed; see `openmaas status`")

    def deployed(self) -> list[Deployed]:
        query = sa.select(deployments).order_by(deployments.c.model)
        with self._database.read() as connection:
            return [Deployed(*row) for row in connection.execute(query)]

    def report(self, seen: Deployed) -> None:
        """Notes what a gateway saw of a deployment, unless it has been replaced since."""
        with self._database.write() as connection:
            connection.execute(
                deployments.update()
                .where(
                    deployments.c.model == seen.model,
                    deployments.c.generation == seen.generation,
                )
                .values(
                    state=seen.state,
                    detail=seen.detail,
                    gateway_pid=seen.gateway_pid,
                    worker_pid=seen.worker_pid,
                    restarts=seen.restarts,
                )
            )
