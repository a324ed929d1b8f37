"""Sessions: opened, called, put away when idle, resumed, published, closed.

The database is what is true of sessions that have no process: one whose process or server died is
idle at its last checkpoint, and says so when it is called again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from openmaas.audit import By
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.memory import Memory
from openmaas.errors import Conflict, OpenMaaSError, RateLimited
from openmaas.registry.records import Version
from openmaas.training import session_frames as frames
from openmaas.training.differential_privacy.settling import Settling
from openmaas.training.metering import Metering, Owner
from openmaas.training.publishing import Publisher
from openmaas.training.running import Bounds
from openmaas.training.session_folders import SessionFolders, check
from openmaas.training.session_frames import Answer, Call, Opened
from openmaas.training.session_live import Live, Order
from openmaas.training.session_process import SessionProcess
from openmaas.training.session_records import LOST, SessionRecords, SessionRow
from openmaas.training.session_task import AUTO, EXPORT
from openmaas.training.spec import SessionSpec
from openmaas.training.uploads import Uploads
from openmaas.training.workshop import Workshop

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
CHECKPOINT_SECONDS = 60.0  # between two checkpoints of a session that is worked with
START_SECONDS = 120.0
STOP_SECONDS = 20.0  # for all checkpoints when the server ends
TENANTS = 4  # so many tenants' sessions may be open at one time in all


class Sessions:
    """Everything but what threads do is on the event loop.

    Args:
        folder: the data folder.
        most: sessions of one tenant that have a process; the longest idle give way to others.
        call_seconds: of one call.
    """

    def __init__(
        self,
        folder: Path,
        records: SessionRecords,
        workshop: Workshop,
        uploads: Uploads,
        metering: Metering,
        publisher: Publisher,
        bounds: Bounds,
        *,
        most: int,
        call_seconds: float,
        settling: Settling,
        keyring: Keyring,
        memory: Memory,
    ) -> None:
        self.records = records
        self._folders = SessionFolders(folder, records, uploads, keyring, memory)
        self._workshop = workshop
        self._metering = metering
        self._publisher = publisher
        self._bounds = bounds
        self._most = most
        self._call_seconds = call_seconds
        self._settling = settling
        self._live: dict[str, Live] = {}
        self._starting: dict[str, str] = {}  # session → tenant
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._tick: asyncio.Task[None] | None = None

    # --- a server's life -----------------------------------------------------------------------

    async def start(self) -> None:
        """What an earlier server left open is idle; folders that belong to nothing are removed."""
        kept = set(await asyncio.to_thread(self.records.left_open))
        await asyncio.to_thread(self._folders.sweep, kept)
        self._tick = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Puts all away, so that the next server can resume them."""
        if self._tick is not None:
            self._tick.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                away = [self._put_away(live, force=True) for live in self._live.values()]
                await asyncio.gather(*away, return_exceptions=True)
        for live in list(self._live.values()):
            live.process.kill("the server ended")
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._folders.forget)

    # --- what callers ask ----------------------------------------------------------------------

    async def open(self, spec: SessionSpec, owner: Owner) -> tuple[SessionRow, Opened]:
        """Builds a network in a process of its own.

        Raises:
            InvalidRequest: it says too little or too much, names what is not there, or does not
                fit together.
            QuotaExhausted, RateLimited: there are as many sessions as may be, or no compute left.
            WorkerFailed, TrainingFailed: the process died, or took too long.
        """
        check(spec)
        self._workshop.check_installed("jax")
        upload, _ = await asyncio.to_thread(self._folders.find, spec, owner.tenant)
        clock = await self._metering.open(owner, spec.model, "new")
        try:
            clock.check()
        finally:
            await clock.close()
        row = await asyncio.to_thread(self.records.create, spec, owner, By(owner.key))
        try:
            async with self._lock(row.id):
                await asyncio.to_thread(self._folders.prepare, row, upload)
                live = await self._begin(row)
                await asyncio.to_thread(self._compose, row, live.process.opened)
        except BaseException as error:
            await asyncio.shield(self._discard(row.id, error))
            raise
        return row, live.process.opened

    async def get(self, id: str, tenant: str) -> tuple[SessionRow, Live | None]:
        """
        Raises:
            NotFound
        """
        row = await asyncio.to_thread(self.records.get, id, tenant)
        return row, self._live.get(id)

    @asynccontextmanager
    async def held(self, id: str, tenant: str) -> AsyncIterator[Live]:
        """A session with its process, resumed if it was idle. It is not put away meanwhile.

        Raises:
            NotFound: there is none.
            Conflict: it was closed, or has failed.
            RateLimited: there is no room for its process now.
            OpenMaaSError: it cannot be resumed.
        """
        live = self._live.get(id)
        if live is None or live.row.tenant != tenant or self._lock(id).locked():
            row = await asyncio.to_thread(self.records.get, id, tenant)
            async with self._lock(row.id):
                live = self._live.get(id) or await self._resume(row)
                live.users += 1
        else:
            live.users += 1
        try:
            yield live
        finally:
            live.users -= 1
            live.used = time.monotonic()

    async def call(
        self, live: Live, call: Call, order: Order, *, seconds: float, size: int = 0
    ) -> Answer:
        """Runs a call of a session that is held; see ``Live.call``."""
        private = live.row.spec.privacy is not None
        if private and isinstance(call, frames.ForwardBackward) and call.draws:
            # Written down before its result is seen, whatever comes of the call.
            draw = await asyncio.to_thread(self._settling.budgets.step, live.row.id)
            call = msgspec.structs.replace(call, draw=draw)
        if isinstance(call, frames.Save):
            call = msgspec.structs.replace(call, sequence=(order.sequence or live.sequence - 1) + 1)
        answer = await live.call(call, order, seconds, size)
        if isinstance(call, frames.Save | frames.Load):
            await asyncio.to_thread(self._folders.keep, live.row)
            live.saved, live.dirty = time.monotonic(), live.process.outstanding > 0
            live.row = msgspec.structs.replace(live.row, step=answer.step, checkpoint=call.name)
            await asyncio.to_thread(
                self.records.change, live.row.id, step=answer.step, checkpoint=call.name
            )
        return answer

    async def publish(
        self, live: Live, owner: Owner, order: Order, *, model: str | None, description: str
    ) -> Version:
        """Registers the network as it is now as a version. Once more is once.

        Raises:
            Conflict: it has seen no rows to verify the version with.
            ConversionFailed, QuotaExhausted, StorageFull
            OpenMaaSError: as ``call``.
        """
        row = live.row
        async with live.publishing:  # the folder is one
            answer = await live.call(frames.Export(), order, self._call_seconds)
            promised = None
            if row.spec.privacy is not None:
                promised = await asyncio.to_thread(self._settling.promise, row.id, row.spec)
            card = await asyncio.to_thread(
                self._folders.card,
                live.row, answer, live.process.opened.libraries, description, promised,
            )  # fmt: skip
            folder = self._folders.folder(row.id) / EXPORT
            name = row.model if model is None else model
            return await asyncio.to_thread(
                self._publisher.publish,
                answer.values["kind"], folder, (row.tenant, name), card, By(owner.key),
            )  # fmt: skip

    async def promote(self, version: Version, owner: Owner) -> None:
        """Has a version served.

        Raises:
            ConfigurationError: no runtime serves its format.
        """
        await asyncio.to_thread(
            self._publisher.promote, version.tenant, version.model, version.version, By(owner.key)
        )

    async def close(self, id: str, tenant: str, by: By) -> SessionRow:
        """Ends a session and removes what it kept.

        Raises:
            NotFound
        """
        row = await asyncio.to_thread(self.records.get, id, tenant)
        async with self._lock(id):
            live = self._live.pop(id, None)
            if live is not None:
                await live.process.stop()
                live.end("the session was closed")
                await self._bill(live)
            await asyncio.to_thread(self.records.change, id, by, "session.close", state="closed")
            await asyncio.to_thread(self._settling.session, id)
            await asyncio.to_thread(self._folders.remove, id)
        self._locks.pop(id, None)
        return await asyncio.to_thread(self.records.get, row.id, tenant)

    # --- processes -----------------------------------------------------------------------------

    async def _resume(self, row: SessionRow) -> Live:
        row = await asyncio.to_thread(self.records.get, row.id, row.tenant)
        if row.state in ("closed", "failed"):
            why = f": {row.error['message']}" if row.error else ""
            raise Conflict(f"session {row.id} is {row.state}{why}")
        await asyncio.to_thread(self._folders.resume, row)
        live = await self._begin(row, resumed=True)
        await asyncio.to_thread(self.records.change, row.id, state="open", error=None)
        return live

    async def _begin(self, row: SessionRow, *, resumed: bool = False) -> Live:
        self._starting[row.id] = row.tenant
        try:
            await self._make_room(row.tenant)
            clock = await self._metering.open(row.owner, row.model, row.id, seconds=row.seconds)
            process = await SessionProcess.start(
                self._folders.folder(row.id),
                [],
                self._bounds,
                max(self._call_seconds, START_SECONDS),
                lambda how: self._ended(row.id, how),
            )
        finally:
            self._starting.pop(row.id, None)
        live = Live(row, process, clock, resumed=resumed)
        self._live[row.id] = live
        await asyncio.to_thread(self._folders.keep, row)
        return live

    def _compose(self, row: SessionRow, opened: Opened) -> None:
        """Writes down what each step of a private session is, before there is one."""
        if opened.rate is not None and opened.noise_multiplier is not None:
            self._settling.opened(row.id, opened.rate, opened.noise_multiplier)

    async def _make_room(self, tenant: str) -> None:
        while True:
            own = [one for one in self._live.values() if one.row.tenant == tenant]
            starting = list(self._starting.values())  # this one among them
            if len(own) + starting.count(tenant) <= self._most:
                own = list(self._live.values())
                if len(own) + len(starting) <= self._most * TENANTS:
                    return
            quiet = [one for one in own if not one.users and not one.process.outstanding]
            if not quiet:
                raise RateLimited(
                    f"{len(own)} sessions are at work, as many as may be; close one", retry_after=5
                )
            await self._put_away(min(quiet, key=lambda one: one.used))

    async def _put_away(self, live: Live, *, force: bool = False) -> None:
        """Writes its checkpoint and ends its process."""
        id = live.row.id
        async with self._lock(id):
            if self._live.get(id) is not live or (live.users and not force):
                return
            if live.dirty or live.sequence != live.process.opened.sequence:
                live.used = time.monotonic()  # not again at once, should this fail
                answer = await live.save(STOP_SECONDS)
                live.row = msgspec.structs.replace(live.row, step=answer.step, checkpoint=AUTO)
                await asyncio.to_thread(self._folders.keep, live.row)
            # Known before its process ends: else it might begin anew.
            await asyncio.to_thread(
                self.records.change,
                id, state="idle", step=live.row.step, checkpoint=live.row.checkpoint,
            )  # fmt: skip
            self._live.pop(id, None)
            await live.process.stop()
            await asyncio.to_thread(self._folders.put_away, id)
            live.end("it was put away")
            await self._bill(live)

    def _ended(self, id: str, how: str) -> None:
        """A process is gone. If nobody wanted that, its session is idle at its last checkpoint."""
        live = self._live.pop(id, None)
        if live is None:
            return
        live.end(how)
        log.warning("session %s: its process ended: %s; %s", id, how, live.process.last_words)
        self._later(self._lose(live, how))

    async def _lose(self, live: Live, how: str) -> None:
        error = {"code": LOST, "message": f"its process ended: {how}"}
        await self._bill(live)
        id = live.row.id
        await asyncio.to_thread(self.records.change, id, state="idle", error=error)
        async with self._lock(id):
            if id not in self._live:
                await asyncio.to_thread(self._folders.put_away, id)

    async def _discard(self, id: str, error: BaseException) -> None:
        message = error.message if isinstance(error, OpenMaaSError) else type(error).__name__
        code = error.code if isinstance(error, OpenMaaSError) else "cancelled"
        live = self._live.pop(id, None)
        if live is not None:
            live.process.kill("nobody waited for it")
        told = {"code": code, "message": message}
        await asyncio.to_thread(self.records.change, id, state="failed", error=told)
        await asyncio.to_thread(self._settling.session, id)
        await asyncio.to_thread(self._folders.remove, id)

    async def _bill(self, live: Live) -> None:
        """A row is durable before the session's own sum tells of it: what is lost in between is
        never billed twice."""
        with contextlib.suppress(OpenMaaSError):  # it is still on its way to the ledger
            await live.clock.close()
        seconds = live.clock.seconds
        await asyncio.to_thread(self.records.change, live.row.id, seconds=seconds)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for live in list(self._live.values()):
                live.clock.add(live.process.take_busy())
                quiet = not live.users and not live.process.outstanding
                if quiet and now - live.used >= live.row.spec.idle_seconds:
                    self._later(self._put_away(live))
                elif live.dirty and now - live.saved >= CHECKPOINT_SECONDS:
                    live.saved = now
                    self._later(self._checkpoint(live))
                if live.clock.due:
                    self._later(self._write(live))

    async def _checkpoint(self, live: Live) -> None:
        answer = await live.save(self._call_seconds)
        live.row = msgspec.structs.replace(live.row, step=answer.step, checkpoint=AUTO)
        await asyncio.to_thread(self._folders.keep, live.row)
        await asyncio.to_thread(self.records.change, live.row.id, step=answer.step, checkpoint=AUTO)

    async def _write(self, live: Live) -> None:
        await live.clock.write()
        await asyncio.to_thread(self.records.change, live.row.id, seconds=live.clock.billed)

    def _later(self, work: object) -> None:
        async def done() -> None:
            try:
                await work  # type: ignore[misc]
            except OpenMaaSError as error:
                log.warning("a session: %s", error.message)

        task = asyncio.create_task(done())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lock(self, id: str) -> asyncio.Lock:
        return self._locks.setdefault(id, asyncio.Lock())
