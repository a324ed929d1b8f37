"""Policies of privacy through the client. Answers are the API's own objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def _path(tenant: str, *parts: str) -> str:
    return "/v1/tenants/" + "/".join(quote(part, safe="") for part in (tenant, *parts))
