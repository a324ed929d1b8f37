"""All deployments of this gateway: makes what runs equal to what the records want."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import Any, NamedTuple

import msgspec

from openmaas.audit import By
from openmaas.config import Limits
from openmaas.errors import Conflict, ModelNotFound, OpenMaaSError
from openmaas.inference import ModelInfo
from openmaas.placement.base import Placement, WorkerSpec
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.deployments import (
    LIVE,
    Alias,
    Bounds,
    Deployed,
    Deployments,
    Replicas,
    Shadow,
    Target,
)
from openmaas.registry.records import Records
from openmaas.schema import PUBLIC
from openmaas.serving.call import Call
from openmaas.serving.choice import choose
from openmaas.serving.deployment import Deployment
from openmaas.serving.fairness import Order
from openmaas.serving.residency import Residency
from openmaas.serving.rollout import Route
from openmaas.serving.shadow import Comparison, Mirror
from openmaas.telemetry import Telemetry

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
STANDBY_SECONDS = 60.0  # for which a version that answers no call any more stays loaded
ITSELF = By("openmaas serve")

Model = tuple[str, str]  # whose, and which
Name = tuple[str, str, int]  # … and which version


class Found(NamedTuple):
    """Who answers a call, and the alias that chose it."""

    deployment: Deployment
    route: Route | None


class Fleet:
    """Deployments by owner, model and version, and the aliases that lead to them. The records are
    the wish, this is the reality.

    A tenant sees its own models and the public ones; its own come first where names meet.
    """

    def __init__(
        self,
        records: Records,
        deployments: Deployments,
        artifacts: ArtifactStore,
        placement: Placement,
        residency: Residency,
        limits: Limits,
        telemetry: Telemetry,
        *,
        order: Order = "tokens",
        idle_seconds: float = 900.0,
    ) -> None:
        self.residency = residency
        self._records = records
        self._deployments = deployments
        self._artifacts = artifacts
        self._placement = placement
        self._limits = limits
        self._telemetry = telemetry
        self._order: Order = order
        self._idle_seconds = idle_seconds
        self._serving: dict[Name, Deployment] = {}  # answers requests
        self._wanted: dict[Name, Deployed] = {}  # as of the last look at the records
        self._coming: dict[Name, Deployment] = {}  # replaces the serving one once it is ready
        self._routes: dict[Model, dict[str, Route]] = {}
        self._models: set[Model] = set()  # of which something is deployed
        self._mirrors: dict[tuple[str, str, str, Shadow], Mirror] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._unreported: dict[Name, Deployment] = {}
        self._restarts: dict[Name, int] = {}  # that telemetry was told of
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    # --- looking up ------------------------------------------------------------------------

    def find(
        self, tenant: str, model: str, which: str | None = None, key: str | None = None
    ) -> Found | None:
        """Who answers a tenant's call of a model.

        Args:
            which: a version or an alias; None: ``live``.
            key: see ``Route.choose``.
        """
        owner = tenant if (tenant, model) in self._models else PUBLIC
        if which is not None and which.isdecimal() and which.isascii() and len(which) < 12:
            deployment = self._serving.get((owner, model, int(which)))
            return None if deployment is None else Found(deployment, None)
        routes = self._routes.get((owner, model))
        route = None if routes is None else routes.get(LIVE if which is None else which)
        if route is None:
            return None
        deployment = self._serving.get((owner, model, route.choose(key)))
        if deployment is None:
            return None
        return Found(deployment, route)

    def main(self, tenant: str, model: str) -> Deployment | None:
        """The version of a model that most calls go to."""
        owner = tenant if (tenant, model) in self._models else PUBLIC
        routes = self._routes.get((owner, model))
        if routes is None or LIVE not in routes:
            return None
        return self._serving.get((owner, model, routes[LIVE].main))

    def seen_by(self, tenant: str) -> list[Deployment]:
        """What a tenant may call, by name; of each model what ``main`` says."""
        names = {model for owner, model in self._routes if owner in (tenant, PUBLIC)}
        found = (self.main(tenant, name) for name in sorted(names))
        return [one for one in found if one is not None]

    def everything(self) -> list[Deployment]:
        return [self._serving[name] for name in sorted(self._serving)]

    def routes(self, tenant: str, model: str) -> dict[str, Route]:
        """A model's aliases."""
        return self._routes.get((tenant, model), {})

    def comparison(self, alias: Alias) -> Comparison | None:
        """What became of an alias's shadow traffic."""
        if alias.shadow is None:
            return None
        mirror = self._mirrors.get((alias.tenant, alias.model, alias.alias, alias.shadow))
        return Comparison() if mirror is None else mirror.seen

    def copy(self, route: Route, call: Call, deadline: float) -> None:
        """Asks an alias's shadow what a call asks."""
        alias = route.alias
        if alias.shadow is None:
            return
        name = (alias.tenant, alias.model, alias.alias, alias.shadow)
        shadow = self._serving.get((alias.tenant, alias.model, alias.shadow.version))
        if shadow is not None:
            mirror = self._mirrors.get(name)
            if mirror is None:
                mirror = self._mirrors[name] = Mirror(alias.shadow.share)
            mirror.copy(call, call.request, shadow, deadline)

    # --- changing ----------------------------------------------------------------------------

    async def deploy(self, tenant: str, model: str, by: By, **how: Any) -> Deployed:
        """See the function ``deploy``; this gateway takes it up at once."""
        done = await asyncio.to_thread(
            deploy, self._records, self._deployments, self._artifacts, model, by, tenant=tenant,
            **how,
        )  # fmt: skip
        await self._reconcile()
        return done

    async def undeploy(self, tenant: str, model: str, by: By, version: int | None = None) -> None:
        """Takes a model, or a version of it, down; requests in flight finish.

        Raises:
            ModelNotFound: it is not deployed.
            Conflict: an alias leads to that version.
        """
        await asyncio.to_thread(self._deployments.undeploy, model, by, tenant, version)
        await self._reconcile()

    async def point(
        self,
        tenant: str,
        model: str,
        alias: str,
        targets: list[Target],
        by: By,
        *,
        shadow: Shadow | None = None,
        bounds: Bounds | None = None,
        wait: float = 0.0,
    ) -> Alias:
        """Has an alias lead to versions, which are deployed if they are not yet.

        Args:
            wait: seconds for them to be loaded.

        Raises:
            InvalidRequest, ModelNotFound: see ``Deployments.point``.
            Conflict: a version cannot be loaded; the alias is as it was.
        """
        done = await asyncio.to_thread(
            point, self._records, self._deployments, self._artifacts, (tenant, model, alias),
            targets, by, shadow=shadow, bounds=bounds,
        )  # fmt: skip
        return await self._settled(done, wait)

    async def roll_back(
        self, tenant: str, model: str, alias: str, by: By, wait: float = 0.0
    ) -> Alias:
        """
        Raises:
            ModelNotFound, Conflict: see ``Deployments.roll_back``.
        """
        name = (tenant, model, alias)
        return await self._settled(
            await asyncio.to_thread(self._deployments.roll_back, name, by), wait
        )

    async def remove_alias(self, tenant: str, model: str, alias: str, by: By) -> None:
        """
        Raises:
            ModelNotFound, Conflict: see ``Deployments.remove_alias``.
        """
        await asyncio.to_thread(self._deployments.remove_alias, (tenant, model, alias), by)
        await self._reconcile()

    async def load(self, tenant: str, model: str, by: By) -> None:
        """Deploys the newest version of a model and returns once it answers.

        Raises:
            ModelNotFound: no such model in the registry.
            Overloaded: it could not be started.
        """
        if (tenant, model) not in self._routes:
            await self.deploy(tenant, model, by)
        found = self.find(tenant, model)
        if found is None:
            raise ModelNotFound(f"no model {model[:256]!r} is deployed here", param="model")
        await found.deployment.ready(time.monotonic() + self._limits.load_seconds)

    async def in_registry(self, tenant: str, model: str) -> bool:
        """Whether there is such a model, deployed or not."""
        return bool(await asyncio.to_thread(self._records.versions, model, tenant))

    async def is_deployed(self, tenant: str, model: str) -> bool:
        return any(name[:2] == (tenant, model) for name in self._serving)

    async def _settled(self, alias: Alias, wait: float) -> Alias:
        until = time.monotonic() + wait
        while True:
            await self._reconcile()
            now = self.routes(alias.tenant, alias.model).get(alias.alias)
            if now is None:
                raise ModelNotFound(f"{alias.label} is gone")
            if (
                now.alias.pending is None
                and alias.pending is not None
                and (now.alias.targets != alias.pending)
            ):
                raise Conflict(now.alias.detail or f"{alias.label} was changed meanwhile")
            if now.alias.pending is None or time.monotonic() > until:
                return now.alias
            await asyncio.sleep(0.05)

    # --- following the records ----------------------------------------------------------------

    async def start(self) -> None:
        """Starts what is wanted and keeps following the records."""
        self.residency.start()
        await self._reconcile()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Drains and ends every deployment."""
        if self._task is not None:
            self._task.cancel()
        with contextlib.suppress(OpenMaaSError):
            await self._report()  # as it is now it is to be again
        everything = [*self._serving.values(), *self._coming.values()]
        stops = [one.stop(self._limits.drain_seconds) for one in everything]
        await asyncio.gather(*stops, *self._leaving)
        await self.residency.stop()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._reconcile()
            except OpenMaaSError as error:
                log.warning("cannot follow the records (%s); trying again", error.message)
            except Exception:
                log.exception("cannot follow the records; trying again")

    async def _reconcile(self) -> None:
        async with self._looking:
            deployed, aliases = await asyncio.to_thread(self._deployments.everything)
            await self._take_up({one.name: one for one in deployed})
            self._set_routes([await self._advance(alias) for alias in aliases])
            await self._judge()
            await self._report()

    async def _take_up(self, wanted: dict[Name, Deployed]) -> None:
        for name in self._wanted.keys() - wanted.keys():
            del self._wanted[name]
            self._retire(self._serving.pop(name, None))
            self._retire(self._coming.pop(name, None))
        for name, want in wanted.items():
            known = self._wanted.get(name)
            if known is None or known.generation != want.generation:
                await self._begin(want)
        for name, new in list(self._coming.items()):
            if new.state == "ready":
                self._retire(self._serving.get(name))
                self._serving[name] = self._coming.pop(name)

    async def _advance(self, alias: Alias) -> Alias:
        """What is pending answers once all of it is loaded, or is given up if it cannot be."""
        if alias.pending is None:
            return alias
        ready = True
        for target in alias.pending:
            name = (alias.tenant, alias.model, target.version)
            one = self._coming.get(name) or self._serving.get(name)
            if one is None:
                return alias  # another look at the records will have it
            if one.state == "broken":
                why = f"version {target.version} cannot be served: {one.detail}"
                log.error("%s stays as it is: %s", alias.label, why)
                await asyncio.to_thread(self._deployments.give_up, alias, why)
                return alias
            one.wanted = one.state != "ready"
            one.wake()
            ready = ready and one.state == "ready" and name not in self._coming
        if not ready:
            return alias
        done = await asyncio.to_thread(self._deployments.settle, alias)
        if done is None:
            return alias
        log.info("%s now leads to %s", alias.label, _told(done.targets))
        return done

    def _set_routes(self, aliases: list[Alias]) -> None:
        routes: dict[Model, dict[str, Route]] = {}
        used: dict[Model, set[int]] = {}
        for alias in aliases:
            model = (alias.tenant, alias.model)
            before = self._routes.get(model, {}).get(alias.alias)
            same = before is not None and before.alias.generation == alias.generation
            route = before if same and before is not None else Route(alias, before)
            routes.setdefault(model, {})[alias.alias] = route
            answering = {one.version for one in (*alias.targets, *(alias.pending or ()))}
            if alias.shadow is not None:
                answering.add(alias.shadow.version)
            used.setdefault(model, set()).update(answering)
        self._routes = routes
        self._models = {name[:2] for name in self._serving}
        for name, one in self._serving.items():
            one.idle_seconds = self._wanted[name].idle_seconds or self._idle_seconds
            if one.number not in used.get(name[:2], set()):
                one.idle_seconds = min(STANDBY_SECONDS, one.idle_seconds)

    async def _judge(self) -> None:
        """Takes back what breaks its bounds."""
        for routes in self._routes.values():
            for route in routes.values():
                why = route.verdict() if route.alias.pending is None else None
                if why is None:
                    continue
                alias = route.alias
                log.error("%s is rolled back: %s", alias.label, why)
                name = (alias.tenant, alias.model, alias.alias)
                await asyncio.to_thread(self._deployments.roll_back, name, ITSELF, why)

    async def _begin(self, want: Deployed) -> None:
        version = await asyncio.to_thread(
            self._records.version, want.model, want.version, want.tenant
        )
        before = self._serving.get(want.name)
        new = Deployment(
            WorkerSpec(
                deployment=want.model,
                runtime=want.runtime,
                artifacts=str(self._artifacts.root),
                digest=version.digest,
                options=want.options,
                load_seconds=self._limits.load_seconds,
            ),
            tenant=want.tenant,
            version=want.version,
            created=version.created,
            size=version.size,
            replicas=Replicas(min=want.min_replicas, max=want.max_replicas),
            idle_seconds=want.idle_seconds or self._idle_seconds,
            memory=want.memory,
            placement=self._placement,
            residency=self.residency,
            limits=self._limits,
            order=self._order,
            finished=self._count,
            changed=self._note,
        )
        new.load_seconds = want.load_seconds
        with contextlib.suppress(msgspec.ValidationError):  # another release wrote it
            new.info = msgspec.convert(want.info, ModelInfo) if want.info else None
        self._wanted[want.name] = want
        if before is not None:
            self._retire(self._coming.get(want.name))
            self._coming[want.name] = new
            new.wanted = True
        else:
            self._serving[want.name] = new
        # One that slept when a gateway was here before sleeps on.
        if before is not None or new.pinned or want.state != "asleep":
            new.wake()
        else:
            new.defer(want.detail)

    def _retire(self, deployment: Deployment | None) -> None:
        if deployment is not None:
            task = asyncio.create_task(deployment.stop(self._limits.drain_seconds))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    # --- telling ------------------------------------------------------------------------------

    def _note(self, deployment: Deployment) -> None:
        # A deployment that is being replaced says nothing about the one that is wanted.
        name = (deployment.tenant, deployment.model, deployment.number)
        if deployment is (self._coming.get(name) or self._serving.get(name)):
            self._unreported[name] = deployment
        if deployment.state == "ready":
            deployment.wanted = False
        for _ in range(deployment.restarts - self._restarts.get(name, 0)):
            self._telemetry.restarted(deployment.label)
        self._restarts[name] = deployment.restarts

    async def _report(self) -> None:
        noted, self._unreported = self._unreported, {}
        for name, deployment in noted.items():
            want = self._wanted.get(name)
            if want is None:
                continue
            if deployment is self._coming.get(name) and deployment.state == "ready":
                self._unreported[name] = deployment  # it is, once it answers in place of the old
                continue
            seen = msgspec.structs.replace(
                want,
                state="stopped" if deployment.gone else deployment.state,
                detail=deployment.detail,
                gateway_pid=os.getpid(),
                workers=[one.pid for one in deployment.replicas if one.pid is not None],
                restarts=deployment.restarts,
                memory=deployment.memory,
                load_seconds=deployment.load_seconds,
                info=msgspec.to_builtins(deployment.info),
            )
            await asyncio.to_thread(self._deployments.report, seen)

    def _count(self, deployment: Deployment, call: Call, error: OpenMaaSError | None) -> None:
        code = None if error is None else error.code
        self._telemetry.finished(
            deployment.label,
            code or "ok",
            started=call.started,
            first_event=call.first_event,
            tokens=(call.usage.input_tokens, call.usage.output_tokens),
            rows=call.usage.rows,
        )
        for route in self._routes.get((deployment.tenant, deployment.model), {}).values():
            route.observe(deployment.number, call.seconds, code)


def _told(targets: list[Target]) -> str:
    return ", ".join(f"version {one.version} ({one.weight:g} %)" for one in targets)


def deploy(
    records: Records,
    deployments: Deployments,
    artifacts: ArtifactStore,
    model: str,
    by: By,
    *,
    tenant: str = PUBLIC,
    version: int | None = None,
    runtime: str | None = None,
    options: dict[str, Any] | None = None,
    replicas: Replicas | None = None,
    idle_seconds: float | None = None,
    live: bool = True,
) -> Deployed:
    """Writes down that a model's version (default: the newest) is wanted.

    Args:
        live: the model's calls are to go to it; else it answers only those that name it.

    Raises:
        ModelNotFound: no such model or version.
        ConfigurationError: no runtime serves its format.
        InvalidRequest: fewer replicas at the most than at the least.
    """
    found = records.version(model, version, tenant)
    name, reason = choose(artifacts.manifest(found.digest), runtime)
    return deployments.deploy(
        found, by, name, reason, options or {}, replicas=replicas, idle_seconds=idle_seconds,
        live=live,
    )  # fmt: skip


def point(
    records: Records,
    deployments: Deployments,
    artifacts: ArtifactStore,
    name: tuple[str, str, str],
    targets: list[Target],
    by: By,
    *,
    shadow: Shadow | None = None,
    bounds: Bounds | None = None,
) -> Alias:
    """Writes down where an alias (tenant, model, alias) is to lead; versions that are not deployed
    are, as the main one of ``live`` is.

    Raises:
        InvalidRequest, ModelNotFound: see ``Deployments.point``.
        ConfigurationError: no runtime serves a version's format.
    """
    tenant, model, _ = name
    have = {one.version: one for one in deployments.all() if one.name[:2] == (tenant, model)}
    live = {one.alias: one for one in deployments.aliases(model, tenant)}.get(LIVE)
    like = have.get(live.main) if live is not None else None
    versions = [one.version for one in targets] + ([shadow.version] if shadow else [])
    for number in versions:
        if number in have:
            continue
        how: dict[str, Any] = {}
        if like is not None:
            how = {
                "runtime": like.runtime,
                "options": like.options,
                "replicas": Replicas(min=like.min_replicas, max=like.max_replicas),
                "idle_seconds": like.idle_seconds,
            }
        deploy(
            records, deployments, artifacts, model, by, tenant=tenant, version=number,
            live=False, **how,
        )  # fmt: skip
    return deployments.point(name, targets, by, shadow=shadow, bounds=bounds)
