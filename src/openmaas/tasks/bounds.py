"""Time and memory limits on a piece of Python code that is not trusted."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_AGAIN = 0.05  # seconds between alarms, should the first be lost in a callback from C
_PAGE = resource.getpagesize()
_STATM = Path("/proc/self/statm")


class TimeUp(BaseException):
    """Time ran out. No ``Exception``, so that no handler within the limited code keeps it."""


@contextmanager
def limited(seconds: float, memory: int) -> Iterator[None]:
    """Stops the body after ``seconds``, and allocations beyond ``memory`` more bytes than now.

    Built on SIGALRM and RLIMIT_AS: main thread only, and the process's own timer is in use
    meanwhile. A single operation within C code is not interrupted by the alarm; the memory
    limit bounds what such an operation can do.

    Raises:
        TimeUp: time ran out.
        MemoryError: the body asked for too much.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(_STATM.read_bytes().split(maxsplit=1)[0])
    most = pages * _PAGE + memory
    if soft != resource.RLIM_INFINITY:
        most = min(most, soft)
    before = signal.signal(signal.SIGALRM, _time_up)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def _time_up(signum: int, frame: Any) -> None:
    raise TimeUp
