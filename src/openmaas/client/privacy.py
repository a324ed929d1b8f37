"""Privacy through the client: policies, what is held, erasure. Answers are the API's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openmaas.client.connection import Connection

Object = dict[str, Any]


class Privacy:
    """What ``client.privacy`` is; ``docs/privacy.md`` has what a policy says.

    Every method raises ``ApiError`` and ``ConnectionFailed`` as the client's own do.
    """

    def __init__(self, http: Connection) -> None:
        self._http = http

    def policy(self, tenant: str) -> Object:
        """What is said of the tenant's privacy; what is not said is off."""
        return dict(self._http.get(_path(tenant, "privacy")))

    def set_policy(self, tenant: str, policy: Mapping[str, Any]) -> Object:
        """Replaces all of it.

        Args:
            policy: ``redaction``, ``retain_days``, ``withdraw``, ``dedicated``.
        """
        return dict(self._http.put(_path(tenant, "privacy"), dict(policy)))

    def set_key(self, tenant: str, key: str, redaction: Mapping[str, Any] | None) -> Object:
        """What holds for a key instead of its tenant's ``redaction``; ``None``: nothing does."""
        path = _path(tenant, "keys", key, "redaction")
        return dict(self._http.put(path, None if redaction is None else dict(redaction)))

    def redact(
        self, texts: str | Sequence[str], policy: Mapping[str, Any] | None = None
    ) -> list[Object]:
        """Of each text the entities that are found, and what a model would see of it.

        Args:
            policy: a redaction policy to try; ``None``: the key's own.
        """
        body: Object = {"texts": [texts] if isinstance(texts, str) else list(texts)}
        if policy is not None:
            body["policy"] = dict(policy)
        found: list[Object] = self._http.post("/v1/redact", body)["data"]
        return found

    # --- what is held, kept and erased ------------------------------------------------------------

    def report(self, tenant: str) -> Object:
        """What is held of a tenant: where, why, until when, sealed with which key."""
        return dict(self._http.get(_path(tenant, "privacy", "report")))

    def export(self, tenant: str, file: str | Path) -> None:
        """Writes everything that is held of a tenant, unsealed, as a tar that only its user may
        read.

        Raises:
            FileExistsError: there is such a file.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(file, flags, 0o600), "wb") as opened:
            opened.writelines(self._http.pieces(_path(tenant, "export"), {}))

    def retained(self, tenant: str, *, day: str | None = None) -> Iterator[Object]:
        """Exchanges that a tenant has kept, the oldest first, without what they say.

        Args:
            day: only one's: 2026-12-31.
        """
        query = {"limit": "1000"} if day is None else {"limit": "1000", "day": day}
        while True:
            page = self._http.get(_path(tenant, "retained"), query)
            yield from page["data"]
            if not page["has_more"]:
                return
            query["after"] = page["last_id"]

    def exchange(self, tenant: str, request: str) -> Object:
        """One of them: ``sent`` and ``answered``."""
        return dict(self._http.get(_path(tenant, "retained", request)))

    def remove_retained(self, tenant: str, request: str | None = None) -> None:
        """Removes one of them, or all."""
        one = () if request is None else (request,)
        self._http.delete(_path(tenant, "retained", *one))

    def erase(self, tenant: str, *, confirm: str) -> Object:
        """Begins to erase all of a tenant. Its keys are no good from then on: the answer's ``id``
        is what ``erasure`` takes, with any key or none.

        Args:
            confirm: the tenant's name once more: there is no way back.
        """
        return dict(self._http.post(_path(tenant, "erase"), {"confirm": confirm}))

    def erase_dataset(self, dataset: str, *, confirm: str) -> Object:
        """Begins to erase one of the own tenant's data sets, with proof.

        Args:
            confirm: its id once more.
        """
        path = f"/v1/datasets/{quote(dataset, safe='')}/erase"
        return dict(self._http.post(path, {"confirm": confirm}))

    def erasure(self, id: str) -> Object:
        """How far an erasure is; ``record`` is signed when its ``state`` is ``done``."""
        return dict(self._http.get(f"/v1/erasures/{quote(id, safe='')}"))

    def erasures(self, tenant: str) -> list[Object]:
        """What was erased of a tenant, the oldest first."""
        found: list[Object] = self._http.get(_path(tenant, "erasures"))["data"]
        return found


def _path(tenant: str, *parts: str) -> str:
    return "/v1/tenants/" + "/".join(quote(part, safe="") for part in (tenant, *parts))
