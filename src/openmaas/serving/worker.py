"""A worker process: opens one artifact in one runtime and serves it over its socket.

Run as ``python -m openmaas.serving.worker SPEC`` by a placement, confined, with an environment
that holds no secret and a connected socket as standard input. It ends when its socket does.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Any, cast

import msgspec

from openmaas.errors import ArtifactRefused, ConfigurationError, OpenMaaSError
from openmaas.frames import Ready, Refused
from openmaas.placement import sandbox
from openmaas.placement.base import WorkerSpec
from openmaas.registry.artifacts import ArtifactStore
from openmaas.runtimes import open_runtime
from openmaas.runtimes.base import BatchRuntime, Runtime, TokenRuntime
from openmaas.serving import batching
from openmaas.serving.batching import Batching
from openmaas.serving.inbox import Inbox, Line

log = logging.getLogger("openmaas.worker")

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4


def main(spec_json: str) -> None:
    """Loads, says Ready or Refused, then serves until the socket ends."""
    _die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    spec = msgspec.json.decode(spec_json, type=WorkerSpec)
    os.nice(spec.nice)
    line = Line(_standard_input())
    try:
        cuts, options = _split(spec.options)
        runtime = _load(spec, options)
    except OpenMaaSError as error:
        line.send([Refused(code=error.code, message=error.message)])
        return
    inbox = Inbox(line)
    info = msgspec.structs.replace(runtime.info, layers=sandbox.enforced())
    line.send([Ready(info=info)])
    if hasattr(runtime, "step"):
        from openmaas.serving import stepping  # templates and grammars: language models alone

        stepping.serve(cast(TokenRuntime, runtime), inbox, line)
    else:
        batching.serve(cast(BatchRuntime, runtime), inbox, line, cuts)


def _standard_input() -> socket.socket:
    """The connection, out of the reach of what this process starts."""
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return connection


def _load(spec: WorkerSpec, options: dict[str, Any]) -> Runtime:
    folder = ArtifactStore(Path(spec.artifacts)).open(spec.digest)
    try:
        return open_runtime(spec.runtime, folder, options)
    except OpenMaaSError:
        raise
    except (RuntimeError, ValueError, OSError) as error:  # what engines raise on a bad file
        log.exception("loading failed")
        raise ArtifactRefused(f"{spec.runtime} cannot load it: {error}") from error


def _split(options: dict[str, Any]) -> tuple[Batching, dict[str, Any]]:
    """Options of the batcher (``batch_…``) and those of the runtime."""
    own = {k.removeprefix("batch_"): v for k, v in options.items() if k.startswith("batch_")}
    rest = {k: v for k, v in options.items() if not k.startswith("batch_")}
    try:
        return msgspec.convert(own, Batching), rest
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"option batch_…: {error}") from None


def _die_with_parent() -> None:
    # The kernel's own promise, for the time before the reader thread watches the socket.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_DUMPABLE, 0)  # no core file of prompts, no ptrace by its own user


if __name__ == "__main__":
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        sys.exit("started by OpenMaaS itself; see `openmaas serve --help`")
    main(sys.argv[1])
