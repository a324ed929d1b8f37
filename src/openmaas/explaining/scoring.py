"""How likely a deployed model is to give an answer where parts of the prompt are missing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from openmaas.errors import EngineFailed
from openmaas.explaining.prompts import Part, without
from openmaas.inference import Loglikelihood, Loglikelihoods, Message
from openmaas.tasks.asking import Model, together

AT_ONCE = 32  # requests that the model has of one explanation

Progress = Callable[[int, int], None]  # ablations done, of all


class Scoring:
    """A ``context.Score`` of a model, a conversation, its parts and an answer.

    Prompts that become equal are asked once, over all calls. ``passes`` counts the prompts that
    went through the model and ``tokens`` those of the answer, known after the first call.

    Args:
        progress: called after each prompt, with those of the present call.
    """

    def __init__(
        self,
        model: Model,
        messages: Sequence[Message],
        parts: Sequence[Part],
        answer: str,
        progress: Progress | None = None,
    ) -> None:
        self._model = model
        self._messages = messages
        self._parts = parts
        self._answer = answer
        self._progress = progress
        self._known: dict[tuple[str | None, ...], float] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        # Requests of this explanation share what the engine keeps of their beginnings, and no
        # other's: how soon an answer comes would tell what others ask.
        self._salt = secrets.token_hex(16)
        self.passes = 0
        self.tokens = 0

    async def __call__(self, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """
        Args:
            masks: ``n × parts``: which are kept.

        Returns:
            float64[n], natural logarithms.

        Raises:
            OpenMaaSError: the model cannot, or a request failed.
        """
        # Descending, so that prompts that begin alike are neighbours on the way to the engine.
        order = np.lexsort(masks.T[::-1])[::-1]
        prompts = {at: without(self._messages, self._parts, masks[at]) for at in order.tolist()}
        texts = {at: tuple(one.content for one in prompt) for at, prompt in prompts.items()}
        new = {texts[at]: at for at in reversed(prompts) if texts[at] not in self._known}
        asked = list(reversed(new.items()))
        done = 0

        async def ask(text: tuple[str | None, ...], at: int) -> None:
            nonlocal done
            async with self._gate:
                self._known[text] = await self._ask(prompts[at])
            done += 1
            if self._progress is not None:
                self._progress(done, len(asked))

        await together(ask(text, at) for text, at in asked)
        return np.array([self._known[texts[at]] for at in range(len(masks))], np.float64)

    async def _ask(self, messages: list[Message]) -> float:
        answer = await self._model.ask(
            Loglikelihood(messages=messages, answers=[self._answer], cache_salt=self._salt)
        )
        assert isinstance(answer, Loglikelihoods)
        self.passes += 1
        self.tokens = answer.tokens[0]
        if not np.isfinite(answer.logprobs[0]):
            raise EngineFailed("the model gave a log-probability that is not finite")
        return answer.logprobs[0]
