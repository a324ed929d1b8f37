"""The files that a batch ends with, made of its answers."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import msgspec

from openmaas.batches.files import RECORD, File, Files, sealed_name
from openmaas.batches.lines import LineError, Opens, Output, line_id, raw_lines, read_one
from openmaas.batches.records import Batch, Tokens
from openmaas.batches.results import Results
from openmaas.disk import disk_errors, sync_folder
from openmaas.encryption.sealed import SealedWriter

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
    key = files.keyring.key(batch.tenant)
    completed = failed = 0
    used = [0, 0, 0]
    with disk_errors():
        files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as opened:
            writers = []
            for kind in ("output", "error"):
                id = _id(batch, kind)
                writer = SealedWriter.create(
                    files.path(id), key, sealed_name(id), cut=RECORD, replace=True
                )
                opened.callback(writer.drop)
                writers.append(writer)
            good, bad = writers
            for one in results.read():
                (good if one.ok else bad).write(one.raw)
                completed, failed = completed + one.ok, failed + (not one.ok)
                for at, count in enumerate((one.used.input, one.used.cached, one.used.output)):
                    used[at] += count
            if expired:
                opens = partial(files.open, batch.input)
                failed += _write_expired(batch, opens, results.done, bad)
            for writer in writers:
                writer.finish()
        sync_folder(files.folder)
    return Finished(
        _file(files, batch, good.size, "output"), _file(files, batch, bad.size, "error"),
        completed, failed, Tokens(*used),
    )  # fmt: skip


def _write_expired(batch: Batch, opens: Opens, done: bytearray, bad: SealedWriter) -> int:
    count = 0
    for number, offset, _ in raw_lines(opens):
        if not done[number]:
            custom = read_one(opens, number, offset).custom_id
            line = Output(line_id(batch.id, number), custom, None, EXPIRED)
            bad.write(msgspec.json.encode(line) + b"\n")
            count += 1
    return count


def _id(batch: Batch, kind: str) -> str:
    """The same each time, so that a crash leaves nothing behind that is not written anew."""
    return f"file-{hashlib.blake2b(f'{batch.id} {kind}'.encode(), digest_size=12).hexdigest()}"


def _file(files: Files, batch: Batch, size: int, kind: str) -> File | None:
    """None: nothing is in it."""
    id, now = _id(batch, kind), int(time.time())
    if not size:
        files.path(id).unlink()
        return None
    return File(
        id=id, tenant=batch.tenant, project=batch.project, key=batch.key,
        name=f"{batch.id}_{kind}.jsonl", purpose="batch_output", bytes=size, created=now,
        expires=now + batch.keep,
    )  # fmt: skip
