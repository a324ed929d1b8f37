"""Work on untrusted data in a process of its own: bytes in, bytes out, and no rights."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

import openmaas
from openmaas.config import told_children
from openmaas.errors import InvalidRequest, Overloaded

log = logging.getLogger(__name__)

SANDBOX = "openmaas.placement.sandbox"  # run as a program
SECONDS = 120
ADDRESS_SPACE = 4 << 30
FILE_BYTES = 64 << 20  # of what libraries keep for themselves
NICE = 10  # requests come first where the cores are contended
AT_ONCE = 2  # in one server; more wait

_turns = asyncio.Semaphore(AT_ONCE)


async def confined(
    module: str, asked: bytes, *, readable: Sequence[Path] = (), most_bytes: int
) -> bytes:
    """What ``python -m MODULE`` writes when it is given these bytes. It is ended when the task
    that awaits it is.

    Args:
        readable: what it may read beside Python's own libraries; it writes in a scratch folder.
        most_bytes: of its answer.

    Raises:
        InvalidRequest: it needs more time or memory than it may, or breaks.
        Overloaded: the system starts no more processes.
    """
    async with _turns:
        scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="openmaas-explain-"))
        try:
            return await _run(_command(module, scratch, readable), asked, scratch, most_bytes)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, True)


async def _run(command: list[str], asked: bytes, scratch: Path, most_bytes: int) -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=_environment(scratch),
            cwd=scratch,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise Overloaded(f"no process could be started: {error.strerror}", retry_after=1) from None
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    try:
        async with asyncio.timeout(SECONDS):
            answer = await _exchange(process, asked, most_bytes)
            status = await process.wait()
    except TimeoutError:
        raise InvalidRequest(f"it takes more than {SECONDS} seconds: ask for less") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if status != 0:
        log.warning("%s ended with status %s", command[-1], status)
        raise InvalidRequest("it takes more memory than it may, or is made to break its reader")
    return answer


async def _exchange(process: asyncio.subprocess.Process, asked: bytes, most: int) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its status says why
        process.stdin.write(asked)
        await process.stdin.drain()
        process.stdin.close()
    parts, size = [], 0
    while part := await process.stdout.read(1 << 20):
        parts.append(part)
        size += len(part)
        if size > most:  # it is believed nothing
            raise InvalidRequest(f"the answer is over {most} bytes: ask for less")
    return b"".join(parts)


def _command(module: str, scratch: Path, readable: Sequence[Path]) -> list[str]:
    limits = {"address_space": ADDRESS_SPACE, "cpu_seconds": SECONDS, "file_bytes": FILE_BYTES}
    command = [sys.executable, "-m", SANDBOX, "--write", str(scratch)]
    for path in (scratch, *readable):
        command += ["--read", str(path)]
    return [*command, "--limits", msgspec.json.encode(limits).decode(), "--module", module]


def _environment(scratch: Path) -> dict[str, str]:
    """Nothing of ours but where the program lies: no key, no token, no proxy."""
    return {
        "PYTHONPATH": str(Path(openmaas.__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "MPLCONFIGDIR": str(scratch),
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve far more than they use
    } | told_children()
