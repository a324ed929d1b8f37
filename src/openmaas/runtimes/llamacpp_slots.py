"""llama.cpp's callbacks, brought into the form of steps.

Each running sequence has a thread that waits in the engine and puts what it hears into a
queue; ``step`` empties the queue.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from openmaas.runtimes.base import SampledToken, Step

log = logging.getLogger(__name__)

_WAIT = 0.05  # seconds that a step waits for news: newcomers and cancellations wait so long
_CLOSING = 10.0  # seconds that sequences have to end when the runtime closes

_MOST_LOST = 3  # tokens before the one that completes a character of four bytes


class _Progress:
    """A running sequence. Its identity tells late news of an earlier one under the same id."""

    def __init__(self, id: int, logprobs: int | None) -> None:
        self.id = id
        self.logprobs = logprobs
        self.count = 0  # tokens reported


class Slots:
    """
    Args:
        server: of xllamacpp.
        count: sequences that run at once.
        pieces: bytes of tokens, by id.
        eos: the token to report where the engine says only that an answer ended by itself.
    """

    def __init__(self, server: Any, count: int, pieces: list[bytes], eos: int) -> None:
        self._server = server
        self._pieces = pieces
        self._ids: dict[bytes, int] = {}
        for id, piece in reversed(list(enumerate(pieces))):
            if piece:
                self._ids[piece] = id
        self._eos = eos
        self._jobs: queue.SimpleQueue[tuple[_Progress, dict[str, Any]] | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[tuple[_Progress, dict[str, Any] | None]] = queue.SimpleQueue()
        self._running: dict[int, _Progress] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"slot-{at}", daemon=True)
            for at in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def add(self, id: int, body: dict[str, Any], logprobs: int | None) -> None:
        progress = self._running[id] = _Progress(id, logprobs)
        self._jobs.put((progress, body))

    def cancel(self, id: int) -> None:
        # The thread sees it at the next token, or part of a prompt, and stops the engine.
        self._running.pop(id, None)

    def busy(self) -> bool:
        return bool(self._running)

    def step(self) -> list[Step]:
        """What has been heard since the last step; empty if nothing was for a while."""
        if not self._running:
            return []
        steps: dict[int, Step] = {}
        try:
            news = self._news.get(timeout=_WAIT)
            while True:
                self._hear(*news, steps)
                news = self._news.get_nowait()
        except queue.Empty:
            pass
        for step in steps.values():
            if step.finish is not None:
                self._running.pop(step.id, None)
        return [step for step in steps.values() if step.tokens or step.finish is not None]

    def close(self) -> None:
        self._running.clear()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(_CLOSING)
        self._server = None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            progress, body = job
            if not self._wanted(progress):
                continue

            def heard(chunk: dict[str, Any], progress: _Progress = progress) -> bool:
                self._news.put((progress, chunk))
                return not self._wanted(progress)  # True stops the engine

            try:
                self._server.handle_completions(body, heard)
            except Exception:  # whatever it is, it is this sequence's alone
                log.exception("llama.cpp failed")
            self._news.put((progress, None))

    def _wanted(self, progress: _Progress) -> bool:
        return self._running.get(progress.id) is progress

    def _hear(
        self, progress: _Progress, chunk: dict[str, Any] | None, steps: dict[int, Step]
    ) -> None:
        if not self._wanted(progress):
            return
        step = steps.setdefault(progress.id, Step(id=progress.id, tokens=[]))
        if step.finish is not None:
            return
        if chunk is None:
            step.finish, step.failed = "llama.cpp ended it without a reason", True
        elif "error" in chunk:
            log.warning("llama.cpp refused: %s", str(chunk["error"].get("message"))[:200])
            step.finish, step.failed = "llama.cpp refused it", True
        else:
            self._read(progress, chunk, step)

    def _read(self, progress: _Progress, chunk: dict[str, Any], step: Step) -> None:
        choice = chunk["choices"][0]
        said = (choice.get("logprobs") or {}).get("content") or []
        usage = chunk.get("usage")
        count = usage["completion_tokens"] if usage else chunk.get("timings", {}).get("predicted_n")
        for entry in said:
            step.tokens += self._lost(progress, entry, count)
            step.tokens.append(_token(entry, progress.logprobs))
            progress.count += 1
        reason = choice.get("finish_reason")
        if reason is None:
            return
        missing = (count or 0) - progress.count
        if reason == "stop" and missing > 0:
            missing -= 1
        # An answer that ends within a character: its bytes are lost, its tokens count.
        step.tokens += [SampledToken(self._eos) for _ in range(missing)]
        if reason == "stop":
            step.tokens.append(SampledToken(self._eos))
        step.finish = "stop" if reason == "stop" else "length"

    def _lost(
        self, progress: _Progress, entry: dict[str, Any], count: int | None
    ) -> list[SampledToken]:
        """Tokens before this one that the engine did not report: they began its character."""
        missing = 0 if count is None else count - progress.count - 1
        if missing <= 0:
            return []
        whole = bytes(entry["bytes"])
        own = self._pieces[entry["id"]]
        before = whole[: len(whole) - len(own)] if whole.endswith(own) else b""
        split = self._split(before, missing) if missing <= _MOST_LOST else None
        found = split or [self._eos] * missing
        progress.count += len(found)
        return [SampledToken(id) for id in found]

    def _split(self, text: bytes, count: int) -> list[int] | None:
        """``text`` as exactly ``count`` tokens, the first as long as possible."""
        if count == 0:
            return [] if not text else None
        for length in range(len(text) - count + 1, 0, -1):
            id = self._ids.get(text[:length])
            rest = self._split(text[length:], count - 1) if id is not None else None
            if id is not None and rest is not None:
                return [id, *rest]
        return None


def _token(entry: dict[str, Any], logprobs: int | None) -> SampledToken:
    if logprobs is None:
        return SampledToken(entry["id"])
    alternatives = [(other["id"], other["logprob"]) for other in entry["top_logprobs"][:logprobs]]
    return SampledToken(entry["id"], entry["logprob"], alternatives)
