"""What answers are made into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Number: TypeAlias = bool | int | float | str
Nested: TypeAlias = "Number | Sequence[Nested]"


@dataclass(frozen=True)
class Usage:
    """What a call used, in tokens."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Reply:
    """A model's turn. ``tool_calls`` are as OpenAI's API has them."""

    text: str
    finish_reason: str
    usage: Usage
    tool_calls: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Classification:
    """The likeliest label of a text with its score, and the scores of all, the highest first."""

    label: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Entity:
    """Characters ``start`` to ``end`` of a text, and what they are."""

    start: int
    end: int
    text: str
    label: str
    score: float


@dataclass(frozen=True)
class Translation:
    """``score`` is the model's mean probability of what it wrote, where it gives one."""

    text: str
    source: str
    target: str
    score: float | None
    model: str


@dataclass(frozen=True)
class Relevance:
    """Which document, and how relevant it is, in [0, 1]."""

    index: int
    score: float


@dataclass(frozen=True)
class Output:
    """One output of a network; ``data`` is flat, row-major."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Number]

    def rows(self) -> list[Nested]:
        """The data nested as the shape says."""
        nested: list[Nested] = list(self.data)
        for length in reversed(self.shape[1:]):
            nested = [nested[i : i + length] for i in range(0, len(nested), length or 1)]
        return nested


@dataclass(frozen=True)
class Health:
    """``status`` is "ok" or "loading"; ``models`` maps names to states."""

    status: str
    version: str
    models: dict[str, str]
