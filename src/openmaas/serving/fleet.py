"""All deployments of this gateway: makes what runs equal to what the records want."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

import msgspec

from openmaas.audit import By
from openmaas.config import Limits
from openmaas.errors import OpenMaaSError
from openmaas.placement.base import Placement, WorkerSpec
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.records import Deployed, Records
from openmaas.schema import PUBLIC
from openmaas.serving.call import Call
from openmaas.serving.choice import choose
from openmaas.serving.deployment import Deployment
from openmaas.serving.fairness import Order
from openmaas.telemetry import Telemetry

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5

Name = tuple[str, str]  # whose model, and which


class Fleet:
    """Deployments by owner and model. The records are the wish, this is the reality.

    A tenant sees its own models and the public ones; its own come first where names meet.
    """

    def __init__(
        self,
        records: Records,
        artifacts: ArtifactStore,
        placement: Placement,
        limits: Limits,
        telemetry: Telemetry,
        order: Order = "tokens",
    ) -> None:
        self._records = records
        self._artifacts = artifacts
        self._placement = placement
        self._limits = limits
        self._telemetry = telemetry
        self._order: Order = order
        self._serving: dict[Name, Deployment] = {}  # answers requests
        self._wanted: dict[Name, Deployed] = {}  # as of the last look at the records
        self._coming: dict[Name, Deployment] = {}  # replaces the serving one once it is ready
        self._leaving: set[asyncio.Task[None]] = set()
        self._unreported: dict[Name, Deployment] = {}
        self._task: asyncio.Task[None] | None = None

    # --- looking up ------------------------------------------------------------------------

    def find(self, tenant: str, model: str, version: str | None = None) -> Deployment | None:
        """The deployment that answers a tenant for a model, if it is of that version (when
        given)."""
        deployment = self._serving.get((tenant, model)) or self._serving.get((PUBLIC, model))
        if deployment is None or (version is not None and version != deployment.version):
            return None
        return deployment

    def seen_by(self, tenant: str) -> list[Deployment]:
        """What a tenant may call, by name."""
        names = {model for owner, model in self._serving if owner in (tenant, PUBLIC)}
        found = (self.find(tenant, name) for name in sorted(names))
        return [one for one in found if one is not None]

    def everything(self) -> list[Deployment]:
        return [self._serving[name] for name in sorted(self._serving)]

    # --- changing ----------------------------------------------------------------------------

    async def load(self, tenant: str, model: str, by: By) -> None:
        """Deploys the newest version of a model and returns once it answers.

        Raises:
            ModelNotFound: no such model in the registry.
            Overloaded: it could not be started.
        """
        if (tenant, model) not in self._serving:
            await asyncio.to_thread(
                deploy, self._records, self._artifacts, model, by, tenant=tenant
            )
            await self._reconcile()
        serving = self._serving[tenant, model]
        await serving.ready(time.monotonic() + self._limits.load_seconds)

    async def unload(self, tenant: str, model: str, by: By) -> None:
        """Takes a model down; requests in flight finish.

        Raises:
            ModelNotFound: it is not deployed.
        """
        await asyncio.to_thread(self._records.undeploy, model, by, tenant)
        await self._reconcile()

    async def in_registry(self, tenant: str, model: str) -> bool:
        """Whether there is such a model, deployed or not."""
        return bool(await asyncio.to_thread(self._records.versions, model, tenant))

    async def is_deployed(self, tenant: str, model: str) -> bool:
        return (tenant, model) in self._serving

    async def start(self) -> None:
        """Starts what is wanted and keeps following the records."""
        await self._reconcile()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Drains and ends every deployment."""
        if self._task is not None:
            self._task.cancel()
        everything = [*self._serving.values(), *self._coming.values()]
        stops = [one.stop(self._limits.drain_seconds) for one in everything]
        await asyncio.gather(*stops, *self._leaving)
        await self._report()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._reconcile()
            except Exception:
                log.exception("cannot follow the records; trying again")

    async def _reconcile(self) -> None:
        deployed = await asyncio.to_thread(self._records.deployed)
        wanted = {(one.tenant, one.model): one for one in deployed}
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
        await self._report()

    async def _begin(self, want: Deployed) -> None:
        version = await asyncio.to_thread(
            self._records.version, want.model, want.version, want.tenant
        )
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
            version=str(want.version),
            created=version.created,
            placement=self._placement,
            limits=self._limits,
            order=self._order,
            finished=self._count,
            changed=self._note,
        )
        name = (want.tenant, want.model)
        self._wanted[name] = want
        if name in self._serving:
            self._retire(self._coming.get(name))
            self._coming[name] = new
        else:
            self._serving[name] = new

    def _retire(self, deployment: Deployment | None) -> None:
        if deployment is not None:
            task = asyncio.create_task(deployment.stop(self._limits.drain_seconds))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    # --- telling ------------------------------------------------------------------------------

    def _note(self, deployment: Deployment) -> None:
        # A deployment that is being replaced says nothing about the one that is wanted.
        name = (deployment.tenant, deployment.model)
        if deployment is (self._coming.get(name) or self._serving.get(name)):
            self._unreported[name] = deployment
        if deployment.state == "restarting" and deployment.restarts:
            self._telemetry.restarted(deployment.label)

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
                worker_pid=deployment.worker.pid if deployment.worker else None,
                restarts=deployment.restarts,
            )
            await asyncio.to_thread(self._records.report, seen)

    def _count(self, deployment: Deployment, call: Call, error: OpenMaaSError | None) -> None:
        self._telemetry.finished(
            deployment.label,
            "ok" if error is None else error.code,
            started=call.started,
            first_event=call.first_event,
            tokens=(call.usage.input_tokens, call.usage.output_tokens),
            rows=call.usage.rows,
        )


def deploy(
    records: Records,
    artifacts: ArtifactStore,
    model: str,
    by: By,
    *,
    tenant: str = PUBLIC,
    version: int | None = None,
    runtime: str | None = None,
    options: dict[str, Any] | None = None,
) -> Deployed:
    """Writes down that a model's version (default: the newest) is wanted.

    Raises:
        ModelNotFound: no such model or version.
        ConfigurationError: no runtime serves its format.
    """
    found = records.version(model, version, tenant)
    name, reason = choose(artifacts.manifest(found.digest), runtime)
    return records.deploy(found, by, name, reason, options or {})
