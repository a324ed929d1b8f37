"""How a task puts requests to the model that it works with, whatever engine runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import EngineFailed
from openmaas.inference import (
    Answer,
    Chat,
    Embed,
    Embedded,
    Loglikelihood,
    Loglikelihoods,
    Message,
    ModelInfo,
    Request,
    Score,
    Scored,
    Tokenize,
    Tokenized,
)

T = TypeVar("T")
AT_ONCE = 1000  # texts of one request


class Model(Protocol):
    """A deployed model."""

    @property
    def info(self) -> ModelInfo: ...

    async def ask(self, request: Request) -> Answer:
        """
        Raises:
            OpenMaaSError: the request failed.
        """

    def stream(self, request: Chat) -> AsyncGenerator[str, None]:
        """The text of an answer as it is written.

        Raises:
            OpenMaaSError: the request failed.
        """


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results of works that run side by side. The first that fails ends the others.

    Raises:
        OpenMaaSError: what it raised.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def written(model: Model, request: Chat) -> str:
    """The whole answer of a language model, without white space around it."""
    return "".join([piece async for piece in model.stream(request)]).strip()


async def token_counts(model: Model, texts: list[str]) -> list[int]:
    """How many tokens each text has for this model."""
    counts: list[int] = []
    for at in range(0, len(texts), AT_ONCE):
        answer = await model.ask(Tokenize(inputs=texts[at : at + AT_ONCE]))
        assert isinstance(answer, Tokenized)
        counts += map(len, answer.outputs)
    return counts


async def vectors(model: Model, texts: list[str]) -> NDArray[np.float32]:
    """Unit vectors of texts, ``len(texts) × dimensions``; texts over the context are cut."""
    rows: list[NDArray[np.float32]] = []
    for at in range(0, len(texts), AT_ONCE):
        answer = await model.ask(Embed(inputs=[*texts[at : at + AT_ONCE]], truncate=True))
        assert isinstance(answer, Embedded)
        rows.append(np.frombuffer(answer.data, "<f4").reshape(-1, answer.dimensions))
    return _finite(np.concatenate(rows))


async def logits(model: Model, inputs: list[str | tuple[str, str]]) -> NDArray[np.float32]:
    """What a network says of each label, ``len(inputs) × labels``; texts over the context are
    cut."""
    rows: list[NDArray[np.float32]] = []
    for at in range(0, len(inputs), AT_ONCE):
        answer = await model.ask(Score(inputs=inputs[at : at + AT_ONCE], truncate=True))
        assert isinstance(answer, Scored)
        rows.append(np.frombuffer(answer.data, "<f4").reshape(-1, answer.labels))
    return _finite(np.concatenate(rows))


async def likelihoods(
    model: Model, messages: list[Message], answers: list[str]
) -> NDArray[np.float64]:
    """Natural log-probability of each answer to a conversation."""
    answer = await model.ask(Loglikelihood(messages=messages, answers=answers))
    assert isinstance(answer, Loglikelihoods)
    return np.asarray(answer.logprobs)


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise EngineFailed("the model gave a number that is not finite")
    return values
