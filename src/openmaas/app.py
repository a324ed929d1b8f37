"""The composition root: the only place that reads settings and builds objects."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
import uvloop

from openmaas.batches.files import Files
from openmaas.batches.records import Batches
from openmaas.batches.service import BatchService
from openmaas.config import Settings
from openmaas.database import Database, open_database
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.master import open_master
from openmaas.encryption.memory import Memory, open_memory
from openmaas.errors import ConfigurationError
from openmaas.gateway import (
    batches,
    datasets,
    deployments,
    explain,
    explain_model,
    files,
    huggingface,
    kserve,
    open_inference,
    openai,
    openapi,
    operations,
    sessions,
    tasks,
    tenants,
    training,
    usage,
)
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.inside import Inside
from openmaas.gateway.privacy import erasing, held, policy
from openmaas.gateway.privacy.at_work import AtWork
from openmaas.gateway.protocol import Protocol, close_late
from openmaas.gateway.server import Server
from openmaas.placement import sandbox
from openmaas.placement.local import LocalPlacement
from openmaas.privacy.eraser import Eraser
from openmaas.privacy.erasing import Erasing
from openmaas.privacy.erasures import Erasures
from openmaas.privacy.export import Exports
from openmaas.privacy.halting import Halting
from openmaas.privacy.report import Reports
from openmaas.privacy.resealing import Resealer
from openmaas.privacy.retained import RetainedExchanges
from openmaas.privacy.retention import Retention
from openmaas.privacy.signing import Signer
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.deployments import Deployments
from openmaas.registry.private import PrivateArtifacts
from openmaas.registry.records import Records
from openmaas.serving.admission import Admission
from openmaas.serving.fleet import Fleet, deploy
from openmaas.serving.pipeline import Pipeline
from openmaas.serving.redacting.redactor import Redactor
from openmaas.serving.residency import SHARE, Residency, machine_memory
from openmaas.serving.unsealing import UnsealingPlacement
from openmaas.telemetry import Telemetry, configure_logging
from openmaas.tenancy.access import Access
from openmaas.tenancy.keys import Keys
from openmaas.tenancy.ledger import Ledger
from openmaas.tenancy.meters import Meters
from openmaas.tenancy.prices import Prices
from openmaas.tenancy.tenants import Tenants
from openmaas.training.datasets import Datasets
from openmaas.training.differential_privacy.budgets import Budgets
from openmaas.training.differential_privacy.settling import Settling
from openmaas.training.jobs import Jobs
from openmaas.training.metering import Metering
from openmaas.training.publishing import Publisher
from openmaas.training.reading import Reader
from openmaas.training.running import Bounds
from openmaas.training.session_records import SessionRecords
from openmaas.training.sessions import Sessions
from openmaas.training.supervisor import Supervisor
from openmaas.training.uploads import Uploads
from openmaas.training.workshop import Workshop

log = logging.getLogger(__name__)

TICKS = 10  # of uvicorn's, a tenth of a second each, between two looks at connections


@dataclass(frozen=True)
class Store:
    """What commands and the server share: the data folder's database and artifacts."""

    database: Database
    records: Records
    deployments: Deployments
    artifacts: ArtifactStore
    tenants: Tenants
    keys: Keys
    prices: Prices
    keyring: Keyring
    memory: Memory


def open_store(settings: Settings) -> Store:
    """Opens (or makes) the data folder. Raises what the database raises if it cannot."""
    database = open_database(settings.data_path, settings.database_url)
    keyring, memory = Keyring(database, open_master(settings)), open_memory(settings)
    root = settings.data_path / "artifacts"
    return Store(
        database=database,
        records=Records(database),
        deployments=Deployments(database),
        artifacts=ArtifactStore(root, PrivateArtifacts(root, keyring, memory)),
        tenants=Tenants(database),
        keys=Keys(database),
        prices=Prices(database),
        keyring=keyring,
        memory=memory,
    )


@dataclass(frozen=True)
class Privacy:
    """What tells of, exports and erases what is held of tenants."""

    retained: RetainedExchanges
    erasures: Erasures
    erasing: Erasing
    halting: Halting
    reports: Reports
    exports: Exports
    signer: Signer


def open_privacy(settings: Settings, store: Store) -> Privacy:
    """For commands and the server."""
    data, database, keyring = settings.data_path, store.database, store.keyring
    retained = RetainedExchanges(database, keyring, data)
    erasures = Erasures(database)
    return Privacy(
        retained=retained,
        erasures=erasures,
        erasing=Erasing(database, keyring, store.artifacts, data, store.memory),
        halting=Halting(database),
        reports=Reports(database, data, retained, erasures),
        exports=Exports(database, keyring, store.artifacts, data, retained),
        signer=Signer(keyring),
    )


