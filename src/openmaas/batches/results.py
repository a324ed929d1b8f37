"""Answers as they come: appended to one sealed file, in groups, and there once each after any
crash."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from openmaas.batches.files import LINES
from openmaas.batches.lines import number_of, rested
from openmaas.batches.records import Tokens
from openmaas.disk import disk_errors, sync_folder
from openmaas.encryption.keyring import Keyring
from openmaas.encryption.sealed import SealedWriter, open_sealed
from openmaas.errors import Erased, StorageFull

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0  # where the disk is full
PATIENCE_SECONDS = 5.0  # that a server which ends waits for it


class _Used(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    usage: _Used | None = None


class _Response(msgspec.Struct):
    status_code: int
    body: _Body


class _Answer(msgspec.Struct):
    id: str
    response: _Response | None


class Answered(NamedTuple):
    """What a line of the file says."""

    number: int
    ok: bool
    used: Tokens
    raw: bytes


class _Entry(NamedTuple):
    number: int
    ok: bool
    line: bytes
    durable: asyncio.Future[None]


class Results:
    """The answers of one batch. ``open`` and ``read`` block, the rest is on the event loop.

    Args:
        tenant: whose batch it is.

    Attributes:
        done: by number, whether a line's answer is there.
    """

    def __init__(self, path: Path, keyring: Keyring, tenant: str) -> None:
        self._keyring = keyring
        self._tenant = tenant
        self._writer: SealedWriter | None = None
        self.done = bytearray(LINES + 1)
        self._completed = 0
        self._failed = 0
        self._opened = False
        self._path = path
        self._size = 0
        self._queue: list[_Entry] = []
        self._writing: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Takes up what an earlier server wrote; a line that it did not finish is cut off."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._append_to(None).close()
        except Erased:  # so are the answers: lines are asked again, should anybody wait for them
            self._path.unlink(missing_ok=True)
        for one in self.read():
            self._size += len(one.raw)
            self._count(one.number, one.ok)
        self._writer = self._append_to(self._size)
        self._writer.flush()
        sync_folder(self._path.parent)
        self._opened = True

    @property
    def counts(self) -> tuple[int, int] | None:
        """Lines that are completed and failed; None: it is not open yet."""
        return (self._completed, self._failed) if self._opened else None

    def read(self) -> Iterator[Answered]:
        """What is there, up to the first line that is not whole."""
        decode = msgspec.json.Decoder(_Answer).decode
        try:
            opened = open_sealed(self._path, self._keyring, self._name, growing=True)
        except FileNotFoundError:
            return
        with opened as file:
            for raw in rested(file):
                try:
                    if not raw.endswith(b"\n"):
                        return
                    one = decode(raw)
                    yield Answered(number_of(one.id), _ok(one), _used(one), raw)
                except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
                    return

    async def add(self, number: int, line: bytes, *, ok: bool) -> None:
        """Returns when the answer is on disk. It comes there also if nobody waits any more."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Entry(number, ok, line, durable))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await durable

    async def close(self, patience: float | None = PATIENCE_SECONDS) -> None:
        """Returns when all that was added is there, or cannot be in time."""
        if self._writing is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._writing, patience)

    def remove(self) -> None:
        if self._writer is not None:
            self._writer.drop()
        self._path.unlink(missing_ok=True)

    async def _write(self) -> None:
        while self._queue:
            group, self._queue = self._queue, []
            data = b"".join(entry.line for entry in group)
            while True:
                try:
                    await asyncio.to_thread(self._append, data)
                    break
                except (StorageFull, OSError) as error:
                    log.warning("the answers of %s cannot be written: %s", self._path.stem, error)
                    await asyncio.sleep(AGAIN_SECONDS)
            for entry in group:
                self._count(entry.number, entry.ok)
                if not entry.durable.done():
                    entry.durable.set_result(None)
        self._writing = None

    def _append(self, data: bytes) -> None:
        with disk_errors():
            if self._writer is None:
                self._writer = self._append_to(self._size)
            try:
                self._writer.write(data)
                self._writer.flush()
            except BaseException:  # what came of it is cut off the next time
                self._writer.drop()
                self._writer = None
                raise
        self._size += len(data)

    def _append_to(self, size: int | None) -> SealedWriter:
        key = self._keyring.key(self._tenant)
        return SealedWriter.append(self._path, self._keyring, key, self._name, size=size)

    @property
    def _name(self) -> str:
        return f"batches/{self._path.name}"

    def _count(self, number: int, ok: bool) -> None:
        self.done[number] = 1
        if ok:
            self._completed += 1
        else:
            self._failed += 1


def _ok(one: _Answer) -> bool:
    return one.response is not None and one.response.status_code == 200


def _used(one: _Answer) -> Tokens:
    used = None if one.response is None else one.response.body.usage
    if used is None:
        return Tokens()
    cached = (used.prompt_tokens_details or {}).get("cached_tokens", 0)
    return Tokens(used.prompt_tokens, cached, used.completion_tokens)
