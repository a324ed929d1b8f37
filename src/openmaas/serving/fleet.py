"""All deployments of this gateway: makes what runs equal to what the records want."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import Any, NamedTuple

import msgspec

from openmaas import background
from openmaas.audit import By
from openmaas.config import Limits
from openmaas.errors import Conflict, ModelNotFound, OpenMaaSError
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
    check,
)
from openmaas.registry.records import Records
from openmaas.schema import PUBLIC
from openmaas.serving import unsealing
from openmaas.serving.call import Call
from openmaas.serving.choice import (
    EXPLAINER,
    EXPLAINER_OPTIONS,
    check_shared,
    choose,
    written,
)
from openmaas.serving.deployment import COMING, Deployment
from openmaas.serving.fairness import Order
from openmaas.serving.residency import Residency
from openmaas.serving.rollout import Route
from openmaas.serving.shadow import Comparison, Mirror
from openmaas.telemetry import Telemetry

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
SETTLE_SECONDS = 0.1  # between two looks of somebody who waits for an alias
LOADS = 3  # times of limits.load_seconds after which what is pending is given up
EXPLAINER_NICE = 19  # who asks why may wait for who asks what
STANDBY_SECONDS = 60.0  # for which a version that answers no call any more stays loaded
EXPLAINER_SECONDS = 120.0  # … and one that explains, where nobody asks why
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
        self._active: dict[Name, Deployed] = {}  # … of the serving ones, as they were taken up
        self._coming: dict[Name, Deployment] = {}  # replaces the serving one once it is ready
        self._routes: dict[Model, dict[str, Route]] = {}
        self._models: set[Model] = set()  # of which something is deployed
        self._mirrors: dict[tuple[str, str, str, Shadow], Mirror] = {}
        self._first: set[Deployment] = set()
        # beside those that answer, once asked for: what explains them, and what answers in their
        # place those tenants that have replicas of their own
        self._explaining: dict[Deployment, Deployment] = {}
        self._dedicated: dict[Deployment, dict[str, Deployment]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._unreported: dict[Name, Deployment] = {}
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
        found = []
        for name in sorted(self._serving):
            shared = self._serving[name]
            found += [shared, *self._dedicated.get(shared, {}).values()]
        return found

    def layers(self) -> set[str] | None:
        """Layers of the sandbox that confine every worker that is loaded; None: none is."""
        infos = [
            replica.info
            for one in (*self.everything(), *self._explaining.values())
            for replica in one.replicas
            if replica.info is not None
        ]
        return set.intersection(*(set(info.layers) for info in infos)) if infos else None

    def loading(self) -> bool:
        """Whether something is loaded for the first time that was deployed when this started."""
        first = (one for one in self._first if not one.was_ready and one.state in COMING)
        self._first = set(first)
        return bool(self._first)

    def routes(self, tenant: str, model: str) -> dict[str, Route]:
        """A model's aliases."""
        return self._routes.get((tenant, model), {})

    def comparison(self, alias: Alias) -> Comparison | None:
        """What became of an alias's shadow traffic."""
        if alias.shadow is None:
            return None
        mirror = self._mirrors.get((alias.tenant, alias.model, alias.alias, alias.shadow))
        return Comparison() if mirror is None else mirror.seen

    def copy(self, route: Route, call: Call, deadline: float, *, dedicated: bool = False) -> None:
        """Asks an alias's shadow what a call asks.

        Args:
            dedicated: workers that serve one tenant answer it.
        """
        alias = route.alias
        if alias.shadow is None or dedicated:
            return  # what one tenant's workers alone may see is shown to no others
        name = (alias.tenant, alias.model, alias.alias, alias.shadow)
        shadow = self._serving.get((alias.tenant, alias.model, alias.shadow.version))
        if shadow is not None:
            mirror = self._mirrors.get(name)
            if mirror is None:
                mirror = self._mirrors[name] = Mirror(alias.shadow.share)
            mirror.copy(call, call.request, shadow, deadline)

    def explainer(self, deployment: Deployment) -> Deployment:
        """What says by gradients why a deployment answers as it does: a worker with the same
        artifact, which is loaded when it is asked, takes part in the memory budget, and leaves when
        it is idle."""
        known = self._explaining.get(deployment)
        if known is not None:
            return known
        spec = deployment.spec
        options = {key: spec.options[key] for key in EXPLAINER_OPTIONS if key in spec.options}
        options["batch_max_requests"] = 1  # each is a step of its own, and can be given up
        spec = msgspec.structs.replace(
            spec, runtime=EXPLAINER, options=options, writes=[], nice=EXPLAINER_NICE
        )
        made = self._beside(
            deployment, spec, most=1, idle_seconds=min(self._idle_seconds, EXPLAINER_SECONDS),
            serves=deployment.serves,
        )  # fmt: skip
        made.label = f"{deployment.label} (explained)"
        self._explaining[deployment] = made
        return made

    def dedicated(self, deployment: Deployment, tenant: str) -> Deployment:
        """What answers a tenant alone in place of a deployment that answers all: workers with the
        same artifact and options, which are loaded when the tenant calls, take part in the memory
        budget, and leave when they are idle. A tenant's own model is its alone already."""
        taken_down = deployment.state == "stopping"
        if deployment.tenant != PUBLIC or deployment.serves is not None or taken_down:
            return deployment
        own = self._dedicated.setdefault(deployment, {})
        if tenant not in own:
            own[tenant] = self._beside(
                deployment, deployment.asked, most=deployment.bounds.max,
                idle_seconds=deployment.idle_seconds, serves=tenant,
            )  # fmt: skip
            own[tenant].info = deployment.info
            own[tenant].memory = deployment.memory
            own[tenant].load_seconds = deployment.load_seconds
        return own[tenant]

    def _beside(
        self,
        deployment: Deployment,
        spec: WorkerSpec,
        *,
        most: int,
        idle_seconds: float,
        serves: str | None,
    ) -> Deployment:
        """Another deployment of the same version, which has no row of its own in the records."""

        def changed(one: Deployment) -> None:
            self._count_restarts(one)
            self._note(deployment)

        return Deployment(
            spec,
            tenant=deployment.tenant,
            version=deployment.number,
            created=deployment.created,
            size=deployment.size,
            replicas=Replicas(min=0, max=most),
            idle_seconds=idle_seconds,
            memory=0,
            placement=self._placement,
            residency=self.residency,
            limits=self._limits,
            order=self._order,
            finished=self._count,
            changed=changed,
            serves=serves,
        )

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
                and now.alias.targets != alias.pending.targets
            ):
                raise Conflict(now.alias.detail or f"{alias.label} was changed meanwhile")
            if now.alias.pending is None or time.monotonic() > until:
                return now.alias
            await asyncio.sleep(SETTLE_SECONDS)

    # --- following the records ----------------------------------------------------------------

    async def start(self) -> None:
        """Starts what is wanted and keeps following the records."""
        self.residency.start()
        await self._reconcile()
        self._first = set(self._serving.values())
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Drains and ends every deployment."""
        await background.end(self._task)
        with contextlib.suppress(OpenMaaSError):
            await self._report()  # as it is now it is to be again
        everything = [
            *self._serving.values(), *self._coming.values(), *self._explaining.values(),
            *(one for own in self._dedicated.values() for one in own.values()),
        ]  # fmt: skip
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
            self._expect(aliases)
            self._set_routes([await self._advance(alias) for alias in aliases])
            await self._judge()
            await self._report()

    async def _take_up(self, wanted: dict[Name, Deployed]) -> None:
        for name in self._wanted.keys() - wanted.keys():
            del self._wanted[name]
            self._active.pop(name, None)
            self._retire(self._serving.pop(name, None))
            self._retire(self._coming.pop(name, None))
        for name, want in wanted.items():
            known = self._wanted.get(name)
            if known is None or known.generation != want.generation:
                try:
                    await self._begin(want)
                except ModelNotFound as error:  # its version is gone: the others must go on
                    log.error("%s cannot be served: %s", want.label, error.message)
        for name, new in list(self._coming.items()):
            if new.state == "ready":
                self._retire(self._serving.get(name))
                self._serving[name], self._active[name] = self._coming.pop(name), wanted[name]
            elif new.state == "broken":
                await self._as_before(name, new)
            else:
                new.wake()

    async def _as_before(self, name: Name, failed: Deployment) -> None:
        """What was to replace a deployment cannot be loaded: it stays, in the records too."""
        want, active = self._wanted[name], self._active[name]
        log.error("%s version %d stays as it is: %s", failed.label, name[2], failed.detail)
        serving = self._serving[name]
        seen = msgspec.structs.replace(active, state=serving.state)
        await asyncio.to_thread(self._deployments.restore, want, seen, failed.detail)
        self._wanted[name] = msgspec.structs.replace(active, generation=want.generation)
        self._retire(self._coming.pop(name))
        self._unreported.pop(name, None)  # what failed is not what is there

    def _expect(self, aliases: list[Alias]) -> None:
        """Which deployments must be loaded though nobody calls them yet."""
        awaited = {
            (alias.tenant, alias.model, target.version)
            for alias in aliases
            for target in (alias.pending.targets if alias.pending else ())
        }
        for name, one in self._serving.items():
            one.wanted = name in awaited and name not in self._coming
        for one in self._coming.values():
            one.wanted = True

    async def _advance(self, alias: Alias) -> Alias:
        """What is pending answers once all of it is loaded, or is given up if it cannot be."""
        if alias.pending is None:
            return alias
        ready = True
        for target in alias.pending.targets:
            name = (alias.tenant, alias.model, target.version)
            one = self._coming.get(name) or self._serving.get(name)
            if one is None:
                return alias  # another look at the records will have it
            late = time.time() - alias.changed > self._limits.load_seconds * LOADS
            if one.state == "broken" or (late and one.state != "ready"):
                why = f"version {target.version} cannot be served: {one.detail or one.progress()}"
                log.error("%s stays as it is: %s", alias.label, why)
                await asyncio.to_thread(self._deployments.give_up, alias, why)
                return alias
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
            answering = {one.version for one in alias.targets}
            if alias.pending is not None:
                answering.update(one.version for one in alias.pending.targets)
            if alias.shadow is not None:
                answering.add(alias.shadow.version)
            used.setdefault(model, set()).update(answering)
        self._routes = routes
        self._models = {name[:2] for name in self._serving}
        shadows = {(a.tenant, a.model, a.alias, a.shadow) for a in aliases if a.shadow}
        self._mirrors = {name: one for name, one in self._mirrors.items() if name in shadows}
        for name, one in self._serving.items():
            want = self._wanted[name]
            one.idle_seconds = want.idle_seconds or self._idle_seconds
            one.answers = want.kept or one.number in used.get(name[:2], set())
            if not one.answers:
                one.idle_seconds = min(STANDBY_SECONDS, one.idle_seconds)
            for own in self._dedicated.get(one, {}).values():
                own.idle_seconds = one.idle_seconds

    async def _judge(self) -> None:
        """Takes back what breaks its bounds."""
        for routes in self._routes.values():
            for route in routes.values():
                alias = route.alias
                if alias.pending is not None and alias.pending.targets == alias.previous:
                    continue  # it is on its way back
                why = route.verdict() or self._broken(route)
                if why is None:
                    continue
                log.error("%s is rolled back: %s", alias.label, why)
                name = (alias.tenant, alias.model, alias.alias)
                with contextlib.suppress(ModelNotFound):  # it was removed at this very moment
                    await asyncio.to_thread(
                        self._deployments.roll_back, name, ITSELF, why, alias.generation
                    )

    def _broken(self, route: Route) -> str | None:
        """Why a version that is held to bounds answers nobody at all."""
        alias = route.alias
        if alias.bounds is None or len(alias.targets) == 1:
            return None
        for target in alias.targets:
            one = self._serving.get((alias.tenant, alias.model, target.version))
            if target.version != route.main and one is not None and one.state == "broken":
                return f"version {target.version} is broken: {one.detail}"
        return None

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
                tenant=want.tenant,
                digest=version.digest,
                options=want.options,
                writes=written(want.runtime, want.options),
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
        new.info = await asyncio.to_thread(unsealing.known, want, self._artifacts.private)
        self._wanted[want.name] = want
        if before is not None:
            self._retire(self._coming.get(want.name))
            self._coming[want.name] = new
            new.wanted = True
        else:
            self._serving[want.name], self._active[want.name] = new, want
        # One that slept when a gateway was here before sleeps on.
        if before is not None or new.pinned or want.state != "asleep":
            new.wake()
        else:
            new.defer(want.detail)

    def _retire(self, deployment: Deployment | None) -> None:
        if deployment is None:
            return
        task = asyncio.create_task(deployment.stop(self._limits.drain_seconds))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        self._retire(self._explaining.pop(deployment, None))
        for own in self._dedicated.pop(deployment, {}).values():
            self._retire(own)

    # --- telling ------------------------------------------------------------------------------

    def _note(self, deployment: Deployment) -> None:
        # A deployment that is being replaced says nothing about the one that is wanted.
        name = (deployment.tenant, deployment.model, deployment.number)
        if deployment is (self._coming.get(name) or self._serving.get(name)):
            self._unreported[name] = deployment
        self._count_restarts(deployment)

    def _count_restarts(self, deployment: Deployment) -> None:
        for _ in range(deployment.restarts - deployment.counted_restarts):
            self._telemetry.restarted(deployment.label)
        deployment.counted_restarts = deployment.restarts

    async def _report(self) -> None:
        for name, deployment in list(self._unreported.items()):
            want = self._wanted.get(name)
            if want is not None and (
                deployment is self._coming.get(name) and deployment.state == "ready"
            ):
                continue  # it is, once it answers in place of the old
            if self._unreported.get(name) is deployment:
                del self._unreported[name]
            if want is None:
                continue
            every = [deployment, *self._dedicated.get(deployment, {}).values()]
            seen = msgspec.structs.replace(
                want,
                state="stopped" if deployment.gone else deployment.state,
                detail=deployment.detail,
                gateway_pid=os.getpid(),
                workers=[pid for one in every for pid in one.pids],
                restarts=sum(one.restarts for one in every),
                memory=deployment.memory,
                load_seconds=deployment.load_seconds,
            )
            try:
                seen = await asyncio.to_thread(
                    unsealing.told, seen, deployment.info, self._artifacts.private
                )
                await asyncio.to_thread(self._deployments.report, seen)
            except BaseException:
                self._unreported.setdefault(name, deployment)  # it is still to be told
                raise

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
        if call.route is not None and call.dispatched is not None:
            # What it waited for says nothing of the version that answered it.
            seconds = call.seconds - (call.dispatched - call.started)
            call.route.observe(deployment.number, seconds, code)


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
    kept: bool = False,
) -> Deployed:
    """Writes down that a model's version (default: the newest) is wanted.

    Args:
        live: the model's calls are to go to it; else it answers only those that name it.
        kept: it stays deployed where no alias leads to it.

    Raises:
        ModelNotFound: no such model or version.
        ConfigurationError: no runtime serves its format, or many tenants would share a cache of
            prompts.
        InvalidRequest: fewer replicas at the most than at the least.
    """
    check_shared(tenant, options or {})
    found = records.version(model, version, tenant)
    name, reason = choose(artifacts.manifest(found.digest, tenant), runtime)
    return deployments.deploy(
        found, by, name, reason, options or {}, replicas=replicas, idle_seconds=idle_seconds,
        live=live,
        kept=kept,
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
    tenant, model, alias = name
    check(alias, targets, shadow)
    deployed, aliases = deployments.everything()
    have = {one.version: one for one in deployed if one.name[:2] == (tenant, model)}
    live = [one for one in aliases if (one.tenant, one.model, one.alias) == (tenant, model, LIVE)]
    like = have.get(live[0].main) if live else None
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