def build_server(settings: Settings, store: Store) -> Server:
    """The ASGI application of one gateway; its lifespan starts and ends the workers."""
    store.keyring.check()
    store.memory.sweep("jobs")  # those of jobs go on
    telemetry = Telemetry()
    fleet = Fleet(
        store.records,
        store.deployments,
        store.artifacts,
        UnsealingPlacement(LocalPlacement(settings.data_path / "run"), store.artifacts),
        Residency(memory_budget(settings)),
        settings.limits,
        telemetry,
        order=settings.fairness,
        idle_seconds=settings.idle_seconds,
    )
    meters = Meters(store.database)
    ledger = Ledger(settings.data_path, settings.database_url)
    trains, services, resealer = _training(settings, store, ledger, meters)
    table: list[Endpoint] = []
    table += operations.endpoints(telemetry, lambda: openapi.document(table))
    table += openai.endpoints()
    table += open_inference.endpoints()
    table += kserve.endpoints()
    table += tasks.endpoints()
    table += huggingface.endpoints()
    table += explain.endpoints()
    table += deployments.endpoints(store.records, store.artifacts)
    table += tenants.endpoints(store.tenants, store.keys)
    table += policy.endpoints(store.tenants, store.keys)
    table += usage.endpoints(store.database, store.prices, meters, settings.currency)
    table += trains
    access = Access(store.database, settings.admin_key, changed=store.prices.load)
    admission = Admission(ledger, meters, store.prices, metered=settings.tenancy)
    redactor = Redactor(telemetry.redacted)
    pipeline = Pipeline(fleet, settings.limits, redactor)
    inside = Inside(
        table, access=access, admission=admission, pipeline=pipeline, limits=settings.limits
    )
    asked, service = _batches(settings, store, inside)
    table += asked
    held_of = open_privacy(settings, store)
    retention = Retention(held_of.retained)

    def let_go(tenant: str) -> int:
        redactor.forget(tenant)
        return server.let_go(tenant)

    work = AtWork(access, fleet, service, *services, let_go)
    eraser = Eraser(held_of.erasures, held_of.erasing, held_of.halting, work)
    table += held.endpoints(held_of.retained, held_of.reports, held_of.exports)
    table += erasing.endpoints(held_of.erasures, eraser, held_of.signer)
    server = Server(
        table,
        access=access,
        admission=admission,
        pipeline=pipeline,
        limits=settings.limits,
        services=[retention, redactor, service, *services, resealer, eraser],
        retention=retention,
    )
    return server


def _batches(
    settings: Settings, store: Store, inside: Inside
) -> tuple[list[Endpoint], BatchService]:
    """Batches: their endpoints, and what asks their lines."""
    data, limits = settings.data_path, settings.limits
    kept = Files(
        store.database, data / "files", limits.file_bytes, limits.body_bytes, store.keyring
    )
    records = Batches(store.database)
    service = BatchService(records, kept, data / "batches", inside.ask, settings.batch_concurrency)
    return files.endpoints(kept) + batches.endpoints(records, service), service


def _training(
    settings: Settings, store: Store, ledger: Ledger, meters: Meters
) -> tuple[list[Endpoint], tuple[Reader, Supervisor, Sessions], Resealer]:
    """What trains: its endpoints, and what works beside them."""
    data, database, limits = settings.data_path, store.database, settings.limits
    keyring, memory = store.keyring, store.memory
    threads = settings.training_threads or os.cpu_count() or 1
    bounds = Bounds(threads, settings.training_memory)
    metering = Metering(database, ledger, meters, store.prices, metered=settings.tenancy)
    publisher = Publisher(
        database,
        store.records,
        store.artifacts,
        store.tenants,
        store.deployments,
        lambda version, by: deploy(
            store.records,
            store.deployments,
            store.artifacts,
            version.model,
            by,
            tenant=version.tenant,
            version=version.version,
        ),
        limits.load_seconds,
        keyring,
    )
    uploads = Uploads(database, data / "uploads", limits.upload_bytes, keyring)
    sets = Datasets(database, data / "datasets", uploads, keyring)
    reader = Reader(sets, uploads, keyring, memory)
    jobs = Jobs(database)
    workshop = Workshop(data, database, store.records, store.artifacts, threads, keyring, memory)
    settling = Settling(Budgets(database))
    supervisor = Supervisor(
        jobs, workshop, metering, publisher, bounds, settings.training_jobs, settling
    )
    opened = Sessions(
        data,
        SessionRecords(database),
        workshop,
        uploads,
        metering,
        publisher,
        bounds,
        most=settings.training_sessions,
        call_seconds=limits.request_seconds,
        settling=settling,
        keyring=keyring,
        memory=memory,
    )
    table = datasets.endpoints(uploads, sets, reader, settling.budgets)
    table += training.endpoints(jobs, supervisor, publisher, uploads, memory)
    table += sessions.endpoints(opened)
    table += explain_model.endpoints(sets, publisher, jobs, SessionRecords(database), memory)
    resealer = Resealer(
        database, keyring, data, store.records, store.artifacts, uploads, sets, publisher
    )
    return table, (reader, supervisor, opened), resealer


def memory_budget(settings: Settings) -> int:
    """Bytes that models may take."""
    return settings.memory_budget or int(SHARE * machine_memory())


def serve(settings: Settings, store: Store, listening: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT, then lets requests in flight finish.

    Args:
        listening: called with the base URL once the port is bound.

    Raises:
        ConfigurationError: the address cannot be bound, or the sandbox that is required cannot be
            had.
    """
    configure_logging(settings.log_level)
    sandbox.keep_no_core()  # whoever dies here holds prompts
    missing = sandbox.lacking(sandbox.available()) if settings.sandbox == "required" else []
    if missing:
        raise ConfigurationError(
            f"the sandbox is required, and this machine has no {', '.join(missing)}; see "
            "`openmaas doctor`"
        )
    bound = _bind(settings.host, settings.port)
    server = build_server(settings, store)
    config = uvicorn.Config(
        server,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.limits.drain_seconds),
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    listening(f"http://{host}:{bound.getsockname()[1]}")
    # What exists by now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # a request makes some hundred objects, and no cycles
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Graceful(config).serve(sockets=[bound]))
    store.memory.leave()


class _Graceful(uvicorn.Server):
    """Ends with exit code 0 after SIGTERM: uvicorn's own raises the signal again. Ends connections
    on which a request does not come."""

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS == 0:
            close_late(self.server_state.connections)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; try another --port"
        ) from None
    bound.setblocking(False)
    return bound
