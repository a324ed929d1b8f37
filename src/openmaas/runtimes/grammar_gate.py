"""Lets only such JSON schemas into the engine as compile, and in bounded time.

OpenVINO GenAI compiles a schema within a step. One that fails there leaves all sequences of
the step in disorder, and one that takes minutes stops them. So each is compiled in a process of
its own first (``grammar_check``), which is killed if it takes too long.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import select
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

SECONDS = 1.5  # of a processor's time to compile a schema …
MOST_SECONDS = 10.0  # … and in all, on a machine that has much else to do
_START_SECONDS = 60.0  # to load the compiler
_LOOK_SECONDS = 0.1  # between two looks at its use of a processor
_TICKS = os.sysconf("SC_CLK_TCK")
_REMEMBERED = 512  # verdicts


class Verdict:
    """Whether a schema compiles; ``error`` is None if it does."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self.error: str | None = None

    def known(self, wait: float = 0.0) -> bool:
        return self._known.wait(wait)

    def settle(self, error: str | None) -> None:
        self.error = error
        self._known.set()


class GrammarGate:
    """
    Args:
        folder: the model's artifact, for its vocabulary.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._queue: queue.SimpleQueue[tuple[str, Verdict] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, schema: str) -> Verdict:
        """The verdict on a schema, which becomes known some time later."""
        digest = hashlib.sha256(schema.encode()).digest()
        verdict = self._verdicts.get(digest)
        if verdict is None:
            verdict = self._verdicts[digest] = Verdict()
            if len(self._verdicts) > _REMEMBERED:
                self._verdicts.popitem(last=False)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="grammars", daemon=True)
                self._thread.start()
            self._queue.put((schema, verdict))
        self._verdicts.move_to_end(digest)
        return verdict

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            schema, verdict = item
            try:
                verdict.settle(self._compile(schema.encode()))
            except Exception:  # a verdict that never comes would keep its request waiting
                log.exception("a schema could not be checked")
                verdict.settle("could not be checked")
                self._end()
        self._end()

    def _compile(self, schema: bytes) -> str | None:
        process = self._process
        if process is None or process.poll() is not None:
            self._end()
            process = self._process = self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(struct.pack("<I", len(schema)) + schema)
            process.stdin.flush()
        except BrokenPipeError:
            self._end()
            return self._compile(schema)
        began = _used(process.pid)
        answer = _line(process, MOST_SECONDS, lambda: _used(process.pid) - began > SECONDS)
        if answer is None:
            log.warning("a schema took longer than %s s to compile", SECONDS)
            self._end()
            return "takes too long to compile"
        if not answer and process.wait() == 0:  # it had ended for idleness just now
            return self._compile(schema)
        return None if answer == b"ok" else "cannot be compiled"

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "openmaas.runtimes.grammar_check", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the compiler's messages quote the schema
        )
        self._process = process
        if _line(process, _START_SECONDS) != b"ready":
            raise RuntimeError("the schema compiler does not start")
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:  # what was written last is not wanted any more
                        continue


def _used(pid: int) -> float:
    """Seconds of processors' time that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _line(
    process: subprocess.Popen[bytes], seconds: float, up: Callable[[], bool] = lambda: False
) -> bytes | None:
    """The next line; empty when the process has ended; None when time is up, or ``up``."""
    assert process.stdout is not None
    until = time.monotonic() + seconds
    line = b""
    while not line.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or up():
            return None
        if not select.select([process.stdout], [], [], min(left, _LOOK_SECONDS))[0]:
            continue
        part = process.stdout.read1(64)  # type: ignore[attr-defined]
        if not part:
            return b""
        line += part
    return line.strip()
