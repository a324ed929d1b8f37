"""Starts the process that converts, watches it, and believes nothing of what it says."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

import openmaas
from openmaas.config import told_children
from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.convert import ERRORS, SAID, Answer, Job
from openmaas.registry.fetching import Progress
from openmaas.registry.manifest import MANIFEST_BYTES, Description
from openmaas.registry.recognise import Recognised

SANDBOX = "openmaas.placement.sandbox"  # run as a program: the registry does not import it
SECONDS = 3600.0
CPU_SECONDS = 4 * 3600
FILE_BYTES = 256 << 30
KERAS = ("keras", "keras_classifier", "keras_tabular", "keras_seq2seq")  # kinds
ROWS = ("rows.npz", "rows.json")  # a trained network's own answers
LINE = 500  # characters of what it says that are passed on


def convert(recognised: Recognised, scratch: Path, progress: Progress) -> Description:
    """Converts what was recognised in ``scratch/source`` to files in ``scratch/out``.

    A trained network, which comes with rows to compare with, is exported by Keras's OpenVINO
    backend, and by torch only where that fails.

    Raises:
        ArtifactRefused: the model is unsafe, damaged or of no kind that can be served.
        ConversionFailed: it could not be converted, or the result differs from the original.
        StorageFull
    """
    beside = recognised.path if recognised.path.is_dir() else recognised.path.parent
    if recognised.kind in KERAS and any((beside / name).is_file() for name in ROWS):
        try:
            return _once(recognised, scratch, progress, "openvino")
        except ConversionFailed as error:
            if importlib.util.find_spec("torch") is None:
                raise
            progress(0, None, f"once more, through torch: {error.message}")
    return _once(recognised, scratch, progress, "torch")


def _once(recognised: Recognised, scratch: Path, progress: Progress, backend: str) -> Description:
    """One process, whose Keras has one backend."""
    job = Job(recognised.kind, str(recognised.path), str(scratch / "out"))
    (scratch / "result.json").unlink(missing_ok=True)
    for name in ("out", "tmp"):
        shutil.rmtree(scratch / name, ignore_errors=True)
        (scratch / name).mkdir()
    with open(scratch / "log", "w+b") as log:
        process = subprocess.Popen(
            _command(scratch),
            env=_environment(scratch, backend),
            cwd=scratch,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            _watch(process, msgspec.json.encode(job), progress)
        finally:
            # The whole group, and always: no child of it may touch the files after this.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return _answer(scratch, process.returncode, _tail(log))


def _command(scratch: Path) -> list[str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = {
        "address_space": max(memory, 16 << 30),
        "cpu_seconds": CPU_SECONDS,
        "file_bytes": FILE_BYTES,
    }
    return [
        *(sys.executable, "-m", SANDBOX, "--write", str(scratch), "--read", str(scratch)),
        *("--limits", msgspec.json.encode(limits).decode()),
        *("--module", "openmaas.registry.convert"),
    ]


def _environment(scratch: Path, backend: str) -> dict[str, str]:
    """Nothing of ours but where the program lies: no key, no token, no proxy."""
    return {
        "PYTHONPATH": str(Path(openmaas.__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(scratch / "tmp"),
        "TMPDIR": str(scratch / "tmp"),
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "HF_HUB_OFFLINE": "1",
        "KERAS_BACKEND": backend,
    } | told_children()


def _watch(process: subprocess.Popen[bytes], job: bytes, progress: Progress) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once; its exit status tells
        process.stdin.write(job)
        process.stdin.close()
    end = time.monotonic() + SECONDS
    pending = b""
    with selectors.DefaultSelector() as selector, process.stdout as out:
        selector.register(out, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, end - time.monotonic())):
                raise ConversionFailed(f"The conversion took longer than {SECONDS:.0f} seconds.")
            data = os.read(out.fileno(), 65536)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            pending = pending[-LINE:]
            for line in lines:
                text = line.decode(errors="replace")
                if text.startswith(SAID):
                    progress(0, None, _printable(text.removeprefix(SAID)))
    try:
        process.wait(max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise ConversionFailed("The conversion did not end.") from None


def _answer(scratch: Path, status: int, said: str) -> Description:
    try:
        with open(scratch / "result.json", "rb") as file:
            answer = msgspec.json.decode(file.read(MANIFEST_BYTES), type=Answer)
    except (OSError, msgspec.DecodeError):
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise ConversionFailed(f"The conversion process died ({how}). {said}".strip()) from None
    if answer.error is not None:
        raise ERRORS.get(answer.error, ConversionFailed)(_printable(answer.message, 2000))
    if answer.description is None:
        raise ArtifactRefused("The conversion process gave no answer.")
    return answer.description


def _tail(log: BinaryIO) -> str:
    log.seek(max(0, log.seek(0, 2) - 4096))
    lines = log.read(4096).decode(errors="replace").strip().splitlines()
    return _printable(lines[-1]) if lines else ""


def _printable(text: str, limit: int = LINE) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:limit])
