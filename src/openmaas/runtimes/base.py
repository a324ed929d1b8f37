"""The two interfaces between a worker and an engine.

A runtime lives in a worker process, is called from one thread, and is built by
``open(folder, options)`` of its module, where ``folder`` is a verified artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from openmaas.inference import Answer, Failure, ModelInfo, Request, Sampling


class Runtime(Protocol):
    info: ModelInfo

    def close(self) -> None:
        """Frees the engine. Called once, after the last request."""


class BatchRuntime(Runtime, Protocol):
    """Encoders and ordinary networks: one call answers a whole batch."""

    def size(self, request: Request) -> int:
        """Cost of a request in the unit that bounds a batch: rows or tokens.

        Raises:
            InvalidRequest: the request does not fit this model (name, shape, datatype, length).
        """

    def run(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """One answer per request, in order. Raising fails the whole batch."""


class SampledToken(msgspec.Struct):
    """A token that the engine chose. Log-probabilities are natural; ``None``: not asked."""

    id: int
    logprob: float | None = None
    alternatives: list[tuple[int, float]] = []  # (token id, logprob), likeliest first


class Step(msgspec.Struct):
    """News of one sequence after an engine step."""

    id: int
    tokens: list[SampledToken]
    finish: str | None = None  # "stop" (end-of-sequence token), "length", or an error message …
    failed: bool = False  # … when True: the engine gave this sequence up
    invalid: bool = False  # … and that is the fault of what was asked
    cached_tokens: int = 0


class TokenRuntime(Runtime, Protocol):
    """Language models: sequences join and leave between steps (continuous batching)."""

    def encode(self, text: str) -> list[int]:
        """Token ids; special tokens written in the text are recognised, none is added."""

    def start(self) -> list[int]:
        """Ids that raw prompts (not conversations) begin with: the BOS token, or none."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; empty for special tokens."""

    def chat_template(self) -> str | None:
        """The model's own Jinja template, if it has one."""

    def special_tokens(self) -> dict[str, str]:
        """Texts of ``bos_token``, ``eos_token`` … as chat templates name them."""

    def add(self, id: int, prompt: list[int], sampling: Sampling, *, echo: bool = False) -> None:
        """Starts a sequence. ``sampling.stop`` is the worker's business, not the engine's.
        With ``echo`` the first step reports the prompt's tokens with their log-probabilities.

        Raises:
            InvalidRequest: the engine cannot run it as asked.
        """

    def cancel(self, id: int) -> None:
        """Drops a sequence; no step reports it again. Unknown ids are ignored."""

    def step(self) -> list[Step]:
        """Advances what runs by one step, waiting for the engine. Empty when idle."""

    def busy(self) -> bool:
        """Whether any sequence runs."""


class Scores(TokenRuntime, Protocol):
    """A language model that also reads texts without continuing them."""

    def score(self, id: int, prompt: list[int], start: int, alternatives: int, salt: str) -> None:
        """Starts a sequence that is read and not continued: one step ends it, and reports
        ``prompt[start:]`` with log-probabilities and so many alternatives. ``start`` ≥ 1.
        Sequences with the same ``salt`` may share what the engine keeps of their beginnings.

        Raises:
            InvalidRequest: the engine cannot run it as asked.
        """
