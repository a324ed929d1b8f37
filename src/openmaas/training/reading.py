"""Has uploads read into data sets, one at a time, by processes that are believed nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

import openmaas
from openmaas import background
from openmaas.config import told_children
from openmaas.disk import disk_errors, need_space, sync_folder
from openmaas.encryption.folders import seal_folder
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.memory import Memory
from openmaas.errors import (
    InvalidRequest,
    NotFound,
    OpenMaaSError,
    StorageFull,
    StorageUnavailable,
)
from openmaas.training.data import (
    DESCRIPTION,
    PREVIEW,
    SPLIT,
    TABLE,
    Description,
    Preview,
)
from openmaas.training.datasets import DatasetRecord, Datasets
from openmaas.training.ingest import Answer, Task
from openmaas.training.uploads import Upload, Uploads

log = logging.getLogger(__name__)

SANDBOX = "openmaas.placement.sandbox"  # run as a program
SEALING = ".reading"  # in the folder of data sets: the one that is being sealed
SECONDS = 3600.0
ANSWER_BYTES = 64 << 20  # of 10,000 columns with their labels
ADDRESS_SPACE = 4 << 30
FILE_BYTES = 64 << 30
SWEEP_SECONDS = 3600.0
AGAIN_SECONDS = 1.0  # where the database is away
NICE = 10  # requests come first where the cores are contended


class Reader:
    """Everything but what threads do is on the event loop.

    Args:
        memory: where uploads, and what is made of them, lie until that is sealed.
    """

    def __init__(
        self, datasets: Datasets, uploads: Uploads, keyring: Keyring, memory: Memory
    ) -> None:
        self._datasets = datasets
        self._uploads = uploads
        self._keyring = keyring
        self._memory = memory
        self._turn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading: tuple[str, asyncio.subprocess.Process] | None = None
        datasets.removed = self._removed

    def wake(self) -> None:
        """A data set waits."""
        self._turn.set()

    async def start(self) -> None:
        """Reads anew what an earlier server left half read, and what waits from now on."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._datasets.recover)
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        await background.end(self._task)

    async def read_waiting(self) -> None:
        """Reads all that wait.

        Raises:
            StorageUnavailable, StorageFull: the database is away.
        """
        while (record := await asyncio.to_thread(self._datasets.claim)) is not None:
            await self._read(record)

    async def _follow(self) -> None:
        swept = 0.0
        while True:
            self._turn.clear()
            wait = SWEEP_SECONDS
            try:
                if time.monotonic() - swept >= SWEEP_SECONDS or not swept:
                    await asyncio.to_thread(self._uploads.sweep)
                    swept = time.monotonic()
                await self.read_waiting()
            except OpenMaaSError as error:
                log.warning("cannot look at the data sets: %s", error.message)
                wait = AGAIN_SECONDS
            except Exception:  # later ones are to be read all the same
                log.exception("cannot look at the data sets")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._turn.wait()

    async def _read(self, record: DatasetRecord) -> None:
        """From reading to ready or failed; the row says what came of it."""
        scratch = self._memory.path("reading", record.id)
        try:
            try:
                description = await self._run(record, scratch)
                await asyncio.to_thread(self._keep, record, scratch, description)
            except StorageUnavailable:  # of the database; once it is back it is read anew
                await self._note(self._datasets.again, record.id)
                return
            except OpenMaaSError as error:
                await self._note(self._datasets.failed, record.id, error)
                return
            except Exception:
                log.exception("data set %s could not be read", record.id)
                broken = OpenMaaSError("something broke here; it is in the server's log")
                await self._note(self._datasets.failed, record.id, broken)
                return
            if not await self._note(self._datasets.ready, record, description):
                await asyncio.to_thread(self._datasets.unwanted, record)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, True)
            await asyncio.to_thread(_source(scratch).unlink, True)
        with contextlib.suppress(OpenMaaSError):  # another data set is to be made of it
            await asyncio.to_thread(self._uploads.remove, record.upload, record.tenant)

    async def _note(self, note: Any, *what: Any) -> bool:
        """Says what came of one, as soon as the database is there."""
        while True:
            try:
                return bool(await asyncio.to_thread(note, *what))
            except (StorageUnavailable, StorageFull):
                await asyncio.sleep(AGAIN_SECONDS)

    # --- the process -----------------------------------------------------------------------------

    async def _run(self, record: DatasetRecord, scratch: Path) -> Description:
        try:
            upload = await asyncio.to_thread(self._uploads.whole, record.upload, record.tenant)
            source = await asyncio.to_thread(self._prepare, scratch, upload)
        except NotFound as error:
            raise InvalidRequest(error.message) from None
        policy = await asyncio.to_thread(self._datasets.redaction, record)
        task = Task(record.format, str(source), str(scratch / "out"), record.options, policy)
        with open(scratch / "log", "w+b") as file:  # noqa: ASYNC230  for its number
            process = await asyncio.create_subprocess_exec(
                *_command(scratch, source),
                env=_environment(scratch),
                cwd=scratch,
                stdin=asyncio.subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        self._reading = record.id, process
        try:
            async with asyncio.timeout(SECONDS):
                await process.communicate(msgspec.json.encode(task))
        except TimeoutError:
            raise InvalidRequest(f"it could not be read within {SECONDS:.0f} seconds") from None
        finally:
            self._reading = None
            # The whole group, and always: no child of it may touch the files after this.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        status = process.returncode or 0
        return await asyncio.to_thread(_answer, scratch, status, record.id, self._memory)

    def _removed(self, id: str) -> None:
        """From any thread: nobody needs the data set any more."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.leave, id)

    def leave(self, id: str) -> None:
        """On the event loop: a data set is read no further."""
        if self._reading is not None and self._reading[0] == id:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._reading[1].pid, signal.SIGKILL)

    def _keep(self, record: DatasetRecord, scratch: Path, description: Description) -> None:
        """Puts the canonical form in its place, by one rename of files that are on disk.

        Raises:
            QuotaExhausted, StorageFull
        """
        target, sealed = self._datasets.folder / record.id, self._datasets.folder / SEALING
        self._datasets.check_room(record, description.bytes)
        key = self._keyring.key(record.tenant, record.id)
        with self._memory.errors():
            (scratch / "out" / DESCRIPTION).write_bytes(msgspec.json.encode(description))
        try:
            with disk_errors():
                self._datasets.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                need_space(self._datasets.folder, description.bytes)
                shutil.rmtree(sealed, ignore_errors=True)
                seal_folder(scratch / "out", sealed, key, f"datasets/{record.id}")
                shutil.rmtree(target, ignore_errors=True)
                sealed.rename(target)
                sync_folder(target.parent)
        finally:
            shutil.rmtree(sealed, ignore_errors=True)

    def _prepare(self, scratch: Path, upload: Upload) -> Path:
        """The upload, unsealed."""
        shutil.rmtree(scratch, ignore_errors=True)
        for name in ("out", "tmp"):
            self._memory.make("reading", scratch.name, name)
        source = _source(scratch)
        source.unlink(missing_ok=True)
        self._uploads.unseal(upload, source, self._memory)
        return source


def _source(scratch: Path) -> Path:
    """Where the upload is: beside what its reader may write."""
    return scratch.with_name(f"{scratch.name}.upload")


def _command(scratch: Path, source: Path) -> list[str]:
    limits = {
        "address_space": ADDRESS_SPACE,
        "cpu_seconds": int(SECONDS),
        "file_bytes": FILE_BYTES,
    }
    return [
        *(sys.executable, "-m", SANDBOX, "--write", str(scratch)),
        *("--read", str(scratch), "--read", str(source)),
        *("--limits", msgspec.json.encode(limits).decode()),
        *("--module", "openmaas.training.ingest"),
    ]


def _environment(scratch: Path) -> dict[str, str]:
    """Nothing of ours but where the program lies: no key, no token, no proxy."""
    return {
        "PYTHONPATH": str(Path(openmaas.__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(scratch / "tmp"),
        "TMPDIR": str(scratch / "tmp"),
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve far more than they use
    } | told_children()


# --- what it left, checked ----------------------------------------------------------------------


def _answer(scratch: Path, status: int, id: str, memory: Memory) -> Description:
    try:
        with open(scratch / "result.json", "rb") as file:
            answer = msgspec.json.decode(file.read(ANSWER_BYTES), type=Answer)
    except (OSError, msgspec.DecodeError):
        log.warning("data set %s: its reader ended with %s: %s", id, status, _tail(scratch))
        raise InvalidRequest(
            "it could not be read with the memory and the time that there are for it, or it is "
            "made to break its reader"
        ) from None
    if answer.error is not None:
        if answer.error == StorageFull.code:
            raise memory.full()
        raise InvalidRequest(printable(answer.message, 4000))
    if answer.description is None or answer.preview is None:
        raise InvalidRequest("its reader gave no answer")
    size = _check_files(scratch / "out", answer.description)
    _check(answer.description, answer.preview)
    with memory.errors():
        (scratch / "out" / PREVIEW).write_bytes(msgspec.json.encode(answer.preview))
    return msgspec.structs.replace(answer.description, bytes=size)


def _check_files(out: Path, told: Description) -> int:
    """Bytes of exactly the files that the form has, all plain."""
    wanted = {SPLIT} | (
        {TABLE} if told.kind == "table" else {f"{column.name}.npy" for column in told.columns}
    )
    found = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(out)}
    plain = all(stat.S_ISREG(one.st_mode) and one.st_nlink == 1 for one in found.values())
    if found.keys() != wanted or not plain:
        raise InvalidRequest("its reader left other files than it should have")
    return sum(one.st_size for one in found.values())


def _check(told: Description, preview: Preview) -> None:
    names = [column.name for column in told.columns]
    sound = (
        0 < told.rows == sum(told.splits.values())
        and len(told.splits) == 3
        and 0 < len(set(names)) == len(names) <= 10_000
        and len(told.fingerprint) == 64
        and preview.columns == names
        and len(preview.rows) <= 100
        and told.target in (None, *names)
    )
    if not sound:
        raise InvalidRequest("its reader contradicts itself")


def _tail(scratch: Path) -> str:
    with contextlib.suppress(OSError), open(scratch / "log", "rb") as file:
        file.seek(max(0, file.seek(0, 2) - 4096))
        lines = file.read(4096).decode(errors="replace").strip().splitlines()
        return printable(lines[-1], 500) if lines else ""
    return ""


def printable(text: str, most: int) -> str:
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text[:most])
