"""Tenants, keys, quotas, prices and usage through the client. Answers are the API's own objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openmaas.client.connection import Connection

Object = dict[str, Any]
Quota = Mapping[str, Any]


class Tenants:
    """What ``client.tenants`` is. ``docs/tenants.md`` has the names of quotas and units.

    Every method raises ``ApiError`` and ``ConnectionFailed`` as the client's own do.
    """

    def __init__(self, http: Connection) -> None:
        self._http = http

    # --- tenants and projects --------------------------------------------------------------

    def list(self) -> Sequence[Object]:
        return _data(self._http.get("/v1/tenants"))

    def create(self, tenant: str, *, weight: float = 1.0, quota: Quota | None = None) -> Object:
        body = {"id": tenant, "weight": weight, "quota": dict(quota or {})}
        return _object(self._http.post("/v1/tenants", body))

    def get(self, tenant: str) -> Object:
        return _object(self._http.get(_path(tenant)))

    def change(
        self, tenant: str, *, weight: float | None = None, quota: Quota | None = None
    ) -> Object:
        """Replaces what is given."""
        body: Object = {}
        if weight is not None:
            body["weight"] = weight
        if quota is not None:
            body["quota"] = dict(quota)
        return _object(self._http.patch(_path(tenant), body))

    def close(self, tenant: str) -> None:
        """Refuses all its keys from now on."""
        self._http.delete(_path(tenant))

    def projects(self, tenant: str) -> Sequence[Object]:
        return _data(self._http.get(_path(tenant, "projects")))

    def create_project(self, tenant: str, project: str, *, quota: Quota | None = None) -> Object:
        body = {"id": project, "quota": dict(quota or {})}
        return _object(self._http.post(_path(tenant, "projects"), body))

    def change_project(self, tenant: str, project: str, *, quota: Quota) -> Object:
        """Replaces its quota."""
        path = _path(tenant, "projects", project)
        return _object(self._http.patch(path, {"quota": dict(quota)}))

    def close_project(self, tenant: str, project: str) -> None:
        self._http.delete(_path(tenant, "projects", project))

    # --- keys --------------------------------------------------------------------------------

    def keys(self, tenant: str) -> Sequence[Object]:
        return _data(self._http.get(_path(tenant, "keys")))

    def create_key(self, tenant: str, name: str, **settings: Any) -> tuple[str, Object]:
        """A new key: its secret, which cannot be had again, and the rest.

        Args:
            settings: ``project``, ``scopes``, ``models``, ``quota``, ``expires_in`` (seconds).
        """
        made = self._http.post(_path(tenant, "keys"), {"name": name, **settings})
        return made["secret"], made["key"]

    def change_key(self, tenant: str, key: str, *, quota: Quota) -> Object:
        """Replaces its quota."""
        return _object(self._http.patch(_path(tenant, "keys", key), {"quota": dict(quota)}))

    def rotate_key(self, tenant: str, key: str, *, overlap: int = 86_400) -> tuple[str, Object]:
        """A new key in place of an old one, which stays good for ``overlap`` seconds."""
        made = self._http.post(_path(tenant, "keys", key, "rotate"), {"overlap": overlap})
        return made["secret"], made["key"]

    def revoke_key(self, tenant: str, key: str) -> None:
        self._http.delete(_path(tenant, "keys", key))

    # --- usage and prices --------------------------------------------------------------------

    def quota(self) -> Sequence[Object]:
        """What this client's own tenant, project and key may use and have used."""
        return _data(self._http.get("/v1/quota"))

    def usage(
        self, tenant: str | None = None, *, by: Sequence[str] = (), **only: str
    ) -> Sequence[Object]:
        """Sums of usage.

        Args:
            tenant: ``None``: over all tenants, which takes an admin's key.
            by: dimensions: day, month, tenant, project, key, model, version, task, outcome.
            only: ``since`` and ``until`` (2026-12-31 or 2026-12), or a dimension's value.
        """
        query = {**only, "by": ",".join(by)} if by else only
        return _data(self._http.get(_usage(tenant), query))

    def rows(self, tenant: str | None = None, **when: str) -> Iterator[Object]:
        """The ledger's rows, page by page."""
        after: dict[str, str] = {}
        while True:
            page = self._http.get(f"{_usage(tenant)}/rows", {**when, **after, "limit": "1000"})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def export(self, file: str | Path, tenant: str | None = None, **when: str) -> None:
        """Writes the ledger's rows to a file whose name ends in ``.csv`` or ``.parquet``."""
        form = Path(file).suffix.removeprefix(".")
        with Path(file).open("wb") as opened:
            for piece in self._http.pieces(f"{_usage(tenant)}/export", {**when, "format": form}):
                opened.write(piece)

    def statement(self, tenant: str, month: str) -> Object:
        """What a tenant owes for a month (2026-12)."""
        return _object(self._http.get(_path(tenant, "statements", month)))

    def prices(self) -> Sequence[Object]:
        return _data(self._http.get("/v1/prices"))

    def set_price(self, model: str, **rates: Any) -> Object:
        """A model's price for a million of each unit: ``input``, ``cached``, ``output``, ``row``,
        ``request``, ``second``."""
        return _object(self._http.post("/v1/prices", {"model": model, "rates": rates}))

    def audit(self, tenant: str | None = None, *, limit: int = 100) -> Sequence[Object]:
        """Who changed what, the newest first."""
        path = "/v1/audit" if tenant is None else _path(tenant, "audit")
        return _data(self._http.get(path, {"limit": str(limit)}))


def _path(tenant: str, *parts: str) -> str:
    return "/v1/tenants/" + "/".join(quote(part, safe="") for part in (tenant, *parts))


def _usage(tenant: str | None) -> str:
    return "/v1/usage" if tenant is None else _path(tenant, "usage")


def _data(answer: Any) -> Sequence[Object]:
    found: Sequence[Object] = answer["data"]
    return found


def _object(answer: Any) -> Object:
    return dict(answer)
