"""Tenants, their projects and keys: for administrators, and for each tenant its own.

Another tenant's things are answered for as if there were none.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from openmaas.audit import By
from openmaas.errors import NotFound, PermissionDenied
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.tenancy.keys import Key, Keys, NewKey, Scope
from openmaas.tenancy.quota import Quota
from openmaas.tenancy.tenants import DEFAULT, Project, Tenant, Tenants

if TYPE_CHECKING:
    from collections.abc import Callable

ADMINISTRATION: tuple[Scope, ...] = ("admin",)  # scopes that only an administrator gives away

Name = Annotated[str, Meta(max_length=64)]
Seconds = Annotated[int, Meta(ge=0, le=2**40)]


class TenantBody(Struct, forbid_unknown_fields=True, kw_only=True):
    id: Name
    weight: float = 1.0
    quota: Quota = Quota()


class TenantChange(Struct, forbid_unknown_fields=True, kw_only=True):
    """What is left out stays as it is; a quota is replaced whole."""

    weight: float | None = None
    quota: Quota | None = None


class ProjectBody(Struct, forbid_unknown_fields=True, kw_only=True):
    id: Name
    quota: Quota = Quota()


class QuotaChange(Struct, forbid_unknown_fields=True):
    quota: Quota


class KeyBody(Struct, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    project: Name = DEFAULT
    scopes: tuple[Scope, ...] = ("inference",)
    models: list[str] | None = None  # null: all that the tenant sees
    quota: Quota = Quota()
    expires_in: Seconds | None = None  # seconds from now; null: never


class RotateBody(Struct, forbid_unknown_fields=True):
    overlap: Seconds = 86_400  # that the old one stays good


class Secret(Struct):
    """A new key. ``secret`` is shown this once."""

    key: Key
    secret: str


class TenantList(Struct):
    data: list[Tenant]
    object: Literal["list"] = "list"


class ProjectList(Struct):
    data: list[Project]
    object: Literal["list"] = "list"


class KeyList(Struct):
    data: list[Key]
    object: Literal["list"] = "list"


class Closed(Struct):
    id: str
    closed: bool = True


def own(exchange: Exchange) -> str:
    """The tenant of a path.

    Raises:
        NotFound: it is not the caller's, and the caller no administrator.
    """
    tenant = exchange.path["tenant"]
    if tenant != exchange.caller.tenant and not exchange.caller.may("admin"):
        raise NotFound(f"no tenant {tenant[:64]!r}")
    return tenant


async def thread(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """A short transaction, beside the event loop."""
    return await asyncio.to_thread(call, *arguments, **named)


class Routes:
    """The handlers, over what they administer."""

    def __init__(self, tenants: Tenants, keys: Keys) -> None:
        self._tenants = tenants
        self._keys = keys

    # --- tenants -----------------------------------------------------------------------

    async def list_tenants(self, exchange: Exchange) -> None:
        await exchange.respond_json(TenantList(await thread(self._tenants.list)))

    async def create_tenant(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), TenantBody)
        made = await thread(
            self._tenants.create, body.id, by(exchange), weight=body.weight, quota=body.quota
        )
        await exchange.respond_json(made)

    async def get_tenant(self, exchange: Exchange) -> None:
        await exchange.respond_json(await thread(self._tenants.get, own(exchange)))

    async def change_tenant(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), TenantChange)
        changed = await thread(
            self._tenants.change,
            own(exchange),
            by(exchange),
            weight=body.weight,
            quota=body.quota,
        )
        await exchange.respond_json(changed)

    async def close_tenant(self, exchange: Exchange) -> None:
        await thread(self._tenants.close, own(exchange), by(exchange))
        await exchange.respond_json(Closed(own(exchange)))

    # --- projects ------------------------------------------------------------------------

    async def list_projects(self, exchange: Exchange) -> None:
        found = await thread(self._tenants.projects, own(exchange))
        await exchange.respond_json(ProjectList(found))

    async def create_project(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), ProjectBody)
        made = await thread(
            self._tenants.create_project, own(exchange), body.id, by(exchange), quota=body.quota
        )
        await exchange.respond_json(made)

    async def get_project(self, exchange: Exchange) -> None:
        found = await thread(self._tenants.project, own(exchange), exchange.path["project"])
        await exchange.respond_json(found)

    async def change_project(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), QuotaChange)
        changed = await thread(
            self._tenants.change_project,
            own(exchange),
            exchange.path["project"],
            by(exchange),
            quota=body.quota,
        )
        await exchange.respond_json(changed)

    async def close_project(self, exchange: Exchange) -> None:
        project = exchange.path["project"]
        await thread(self._tenants.close_project, own(exchange), project, by(exchange))
        await exchange.respond_json(Closed(project))

    # --- keys ----------------------------------------------------------------------------

    async def list_keys(self, exchange: Exchange) -> None:
        await exchange.respond_json(KeyList(await thread(self._keys.list, own(exchange))))

    async def create_key(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), KeyBody)
        tenant = own(exchange)
        self._may_give(exchange, body.scopes)
        new = NewKey(
            name=body.name,
            tenant=tenant,
            project=body.project,
            scopes=body.scopes,
            models=None if body.models is None else tuple(body.models),
            quota=body.quota,
            expires=None if body.expires_in is None else int(time.time()) + body.expires_in,
        )
        await exchange.respond_json(Secret(*await thread(self._keys.create, new, by(exchange))))

    async def get_key(self, exchange: Exchange) -> None:
        found = await thread(self._keys.get, exchange.path["key"], own(exchange))
        await exchange.respond_json(found)

    async def change_key(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), QuotaChange)
        id, tenant = exchange.path["key"], own(exchange)
        await self._may_touch(exchange, id, tenant)
        changed = await thread(self._keys.change, id, by(exchange), quota=body.quota, tenant=tenant)
        await exchange.respond_json(changed)

    async def rotate_key(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body() or b"{}", RotateBody)
        id, tenant = exchange.path["key"], own(exchange)
        await self._may_touch(exchange, id, tenant)
        rotated = await thread(
            self._keys.rotate, id, by(exchange), overlap=body.overlap, tenant=tenant
        )
        await exchange.respond_json(Secret(*rotated))

    async def revoke_key(self, exchange: Exchange) -> None:
        id, tenant = exchange.path["key"], own(exchange)
        await self._may_touch(exchange, id, tenant)
        await thread(self._keys.revoke, id, by(exchange), tenant)
        await exchange.respond_json(Closed(id))

    async def _may_touch(self, exchange: Exchange, id: str, tenant: str) -> None:
        self._may_give(exchange, (await thread(self._keys.get, id, tenant)).scopes)

    def _may_give(self, exchange: Exchange, scopes: tuple[str, ...]) -> None:
        for scope in scopes:
            if scope in ADMINISTRATION and not exchange.caller.may("admin"):
                raise PermissionDenied(f"the scope {scope} takes an admin's key to give")


def by(exchange: Exchange) -> By:
    """Who acts, for the audit log."""
    return By(exchange.caller.key)


def endpoints(tenants: Tenants, keys: Keys) -> list[Endpoint]:
    """Everything below ``/v1/tenants`` but usage."""
    at = Routes(tenants, keys)
    tenant, project = "/v1/tenants/{tenant}", "/v1/tenants/{tenant}/projects/{project}"
    key = "/v1/tenants/{tenant}/keys/{key}"
    return [
        Endpoint("GET", "/v1/tenants", at.list_tenants, "openai", "List tenants",
                 scope="admin", response=TenantList),
        Endpoint("POST", "/v1/tenants", at.create_tenant, "openai", "Make a tenant",
                 scope="admin", body=TenantBody, response=Tenant),
        Endpoint("GET", tenant, at.get_tenant, "openai", "One tenant",
                 scope="manage", response=Tenant),
        Endpoint("PATCH", tenant, at.change_tenant, "openai", "Change a tenant",
                 scope="admin", body=TenantChange, response=Tenant),
        Endpoint("DELETE", tenant, at.close_tenant, "openai", "Close a tenant",
                 scope="admin", response=Closed),
        Endpoint("GET", f"{tenant}/projects", at.list_projects, "openai", "List projects",
                 scope="manage", response=ProjectList),
        Endpoint("POST", f"{tenant}/projects", at.create_project, "openai", "Make a project",
                 scope="manage", body=ProjectBody, response=Project),
        Endpoint("GET", project, at.get_project, "openai", "One project",
                 scope="manage", response=Project),
        Endpoint("PATCH", project, at.change_project, "openai", "Change a project's quota",
                 scope="manage", body=QuotaChange, response=Project),
        Endpoint("DELETE", project, at.close_project, "openai", "Close a project",
                 scope="manage", response=Closed),
        Endpoint("GET", f"{tenant}/keys", at.list_keys, "openai", "List keys",
                 scope="manage", response=KeyList),
        Endpoint("POST", f"{tenant}/keys", at.create_key, "openai", "Make a key",
                 scope="manage", body=KeyBody, response=Secret),
        Endpoint("GET", key, at.get_key, "openai", "One key", scope="manage", response=Key),
        Endpoint("PATCH", key, at.change_key, "openai", "Change a key's quota",
                 scope="manage", body=QuotaChange, response=Key),
        Endpoint("POST", f"{key}/rotate", at.rotate_key, "openai", "Replace a key",
                 scope="manage", body=RotateBody, response=Secret),
        Endpoint("DELETE", key, at.revoke_key, "openai", "Revoke a key",
                 scope="manage", response=Closed),
    ]  # fmt: skip
