"""The files that a batch ends with, made of its answers."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from openmaas.batches.files import File, Files
from openmaas.batches.lines import LineError, Output, line_id, raw_lines, read_one
from openmaas.batches.records import Batch, Tokens
from openmaas.batches.results import Results
from openmaas.registry.artifacts import disk_errors, sync_folder

EXPIRED = LineError("batch_expired", "the batch's time was over before this line was answered")


class Finished(NamedTuple):
    output: File | None
    error: File | None
    completed: int
    failed: int
    used: Tokens


def finish(batch: Batch, results: Results, files: Files, *, expired: bool) -> Finished:
    """Writes them, where nobody sees them until they have rows.

    Args:
        expired: lines without an answer are told of as such.

    Raises:
        StorageFull
    """
    output, error = files.path(_id(batch, "output")), files.path(_id(batch, "error"))
    completed = failed = 0
    used = [0, 0, 0]
    with disk_errors():
        files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as opened:
            good, bad = (opened.enter_context(_fresh(path)) for path in (output, error))
            for one in results.read():
                (good if one.ok else bad).write(one.raw)
                completed, failed = completed + one.ok, failed + (not one.ok)
                for at, count in enumerate((one.used.input, one.used.cached, one.used.output)):
                    used[at] += count
            if expired:
                failed += _write_expired(batch, files.path(batch.input), results.done, bad)
            for file in (good, bad):
                file.flush()
                os.fsync(file.fileno())
        sync_folder(files.folder)
    return Finished(
        _file(batch, output, "output"), _file(batch, error, "error"), completed, failed,
        Tokens(*used),
    )  # fmt: skip


def _write_expired(batch: Batch, input: Path, done: bytearray, bad: IO[bytes]) -> int:
    count = 0
    for number, offset, _ in raw_lines(input):
        if not done[number]:
            custom = read_one(input, number, offset).custom_id
            line = Output(line_id(batch.id, number), custom, None, EXPIRED)
            bad.write(msgspec.json.encode(line) + b"\n")
            count += 1
    return count


def _id(batch: Batch, kind: str) -> str:
    """The same each time, so that a crash leaves nothing behind that is not written anew."""
    return f"file-{hashlib.blake2b(f'{batch.id} {kind}'.encode(), digest_size=12).hexdigest()}"


def _fresh(path: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _file(batch: Batch, path: Path, kind: str) -> File | None:
    """None: nothing is in it."""
    size, now = path.stat().st_size, int(time.time())
    if not size:
        path.unlink()
        return None
    return File(
        id=path.name, tenant=batch.tenant, project=batch.project, key=batch.key,
        name=f"{batch.id}_{kind}.jsonl", purpose="batch_output", bytes=size, created=now,
        expires=now + batch.keep,
    )  # fmt: skip
