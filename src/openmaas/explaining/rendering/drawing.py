"""Pictures asked of a child process, so that this one never imports matplotlib."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import Any

import msgspec

from openmaas.errors import ConfigurationError, EngineFailed
from openmaas.explaining.explanation import Explanation
from openmaas.explaining.rendering.picture import NOT_DRAWN, NOT_INSTALLED
from openmaas.placement.local import PASSED_ON

AT_ONCE = 2
SECONDS = 60.0


class Drawing:
    """At most ``AT_ONCE`` pictures at a time; others wait for their turn."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def drawn(
        self, explanation: Explanation, given: Any, *, dark: bool, seconds: float = SECONDS
    ) -> bytes:
        """A PNG.

        Args:
            given: the explained input.
            seconds: after which the child is killed.

        Raises:
            ConfigurationError: matplotlib is not installed.
            EngineFailed: it cannot be drawn, or not in that time.
        """
        job = await asyncio.to_thread(_encoded, explanation, given, dark)
        async with self._turns:
            return await _asked(job, seconds)


def _encoded(explanation: Explanation, given: Any, dark: bool) -> bytes:
    try:
        return msgspec.json.encode({"explanation": explanation, "input": given, "dark": dark})
    except (TypeError, ValueError) as error:
        raise EngineFailed(f"the picture's input is no JSON: {error}") from None


async def _asked(job: bytes, seconds: float) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "openmaas.explaining.rendering.picture",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            drawn, errors = await process.communicate(job)
    except TimeoutError:
        raise EngineFailed(f"the picture was not drawn within {seconds:g} s") from None
    finally:
        if process.returncode is None:  # out of time, or nobody waits for it any more
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode == NOT_INSTALLED:
        raise ConfigurationError("pictures need matplotlib: pip install 'openmaas[train]'")
    if process.returncode != 0 or not drawn:
        said = errors.decode(errors="replace").strip().splitlines()
        why = said[-1][:300] if process.returncode == NOT_DRAWN and said else "the child broke"
        raise EngineFailed(f"the picture cannot be drawn: {why}")
    return drawn


def _environment() -> dict[str, str]:
    """No secret, and one thread: a picture is no matrix product."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
