"""Tenants, who pay and own, and the projects within them."""

from __future__ import annotations

import re
import time

import msgspec
import sqlalchemy as sa

from openmaas.audit import By
from openmaas.database import Database
from openmaas.errors import Conflict, InvalidRequest, NotFound
from openmaas.schema import projects, tenants
from openmaas.tenancy import privacy as policies
from openmaas.tenancy.privacy import PrivacyPolicy
from openmaas.tenancy.quota import Quota, quota, stored

DEFAULT = "default"  # the tenant, and each tenant's project, that is there from the beginning
MOST_WEIGHT = 1000.0
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")


class Tenant(msgspec.Struct, frozen=True):
    id: str
    weight: float  # its share where compute is contended
    quota: Quota
    created: int
    closed: int | None
    privacy: PrivacyPolicy = PrivacyPolicy()


class Project(msgspec.Struct, frozen=True):
    tenant: str
    id: str
    quota: Quota
    created: int
    closed: int | None


class Tenants:
    """All methods are short transactions; call them from a thread in the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- tenants -----------------------------------------------------------------------

    def create(self, id: str, by: By, *, weight: float = 1.0, quota: Quota = Quota()) -> Tenant:  # noqa: B008  frozen
        """A new tenant with its first project.

        Raises:
            InvalidRequest: the name or the weight is not possible.
            Conflict: there is one of that name, perhaps closed.
        """
        _check_name(id, "tenant")
        _check_weight(weight)
        made = Tenant(id, weight, quota, int(time.time()), None)
        row = msgspec.structs.asdict(made) | {
            "quota": stored(quota), "privacy": policies.stored(made.privacy)
        }  # fmt: skip
        try:
            with self._database.write() as connection:
                connection.execute(tenants.insert().values(**row))
                _add_project(connection, Project(id, DEFAULT, Quota(), made.created, None))
                by.note(
                    connection, "tenant.create", id, tenant=id, weight=weight, quota=stored(quota)
                )
        except sa.exc.IntegrityError:
            raise Conflict(f"there is a tenant {id!r} already") from None
        return made

    def get(self, id: str) -> Tenant:
        """
        Raises:
            NotFound
        """
        with self._database.read() as connection:
            return _get(connection, id)

    def change(
        self,
        id: str,
        by: By,
        *,
        weight: float | None = None,
        quota: Quota | None = None,
        privacy: PrivacyPolicy | None = None,
    ) -> Tenant:
        """Replaces what is given.

        Raises:
            NotFound, InvalidRequest
        """
        new: dict[str, object] = {}
        told: dict[str, object] = {}  # of a policy not the words that it looks for
        if weight is not None:
            _check_weight(weight)
            new["weight"] = weight
        if quota is not None:
            new["quota"] = stored(quota)
        if privacy is not None:
            policies.check(privacy)
            new["privacy"] = policies.stored(privacy)
            told["privacy"] = policies.told(privacy)
        with self._database.write() as connection:
            _get(connection, id)
            if new:
                connection.execute(tenants.update().where(tenants.c.id == id).values(**new))
                by.note(connection, "tenant.change", id, tenant=id, **(new | told))
            return _get(connection, id)

    def close(self, id: str, by: By) -> None:
        """Refuses all its keys from now on. Its usage stays on record, and its name is taken.

        Raises:
            NotFound
        """
        with self._database.write() as connection:
            if _get(connection, id).closed is None:
                now = int(time.time())
                connection.execute(tenants.update().where(tenants.c.id == id).values(closed=now))
                by.note(connection, "tenant.close", id, tenant=id)

    # --- projects ------------------------------------------------------------------------

    def create_project(self, tenant: str, id: str, by: By, *, quota: Quota = Quota()) -> Project:  # noqa: B008
        """
        Raises:
            NotFound: no such tenant.
            InvalidRequest, Conflict: as of a tenant.
        """
        _check_name(id, "project")
        made = Project(tenant, id, quota, int(time.time()), None)
        try:
            with self._database.write() as connection:
                _get(connection, tenant)
                _add_project(connection, made)
                by.note(connection, "project.create", id, tenant=tenant, quota=stored(quota))
        except sa.exc.IntegrityError:
            raise Conflict(f"there is a project {id!r} already") from None
        return made

    def projects(self, tenant: str) -> list[Project]:
        """
        Raises:
            NotFound: no such tenant.
        """
        query = _all(projects).where(projects.c.tenant == tenant)
        with self._database.read() as connection:
            _get(connection, tenant)
            return [_project(row) for row in connection.execute(query)]

    def project(self, tenant: str, id: str) -> Project:
        """
        Raises:
            NotFound
        """
        with self._database.read() as connection:
            return _get_project(connection, tenant, id)

    def change_project(self, tenant: str, id: str, by: By, *, quota: Quota) -> Project:
        """Replaces its quota.

        Raises:
            NotFound
        """
        which = (projects.c.tenant == tenant) & (projects.c.id == id)
        with self._database.write() as connection:
            _get_project(connection, tenant, id)
            connection.execute(projects.update().where(which).values(quota=stored(quota)))
            by.note(connection, "project.change", id, tenant=tenant, quota=stored(quota))
            return _get_project(connection, tenant, id)

    def close_project(self, tenant: str, id: str, by: By) -> None:
        """Refuses its keys from now on.

        Raises:
            NotFound
        """
        which = (projects.c.tenant == tenant) & (projects.c.id == id)
        with self._database.write() as connection:
            if _get_project(connection, tenant, id).closed is None:
                now = int(time.time())
                connection.execute(projects.update().where(which).values(closed=now))
                by.note(connection, "project.close", id, tenant=tenant)

    def list(self) -> list[Tenant]:
        with self._database.read() as connection:
            return [_tenant(row) for row in connection.execute(_all(tenants))]


def _all(table: sa.Table) -> sa.Select[tuple[object, ...]]:
    return sa.select(table).order_by(*table.primary_key.columns)


def _add_project(connection: sa.Connection, one: Project) -> None:
    row = msgspec.structs.asdict(one) | {"quota": stored(one.quota)}
    connection.execute(projects.insert().values(**row))


def _get(connection: sa.Connection, id: str) -> Tenant:
    row = connection.execute(sa.select(tenants).where(tenants.c.id == id)).first()
    if row is None:
        raise NotFound(f"no tenant {id[:64]!r}")
    return _tenant(row)


def _get_project(connection: sa.Connection, tenant: str, id: str) -> Project:
    query = sa.select(projects).where(projects.c.tenant == tenant, projects.c.id == id)
    row = connection.execute(query).first()
    if row is None:
        raise NotFound(f"no project {id[:64]!r}")
    return _project(row)


def _tenant(row: sa.Row[tuple[object, ...]]) -> Tenant:
    return Tenant(
        row.id,
        row.weight,
        quota(row.quota),
        row.created,
        row.closed,
        policies.privacy(row.privacy),
    )


def _project(row: sa.Row[tuple[object, ...]]) -> Project:
    return Project(row.tenant, row.id, quota(row.quota), row.created, row.closed)


def _check_name(id: str, what: str) -> None:
    if not _NAME.match(id):
        raise InvalidRequest(
            f"a {what}'s name has from 1 to 63 small letters, digits and hyphens inside",
            param=what,
        )


def _check_weight(weight: float) -> None:
    if not 0 < weight <= MOST_WEIGHT:  # NaN too
        raise InvalidRequest(f"weight is above 0 and up to {MOST_WEIGHT:g}", param="weight")
