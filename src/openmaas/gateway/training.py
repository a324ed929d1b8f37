"""Training jobs, and the versions that come of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from openmaas.audit import By
from openmaas.encryption.memory import Memory
from openmaas.errors import InvalidRequest, NotFound
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.registry.records import Version
from openmaas.training.jobs import UNFINISHED, Action, Event, Job, Jobs
from openmaas.training.metering import Owner
from openmaas.training.publishing import Published, Publisher
from openmaas.training.spec import Id, JobSpec, Name
from openmaas.training.supervisor import Supervisor
from openmaas.training.uploads import Uploads

MOST = 1000  # of one page
LOOK_SECONDS = 0.25  # between two looks for news of a job that is followed


class JobList(Struct):
    data: list[Job]
    has_more: bool
    last_id: str | None  # for ``before``
    object: Literal["list"] = "list"


class EventList(Struct):
    data: list[Event]
    has_more: bool
    object: Literal["list"] = "list"


class PushBody(Struct, forbid_unknown_fields=True, kw_only=True):
    name: Name
    upload: Id  # a whole one
    deploy: bool = False
    licence: Annotated[str, Meta(max_length=200)] = ""


class VersionList(Struct):
    data: list[Published]
    object: Literal["list"] = "list"


class Pushed(Struct):
    model: str
    version: int
    task: str
    format: str
    digest: str
    size: int
    deployed: bool


class Routes:
    """The handlers, over what they show and change."""

    def __init__(
        self,
        jobs: Jobs,
        supervisor: Supervisor,
        publisher: Publisher,
        uploads: Uploads,
        memory: Memory,
    ) -> None:
        self._jobs = jobs
        self._memory = memory
        self._supervisor = supervisor
        self._publisher = publisher
        self._uploads = uploads

    # --- jobs ----------------------------------------------------------------------------

    async def create(self, exchange: Exchange) -> None:
        spec = exchange.decode(await exchange.body(), JobSpec)
        caller = exchange.caller
        owner = Owner(caller.tenant, caller.project, caller.key)
        await exchange.respond_json(await self._supervisor.submit(spec, owner))

    async def list(self, exchange: Exchange) -> None:
        limit = count(exchange, "limit", 100, MOST)
        before = exchange.query("before") or ""
        found = await asyncio.to_thread(
            self._jobs.list, exchange.caller.tenant, before=before, limit=limit + 1
        )
        last = found[:limit][-1].id if found else None
        await exchange.respond_json(JobList(found[:limit], len(found) > limit, last))

    async def get(self, exchange: Exchange) -> None:
        await exchange.respond_json(await self._job(exchange))

    async def act(self, exchange: Exchange) -> None:
        action = cast(Action, exchange.scope["path"].rsplit("/", 1)[1])
        tenant, by = exchange.caller.tenant, By(exchange.caller.key)
        job = await asyncio.to_thread(self._jobs.act, exchange.path["job"], action, tenant, by)
        self._supervisor.wake()
        await exchange.respond_json(job)

    async def events(self, exchange: Exchange) -> None:
        job = await self._job(exchange)
        after = count(exchange, "after", 0, 1 << 31, least=0)
        if exchange.query("stream") == "true":
            await exchange.relay(self._follow(job, after))
            return
        limit = count(exchange, "limit", 100, MOST)
        found = list(await asyncio.to_thread(self._jobs.events, job.id, after, limit + 1))
        await exchange.respond_json(EventList(found[:limit], len(found) > limit))

    async def _follow(self, job: Job, after: int) -> AsyncGenerator[bytes, None]:
        """Every event after one, those to come too, and how far it is; until it is finished."""
        told = None
        while True:
            events = await asyncio.to_thread(self._jobs.events, job.id, after)
            if events:
                after = events[-1].number
                yield b"".join(map(_event, events))
                continue
            if job.state not in UNFINISHED:
                return
            job = await asyncio.to_thread(self._jobs.get, job.id)
            if job.progress != told and job.state == "running":
                told = job.progress
                yield _event({"kind": "progress", "data": msgspec.to_builtins(told)})
            await asyncio.sleep(LOOK_SECONDS)

    async def curve(self, exchange: Exchange) -> None:
        job = await self._job(exchange)
        if job.version is None:
            raise NotFound(f"job {job.id} has published nothing, so that there is no curve yet")
        found = await asyncio.to_thread(self._publisher.curve, job.tenant, job.model, job.version)
        await exchange.respond(found, content_type=b"image/png")

    async def _job(self, exchange: Exchange) -> Job:
        return await asyncio.to_thread(self._jobs.get, exchange.path["job"], exchange.caller.tenant)

    # --- versions --------------------------------------------------------------------------

    async def push(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), PushBody)
        caller, by = exchange.caller, By(exchange.caller.key)
        version = await asyncio.to_thread(self._push, body, caller.tenant, by)
        if body.deploy:
            await asyncio.to_thread(
                self._publisher.promote, caller.tenant, version.model, version.version, by
            )
        await asyncio.to_thread(self._uploads.remove, body.upload, caller.tenant)
        await exchange.respond_json(
            Pushed(version.model, version.version, version.task, version.format, version.digest,
                   version.size, body.deploy)
        )  # fmt: skip

    def _push(self, body: PushBody, tenant: str, by: By) -> Version:
        upload = self._uploads.whole(body.upload, tenant)
        with self._uploads.unsealed(upload, self._memory) as path:
            owner = tenant, body.name
            return self._publisher.push(path, upload.sha256, owner, body.licence, by)

    async def versions(self, exchange: Exchange) -> None:
        found = await asyncio.to_thread(
            self._publisher.versions, exchange.caller.tenant, exchange.path["model"]
        )
        await exchange.respond_json(VersionList(found))

    async def version(self, exchange: Exchange) -> None:
        await exchange.respond_json(await self._version(exchange))

    async def version_curve(self, exchange: Exchange) -> None:
        one = await self._version(exchange)
        tenant = exchange.caller.tenant
        found = await asyncio.to_thread(self._publisher.curve, tenant, one.model, one.version)
        await exchange.respond(found, content_type=b"image/png")

    async def promote(self, exchange: Exchange) -> None:
        one = await self._version(exchange)
        caller = exchange.caller
        await asyncio.to_thread(
            self._publisher.promote, caller.tenant, one.model, one.version, By(caller.key)
        )
        await exchange.respond_json(one)

    async def _version(self, exchange: Exchange) -> Published:
        model, number = exchange.path["model"], exchange.path["version"]
        found = await asyncio.to_thread(self._publisher.versions, exchange.caller.tenant, model)
        for one in found:
            if str(one.version) == number:
                return one
        raise NotFound(f"no version {number[:16]!r} of model {model[:64]!r}")


def count(exchange: Exchange, name: str, default: int, most: int, *, least: int = 1) -> int:
    """A whole number of the URL.

    Raises:
        InvalidRequest: it is none, or out of bounds.
    """
    given = exchange.query(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and least <= int(given[:12]) <= most):
        raise InvalidRequest(f"{name} is from {least} to {most}", param=name)
    return int(given)


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def endpoints(
    jobs: Jobs, supervisor: Supervisor, publisher: Publisher, uploads: Uploads, memory: Memory
) -> list[Endpoint]:
    """Everything below ``/v1/training/jobs``, and the versions of models."""
    at = Routes(jobs, supervisor, publisher, uploads, memory)
    every, one = "/v1/training/jobs", "/v1/training/jobs/{job}"
    versions = "/v1/models/{model}/versions"
    version = f"{versions}/{{version}}"
    found = [
        Endpoint("POST", every, at.create, "openai", "Train a model",
                 scope="train", body=JobSpec, response=Job),
        Endpoint("GET", every, at.list, "openai", "List training jobs",
                 scope="train", response=JobList, query=("before", "limit")),
        Endpoint("GET", one, at.get, "openai", "One training job", scope="train", response=Job),
        Endpoint("GET", f"{one}/events", at.events, "openai",
                 "What happened to a job; stream=true: as it happens",
                 scope="train", response=EventList, query=("after", "limit", "stream")),
        Endpoint("GET", f"{one}/curve.png", at.curve, "openai", "A job's learning curve",
                 scope="train"),
        Endpoint("POST", "/v1/models", at.push, "openai", "Register an uploaded network",
                 scope="train", body=PushBody, response=Pushed),
        Endpoint("GET", versions, at.versions, "openai", "Versions of a model, with their cards",
                 scope="train", response=VersionList),
        Endpoint("GET", version, at.version, "openai", "One version of a model",
                 scope="train", response=Published),
        Endpoint("GET", f"{version}/curve.png", at.version_curve, "openai",
                 "A version's learning curve", scope="train"),
        Endpoint("POST", f"{version}/promote", at.promote, "openai", "Have a version served",
                 scope="train", response=Published),
    ]  # fmt: skip
    for action in ("pause", "resume", "cancel"):
        found.append(
            Endpoint("POST", f"{one}/{action}", at.act, "openai", f"{action.capitalize()} a job",
                     scope="train", response=Job)
        )  # fmt: skip
    return found
