"""How a task puts requests to the model that it works with, whatever engine runs it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import EngineFailed
from openmaas.inference import (
    Answer,
    Embed,
    Embedded,
    Loglikelihood,
    Loglikelihoods,
    Message,
    ModelInfo,
    Request,
    Score,
    Scored,
)


class Model(Protocol):
    """A deployed model."""

    @property
    def info(self) -> ModelInfo: ...

    async def ask(self, request: Request) -> Answer:
        """
        Raises:
            OpenMaaSError: the request failed.
        """


async def vectors(model: Model, texts: list[str]) -> NDArray[np.float32]:
    """Unit vectors of texts, ``len(texts) × dimensions``; texts over the context are cut."""
    answer = await model.ask(Embed(inputs=list(texts), truncate=True))
    assert isinstance(answer, Embedded)
    return _finite(np.frombuffer(answer.data, "<f4").reshape(len(texts), answer.dimensions))


async def logits(model: Model, inputs: list[str | tuple[str, str]]) -> NDArray[np.float32]:
    """What a network says of each label, ``len(inputs) × labels``."""
    answer = await model.ask(Score(inputs=inputs))
    assert isinstance(answer, Scored)
    return _finite(np.frombuffer(answer.data, "<f4").reshape(len(inputs), answer.labels))


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
