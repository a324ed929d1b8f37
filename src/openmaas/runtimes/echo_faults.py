"""Faults that the echo runtime can be told to have."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

import msgspec

KINDS = ("crash", "segv", "hang", "oom", "nan", "slow")
_MAGIC = re.compile(r"<<(crash|segv|hang|oom|nan|slow)(?::(\d{1,9}))?>>")


class Fault(msgspec.Struct, frozen=True):
    """``crash``: the process exits; ``segv``: it dies of SIGSEGV; ``hang``: it never returns;
    ``oom``: memory runs out; ``nan``: its numbers are NaN; ``slow``: one token a second."""

    kind: str
    after: int = 0  # tokens of the sequence that come before it


def written_in(text: str) -> Fault | None:
    """The fault that a prompt asks for: ``<<crash>>``, or ``<<crash:5>>`` after five tokens."""
    found = _MAGIC.search(text)
    return Fault(found[1], int(found[2] or 0)) if found else None


def happen(fault: Fault, memory: int) -> None:
    """Does not return, but for ``nan`` and ``slow``, which are about numbers and pace.

    Args:
        memory: bytes to really take before memory is said to be out.
    """
    action = _ACTIONS.get(fault.kind)
    if action is not None:
        action(memory)


def _crash(memory: int) -> None:
    os._exit(134)


def _segv(memory: int) -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
    _hang(memory)  # until the signal arrives


def _hang(memory: int) -> None:
    while True:
        time.sleep(3600)


def _oom(memory: int) -> None:
    taken = [b"\1" * (1 << 20) for _ in range(memory >> 20)]
    raise MemoryError(f"after {len(taken)} MiB")


_ACTIONS: dict[str, Callable[[int], None]] = {
    "crash": _crash,
    "segv": _segv,
    "hang": _hang,
    "oom": _oom,
}
