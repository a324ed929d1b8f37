"""One choice of an answer: what its sequence's tokens have become so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from openmaas.inference import Delta, FinishReason, TokenLogprob, ToolCallDelta
from openmaas.tasks.engine import Sampled
from openmaas.tasks.text import Detokenizer, StopScanner

Piece = Callable[[int], bytes]


class Calls(Protocol):
    """Finds tool calls in text; ``count`` so far."""

    count: int

    def feed(self, text: str) -> tuple[str, list[ToolCallDelta]]: ...

    def finish(self) -> tuple[str, list[ToolCallDelta]]: ...


class Choice:
    """Tokens → deltas. What runs once for every token of every answer is kept short.

    Args:
        echoed: tokens of the prompt that the engine reports before its own.
        prelude: text to send first, which stop strings do not apply to.
    """

    def __init__(
        self,
        index: int,
        piece: Piece,
        *,
        stops: Sequence[str] = (),
        calls: Calls | None = None,
        logprobs: bool = False,
        echoed: int = 0,
        prelude: str = "",
    ) -> None:
        self.index = index
        self.done = False
        self.tokens = 0  # generated, the end-of-sequence token included
        self._told = 0  # of them, those that deltas have covered
        self._piece = piece
        self._detokenizer = Detokenizer()
        self._feed = self._detokenizer.feed
        self._stops = StopScanner(stops) if stops else None
        self._calls = calls
        self._logprobs: list[tuple[TokenLogprob, int]] | None = [] if logprobs else None
        self._echoed = echoed
        self._prelude = prelude
        self._read = 0  # characters decoded
        self._sent = 0  # characters that have left as text

    def advance(self, tokens: Sequence[Sampled], finish: str | None) -> list[Delta]:
        """The deltas of one step: at the most one with text, then the one that finishes."""
        text, self._prelude = self._prelude, ""
        if self._echoed and tokens:
            tokens, text = self._echo(tokens)
        if self._logprobs is None and self._stops is None:
            self.tokens += len(tokens)
            if len(tokens) == 1:
                text += self._feed(self._piece(tokens[0].id))
            elif tokens:
                text += self._feed(b"".join([self._piece(token.id) for token in tokens]))
        else:
            text += self._each(tokens, finish)
        if self._stops is not None and self._stops.stopped:
            finish = "stop"
        if finish is None:
            return self._deltas(text, None)
        self.done = True
        return self._deltas(text + self._rest(), "length" if finish == "length" else "stop")

    def _echo(self, tokens: Sequence[Sampled]) -> tuple[Sequence[Sampled], str]:
        """The prompt's own tokens, which stop strings do not apply to; and the others."""
        own = tokens[: self._echoed]
        self._echoed -= len(own)
        text = "".join([self._one(token) for token in own])
        if not self._echoed:
            end = self._detokenizer.finish()
            self._read += len(end)
            text += end
        return tokens[len(own) :], text

    def _each(self, tokens: Sequence[Sampled], finish: str | None) -> str:
        """Token by token, up to the one that completes a stop string."""
        text = ""
        for position, token in enumerate(tokens):
            self.tokens += 1
            last = position == len(tokens) - 1
            if last and finish == "stop" and not self._piece(token.id):
                break  # the end-of-sequence token is no part of the answer
            one = self._one(token)
            if self._stops is not None:
                one = self._stops.feed(one)
            text += one
            if self._stops is not None and self._stops.stopped:
                break
        return text

    def _one(self, token: Sampled) -> str:
        piece = self._piece(token.id)
        text = self._feed(piece)
        if self._logprobs is not None:
            alternatives = [
                (raw.decode(errors="replace"), raw, logprob)
                for raw, logprob in [(self._piece(id), lp) for id, lp in token.alternatives]
            ]
            entry = TokenLogprob(
                text=text, bytes=piece, logprob=token.logprob, alternatives=alternatives
            )
            self._logprobs.append((entry, self._read))
        self._read += len(text)
        return text

    def _rest(self) -> str:
        """What was held back, once no more tokens come."""
        if self._stops is None:
            return self._detokenizer.finish()
        if self._stops.stopped:
            return ""
        # The end of an incomplete character may complete a stop string, in theory.
        text = self._stops.feed(self._detokenizer.finish())
        return text + self._stops.finish()

    def _deltas(self, text: str, finish: FinishReason | None) -> list[Delta]:
        made: list[Delta] = []
        calls: list[ToolCallDelta] | None = None
        self._sent += len(text)
        if self._calls is not None:
            text, calls = self._calls.feed(text)
            if finish is not None:
                more, others = self._calls.finish()
                text, calls = text + more, calls + others
                if self._calls.count and finish == "stop":
                    finish = "tool_calls"
        logprobs = self._ready(finish) if self._logprobs else None
        if text or calls or logprobs:
            made.append(
                Delta(
                    index=self.index,
                    text=text,
                    logprobs=logprobs,
                    tool_calls=calls or None,
                    tokens=self._untold(),
                )
            )
        if finish is not None:
            made.append(Delta(index=self.index, finish=finish, tokens=self._untold()))
        return made

    def _untold(self) -> int:
        """Tokens since the last delta."""
        new, self._told = self.tokens - self._told, self.tokens
        return new

    def _ready(self, finish: FinishReason | None) -> list[TokenLogprob] | None:
        """Tokens whose text has left, or at the end has begun to: one that a stop string cuts
        is told, one behind the cut is not."""
        assert self._logprobs is not None
        ready = 0
        for entry, start in self._logprobs:
            end = start + len(entry.text)
            if end > self._sent and (finish is None or start >= self._sent):
                break
            ready += 1
        made = [entry for entry, _ in self._logprobs[:ready]]
        del self._logprobs[:ready]
        return made or None
