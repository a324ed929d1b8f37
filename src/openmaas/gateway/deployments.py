"""Deployments and aliases: which versions are loaded, and which of them answer."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from openmaas.audit import By
from openmaas.errors import InvalidRequest, ModelNotFound, NotFound, PermissionDenied
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.deployments import LIVE, Alias, Bounds, Replicas, Shadow, Target
from openmaas.registry.records import Records
from openmaas.serving.deployment import Deployment
from openmaas.serving.rollout import Route, Window
from openmaas.serving.shadow import Comparison

NUMBER = re.compile(r"[1-9][0-9]{0,8}\Z")

Wait = Annotated[float, Meta(ge=0, le=600)]  # seconds for versions to be loaded


class DeployBody(Struct, forbid_unknown_fields=True, kw_only=True):
    model: Annotated[str, Meta(min_length=1, max_length=64)]
    version: Annotated[int, Meta(ge=1, le=1 << 31)] | None = None  # null: the newest
    runtime: Annotated[str, Meta(max_length=64)] | None = None  # null: chosen by the format
    options: Annotated[dict[str, Any], Meta(max_length=64)] = {}  # of the runtime
    replicas: Replicas = Replicas()
    idle_seconds: Annotated[float, Meta(gt=0, le=1e7)] | None = None  # null: as the server says
    live: bool = True  # the model's calls are to go to it


class AliasBody(Struct, forbid_unknown_fields=True, kw_only=True):
    targets: Annotated[list[Target], Meta(min_length=1, max_length=16)]
    shadow: Shadow | None = None
    bounds: Bounds | None = None  # null: nothing is taken back by itself
    wait: Wait = 60.0


class RollbackBody(Struct, forbid_unknown_fields=True, kw_only=True):
    wait: Wait = 60.0


class Worker(Struct):
    pid: int | None
    state: str
    detail: str  # why it restarts, with its last words
    memory: int  # resident bytes
    calls: int  # places in use
    restarts: int
    load_seconds: float


class DeploymentView(Struct):
    model: str
    version: int
    tenant: str  # "": everybody's
    serves: str | None  # the one tenant that it answers, of a public model; null: all
    state: str
    detail: str
    progress: str | None  # while callers wait for it
    replicas: Replicas
    idle_seconds: float
    memory: int  # resident bytes of all workers
    expected_memory: int  # of one worker, measured, or guessed before it was ever loaded
    load_seconds: float  # of one worker, the last time
    loads: int  # since the server started
    restarts: int
    running: int  # calls that workers have
    waiting: int
    workers: list[Worker]


class Memory(Struct):
    budget: int  # bytes
    taken: int
    evictions: int  # models that left for others


class DeploymentList(Struct):
    data: list[DeploymentView]
    memory: Memory
    object: Literal["list"] = "list"


class Did(Struct):
    """How a version did lately. Seconds are null until a call was answered."""

    version: int
    calls: int  # of the last 1000
    errors: int
    median_seconds: float | None
    p95_seconds: float | None
    total: int  # calls since it is a target here


class AliasView(Struct):
    model: str
    alias: str
    tenant: str
    targets: list[Target]
    pending: list[Target] | None  # answers once it is loaded
    previous: list[Target] | None  # where a rollback leads
    shadow: Shadow | None
    bounds: Bounds | None
    detail: str
    changed: int
    statistics: list[Did]
    comparison: Comparison | None  # of the shadow's answers


class AliasList(Struct):
    data: list[AliasView]
    object: Literal["list"] = "list"


class Removed(Struct):
    model: str
    removed: bool = True


class Routes:
    """The handlers, over what they show and change."""

    def __init__(self, records: Records, artifacts: ArtifactStore) -> None:
        self._records = records
        self._artifacts = artifacts

    # --- deployments ----------------------------------------------------------------------

    async def list(self, exchange: Exchange) -> None:
        caller, fleet = exchange.caller, exchange.pipeline.fleet
        seen = [
            _deployment(one)
            for one in fleet.everything()
            if caller.tenant in (one.tenant, one.serves) or caller.may("admin")
        ]
        room = fleet.residency
        memory = Memory(room.budget, room.taken(), room.evictions)
        if not caller.may("admin"):  # what others take is not for everybody
            memory = Memory(room.budget, sum(one.memory for one in seen), 0)
        await exchange.respond_json(DeploymentList(seen, memory))

    async def deploy(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), DeployBody)
        pipeline, caller = exchange.pipeline, exchange.caller
        own = body.runtime or body.options or body.replicas != Replicas()
        if own and not caller.may("admin"):  # all tenants' memory, and what runs here
            raise PermissionDenied("runtime, options and replicas take an admin's key to set")
        owner = await pipeline.owner(caller, body.model, pipeline.fleet.in_registry)
        done = await pipeline.fleet.deploy(
            owner,
            body.model,
            By(caller.key),
            version=body.version,
            runtime=body.runtime,
            options=body.options,
            replicas=body.replicas,
            idle_seconds=body.idle_seconds,
            live=body.live,
            kept=not body.live,
        )
        found = pipeline.fleet.find(owner, body.model, str(done.version))
        if found is None:
            raise ModelNotFound(f"{body.model!r} was taken down meanwhile")
        await exchange.respond_json(_deployment(found.deployment))

    async def undeploy(self, exchange: Exchange) -> None:
        model, version = exchange.path["model"], exchange.query("version")
        owner = await self._owner(exchange, model)
        number = None if version is None else _number(version)
        await exchange.pipeline.fleet.undeploy(owner, model, By(exchange.caller.key), number)
        await exchange.respond_json(Removed(model))

    async def remove_version(self, exchange: Exchange) -> None:
        model, number = exchange.path["model"], _number(exchange.path["version"])
        pipeline, caller = exchange.pipeline, exchange.caller
        owner = await pipeline.owner(caller, model, pipeline.fleet.in_registry)
        before = await asyncio.to_thread(self._records.versions, model, owner)
        await asyncio.to_thread(self._records.remove, model, By(caller.key), number, owner)
        versions = await asyncio.to_thread(self._records.versions)
        kept = {(one.tenant, one.digest) for one in versions}
        gone = {one.digest for one in before}
        await asyncio.to_thread(self._artifacts.collect, kept, gone)
        await exchange.respond_json(Removed(model))

    # --- aliases ------------------------------------------------------------------------------

    async def aliases(self, exchange: Exchange) -> None:
        model = exchange.path["model"]
        owner = await self._owner(exchange, model)
        fleet = exchange.pipeline.fleet
        found = fleet.routes(owner, model).values()
        await exchange.respond_json(
            AliasList([_alias(one.alias, one, fleet.comparison(one.alias)) for one in found])
        )

    async def alias(self, exchange: Exchange) -> None:
        model, name = exchange.path["model"], exchange.path["alias"]
        owner = await self._owner(exchange, model)
        fleet = exchange.pipeline.fleet
        route = fleet.routes(owner, model).get(name)
        if route is None:
            raise NotFound(f"no alias {name[:32]!r} of model {model[:64]!r}")
        await exchange.respond_json(_alias(route.alias, route, fleet.comparison(route.alias)))

    async def point(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), AliasBody)
        model, name = exchange.path["model"], exchange.path["alias"]
        owner = await self._owner(exchange, model)
        fleet = exchange.pipeline.fleet
        done = await fleet.point(
            owner,
            model,
            name,
            body.targets,
            By(exchange.caller.key),
            shadow=body.shadow,
            bounds=body.bounds,
            wait=body.wait,
        )
        await self._tell(exchange, owner, done)

    async def roll_back(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body() or b"{}", RollbackBody)
        model, name = exchange.path["model"], exchange.path["alias"]
        owner = await self._owner(exchange, model)
        done = await exchange.pipeline.fleet.roll_back(
            owner, model, name, By(exchange.caller.key), body.wait
        )
        await self._tell(exchange, owner, done)

    async def remove_alias(self, exchange: Exchange) -> None:
        model, name = exchange.path["model"], exchange.path["alias"]
        owner = await self._owner(exchange, model)
        await exchange.pipeline.fleet.remove_alias(owner, model, name, By(exchange.caller.key))
        await exchange.respond_json(Removed(f"{model}@{name}"))

    async def _tell(self, exchange: Exchange, owner: str, done: Alias) -> None:
        fleet = exchange.pipeline.fleet
        route = fleet.routes(owner, done.model).get(done.alias)
        await exchange.respond_json(_alias(done, route, fleet.comparison(done)))

    async def _owner(self, exchange: Exchange, model: str) -> str:
        """Whose deployed model a caller means.

        Raises:
            ModelNotFound: there is none that it sees.
            PermissionDenied: it is public, and the caller no administrator.
        """
        pipeline, caller = exchange.pipeline, exchange.caller
        owner = await pipeline.owner(caller, model, pipeline.fleet.is_deployed)
        if not await pipeline.fleet.is_deployed(owner, model):
            raise ModelNotFound(f"no model {model[:256]!r} is deployed here", param="model")
        return owner


def _number(text: str) -> int:
    if NUMBER.match(text) is None:
        raise InvalidRequest("a version is a number: 1, 2, 3 …", param="version")
    return int(text)


def _deployment(one: Deployment) -> DeploymentView:
    workers = [
        Worker(
            replica.pid,
            replica.state,
            replica.detail,
            replica.memory(),
            replica.taken,
            replica.restarts,
            round(replica.load_seconds, 3),
        )
        for replica in one.replicas
    ]
    return DeploymentView(
        one.model,
        one.number,
        one.tenant,
        one.serves,
        one.state,
        one.detail,
        None if one.state in ("ready", "asleep", "broken", "stopping") else one.progress(),
        one.bounds,
        one.idle_seconds,
        one.resident(),
        one.footprint,
        round(one.load_seconds, 3),
        one.loads,
        one.restarts,
        len(one.calls) - one.waiting,
        one.waiting,
        workers,
    )


def _did(version: int, window: Window) -> Did:
    seen = window.seen()
    return Did(
        version,
        seen.calls,
        seen.errors,
        None if math.isnan(seen.median_seconds) else round(seen.median_seconds, 6),
        None if math.isnan(seen.slowest_seconds) else round(seen.slowest_seconds, 6),
        window.total,
    )


def _alias(alias: Alias, route: Route | None, comparison: Comparison | None) -> AliasView:
    windows = {} if route is None else route.windows
    return AliasView(
        alias.model,
        alias.alias,
        alias.tenant,
        alias.targets,
        None if alias.pending is None else alias.pending.targets,
        alias.previous,
        alias.shadow,
        alias.bounds,
        alias.detail,
        alias.changed,
        [_did(version, window) for version, window in sorted(windows.items())],
        None if comparison is None else msgspec.structs.replace(comparison),
    )


def endpoints(records: Records, artifacts: ArtifactStore) -> list[Endpoint]:
    """``/v1/deployments``, and what lies below a model's aliases."""
    at = Routes(records, artifacts)
    every, one = "/v1/models/{model}/aliases", "/v1/models/{model}/aliases/{alias}"
    return [
        Endpoint("GET", "/v1/deployments", at.list, "openai",
                 "What is deployed, what it takes and how it does", scope="manage",
                 response=DeploymentList),
        Endpoint("POST", "/v1/deployments", at.deploy, "openai", "Have a version served",
                 scope="manage", body=DeployBody, response=DeploymentView),
        Endpoint("DELETE", "/v1/deployments/{model}", at.undeploy, "openai",
                 "Take a model, or a version of it, down", scope="manage", response=Removed,
                 query=("version",)),
        Endpoint("DELETE", "/v1/models/{model}/versions/{version}", at.remove_version, "openai",
                 "Remove a version", scope="manage", response=Removed),
        Endpoint("GET", every, at.aliases, "openai", "A model's aliases, and how each version does",
                 scope="manage", response=AliasList),
        Endpoint("GET", one, at.alias, "openai", "One alias", scope="manage", response=AliasView),
        Endpoint("PUT", one, at.point, "openai",
                 f"Have an alias ({LIVE!r}: the model's own name) lead to versions, by weight",
                 scope="manage", body=AliasBody, response=AliasView),
        Endpoint("POST", f"{one}/rollback", at.roll_back, "openai",
                 "Have an alias lead where it led before", scope="manage", body=RollbackBody,
                 response=AliasView),
        Endpoint("DELETE", one, at.remove_alias, "openai", "Remove an alias", scope="manage",
                 response=Removed),
    ]  # fmt: skip
