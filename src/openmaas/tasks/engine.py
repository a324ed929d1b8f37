"""What a task asks of the engine that runs it. ``runtimes.base.TokenRuntime`` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from openmaas.inference import ModelInfo


class Tokens(Protocol):
    """The vocabulary and conversation form of a language model."""

    info: ModelInfo

    def encode(self, text: str) -> list[int]: ...

    def piece(self, token: int) -> bytes: ...

    def start(self) -> list[int]: ...

    def chat_template(self) -> str | None: ...

    def special_tokens(self) -> dict[str, str]: ...


class Sampled(Protocol):
    """A token that was chosen."""

    id: int
    logprob: float | None
    alternatives: list[tuple[int, float]]


class Progress(Protocol):
    """News of one sequence; ``finish`` is None, "stop" or "length"."""

    id: int
    finish: str | None
    cached_tokens: int

    @property
    def tokens(self) -> Sequence[Sampled]: ...
