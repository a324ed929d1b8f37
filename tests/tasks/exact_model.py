"""A model whose every answer is known, for the arithmetic of tasks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

import numpy as np

from openmaas.inference import (
    Answer,
    Chat,
    Embed,
    Embedded,
    Loglikelihood,
    Loglikelihoods,
    ModelInfo,
    Request,
    Score,
    Scored,
    Tokenize,
    Tokenized,
    Translate,
    Translated,
    Usage,
)


class ExactModel:
    """Answers by a rule: numbers of a text, log-probability of a conversation's last text and an
    answer, or text for text."""

    def __init__(
        self,
        info: ModelInfo,
        *,
        numbers: Callable[[str], Sequence[float]] | None = None,
        likelihood: Callable[[str, str], float] | None = None,
        writes: Callable[[str], str] | None = None,
    ) -> None:
        self.info = info
        self.asked: list[Request] = []
        self._numbers = numbers
        self._likelihood = likelihood
        self._writes = writes

    async def ask(self, request: Request) -> Answer:
        self.asked.append(request)
        usage = Usage()
        if isinstance(request, Embed | Score):
            assert self._numbers is not None
            texts = [
                one if isinstance(one, str) else "|".join(map(str, one)) for one in request.inputs
            ]
            rows = np.array([self._numbers(text) for text in texts], "<f4")
            if isinstance(request, Score):
                return Scored(labels=rows.shape[1], data=rows.tobytes(), usage=usage)
            return Embedded(dimensions=rows.shape[1], data=rows.tobytes(), usage=usage)
        if isinstance(request, Loglikelihood):
            assert self._likelihood is not None
            text = str(request.messages[-1].content)
            values = [self._likelihood(text, answer) for answer in request.answers]
            return Loglikelihoods(logprobs=values, tokens=[1] * len(values), usage=usage)
        if isinstance(request, Translate):
            assert self._writes is not None
            outputs = [self._writes(text) for text in request.inputs]
            return Translated(outputs=outputs, logprobs=[-0.5] * len(outputs), usage=usage)
        assert isinstance(request, Tokenize)
        return Tokenized(
            outputs=[[(0, word.encode()) for word in text.split()] for text in request.inputs],
            usage=usage,
        )

    async def stream(self, request: Chat) -> AsyncGenerator[str, None]:
        self.asked.append(request)
        assert self._writes is not None
        for piece in self._writes(str(request.messages[-1].content)).split(" "):
            yield piece + " "
