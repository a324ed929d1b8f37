"""Deployments, aliases and rollouts through the client. Answers are the API's own objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from openmaas.client.connection import Connection

Object = dict[str, Any]
LIVE = "live"
WAIT_SECONDS = 60.0


class Deployments:
    """What ``client.deployments`` is. A model's own name means its alias ``live``.

    Every method raises ``ApiError`` and ``ConnectionFailed`` as the client's own do.
    """

    def __init__(self, http: Connection) -> None:
        self._http = http

    def list(self) -> Sequence[Object]:
        """What is deployed: state, memory, replicas, calls."""
        return _data(self._http.get("/v1/deployments"))

    def memory(self) -> Object:
        """The budget, what of it is taken (bytes), and how many models left for others."""
        return dict(self._http.get("/v1/deployments")["memory"])

    def deploy(self, model: str, version: int | None = None, **settings: Any) -> Object:
        """Has a version (default: the newest) served.

        Args:
            settings: ``runtime``, ``options``, ``replicas`` ({"min": 0, "max": 1}),
                ``idle_seconds``, ``live`` (False: the model's traffic stays where it is).
        """
        return dict(
            self._http.post("/v1/deployments", {"model": model, "version": version, **settings})
        )

    def undeploy(self, model: str, version: int | None = None) -> None:
        """Takes a version, or all of a model, down; calls in flight finish."""
        query = "" if version is None else "?" + urlencode({"version": version})
        self._http.delete(f"/v1/deployments/{quote(model, safe='')}{query}")

    def remove_version(self, model: str, version: int) -> None:
        """Forgets a version that is not deployed."""
        self._http.delete(f"/v1/models/{quote(model, safe='')}/versions/{version}")

    # --- aliases -------------------------------------------------------------------------------

    def aliases(self, model: str) -> Sequence[Object]:
        """Where each leads, and how each version does there."""
        return _data(self._http.get(_path(model)))

    def alias(self, model: str, alias: str = LIVE) -> Object:
        return dict(self._http.get(_path(model, alias)))

    def point(
        self,
        model: str,
        weights: Mapping[int, float],
        *,
        alias: str = LIVE,
        shadow: Mapping[str, float] | None = None,
        bounds: Mapping[str, float | None] | None = None,
        wait: float = WAIT_SECONDS,
    ) -> Object:
        """Has an alias lead to versions, once they are loaded.

        Args:
            weights: percent of the calls by version, 100 in all.
            shadow: {"version": 3, "share": 1.0}: gets copies of calls, whose answers are compared.
            bounds: {"errors": 0.05, "latency": 2.0, "calls": 50}: beyond these share of failed
                calls and times of the main version's 95th percentile it is rolled back by itself.
            wait: seconds for that; 0 returns at once.
        """
        targets = [{"version": number, "weight": weight} for number, weight in weights.items()]
        body = {"targets": targets, "shadow": shadow, "bounds": bounds, "wait": wait}
        return dict(self._http.put(_path(model, alias), body))

    def promote(self, model: str, version: int, *, alias: str = LIVE) -> Object:
        """All of an alias's traffic goes to a version, once it is loaded."""
        return self.point(model, {version: 100}, alias=alias)

    def roll_back(self, model: str, *, alias: str = LIVE, wait: float = WAIT_SECONDS) -> Object:
        """An alias leads where it led before."""
        return dict(self._http.post(_path(model, alias) + "/rollback", {"wait": wait}))

    def remove_alias(self, model: str, alias: str) -> None:
        self._http.delete(_path(model, alias))


def _path(model: str, alias: str | None = None) -> str:
    every = f"/v1/models/{quote(model, safe='')}/aliases"
    return every if alias is None else f"{every}/{quote(alias, safe='')}"


def _data(answer: Any) -> Sequence[Object]:
    return [dict(one) for one in answer["data"]]
