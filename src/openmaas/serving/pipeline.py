"""The way of one request: find the model → check that it can do it → queue → events."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from openmaas.config import Limits
from openmaas.errors import InvalidRequest, ModelNotFound, Overloaded, PayloadTooLarge
from openmaas.inference import (
    Chat,
    Complete,
    Loglikelihood,
    ModelInfo,
    Predict,
    Request,
    Sampling,
    Tokenize,
    Translate,
)
from openmaas.serving.asking import Asking
from openmaas.serving.call import Call
from openmaas.serving.capabilities import check
from openmaas.serving.deployment import Deployment
from openmaas.serving.fleet import Fleet


class Pipeline:
    """Every request of every wire format goes through ``submit``."""

    def __init__(self, fleet: Fleet, limits: Limits) -> None:
        self.fleet = fleet
        self.limits = limits

    async def submit(self, model: str, request: Request, *, version: str | None = None) -> Call:
        """Queues a request and returns its call. Waits while the model is being loaded.

        Raises:
            ModelNotFound: nothing of that name (or version) is deployed.
            InvalidRequest: the model does another task, or a number is out of bounds.
            UnsupportedParameter: its runtime cannot honour a parameter.
            Overloaded: the queue is full, or the model is not running.
        """
        deployment = self._find(model, version)
        deadline = time.monotonic() + self.limits.request_seconds
        info = await deployment.ready(deadline)
        check(info, model, request)
        return deployment.submit(self._bounded(request, info), deadline)

    async def asking(
        self, name: str | None, what: str, order: Callable[[ModelInfo], int | None]
    ) -> Asking:
        """The model for a task: the one that is named, else the deployed one that does it best.

        Args:
            what: the task, for messages.
            order: 0 for what does it best, 1 for the next …; None for what cannot.

        Raises:
            ModelNotFound: nothing of that name is deployed, or nothing that can.
            InvalidRequest: the model that is named cannot.
            Overloaded: it is not running.
        """
        deadline = time.monotonic() + self.limits.request_seconds
        if name is not None:
            deployment = self._find(name, None)
            info = await deployment.ready(deadline)
            if order(info) is None:
                raise InvalidRequest(
                    f"model {name!r} does {info.task}; it cannot {what}", param="model"
                )
            return Asking(self, name, deployment.version, info)
        able = await self.able(order)
        if not able:
            raise ModelNotFound(
                f"no deployed model can {what}; `openmaas models list --catalog` shows models that "
                "can be pulled",
                param="model",
            )
        return able[0]

    async def able(self, order: Callable[[ModelInfo], int | None]) -> list[Asking]:
        """The deployed models that can do a task, the best first. What does not run is left out."""
        deadline = time.monotonic() + self.limits.request_seconds
        able: list[tuple[int, str, Asking]] = []
        for deployment in self.fleet.deployed():
            try:
                info = await deployment.ready(deadline)
            except Overloaded:
                continue
            rank = order(info)
            if rank is not None:
                asking = Asking(self, deployment.model, deployment.version, info)
                able.append((rank, deployment.model, asking))
        return [asking for _, _, asking in sorted(able, key=lambda one: one[:2])]

    def _find(self, model: str, version: str | None) -> Deployment:
        deployment = self.fleet.find(model, version)
        if deployment is None:
            known = ", ".join(sorted(self.fleet.names())) or "none"
            raise ModelNotFound(
                f"no model {model!r} is deployed here; deployed are: {known}", param="model"
            )
        return deployment

    def _bounded(self, request: Request, info: ModelInfo) -> Request:
        limits = self.limits
        if isinstance(request, Predict):
            if request.rows > limits.rows:
                raise PayloadTooLarge(f"{request.rows} rows are over the limit of {limits.rows}")
            return request
        if isinstance(request, Loglikelihood):
            _bound("labels", len(request.answers), limits.inputs)
            _bound("messages", len(request.messages), limits.messages)
            return request
        if not isinstance(request, Chat | Complete):
            _bound("input", len(request.inputs), limits.inputs)
            if isinstance(request, Tokenize | Translate):
                for text in request.inputs:
                    bound_text(text, limits)
            return request
        if isinstance(request, Chat):
            _bound("messages", len(request.messages), limits.messages)
            _bound("tools", len(request.tools), limits.tools)
        else:
            _bound("prompt", len(request.prompts), limits.inputs)
        _bound("n", request.n, limits.n)
        return msgspec.structs.replace(request, sampling=self._sampling(request, info))

    def _sampling(self, request: Chat | Complete, info: ModelInfo) -> Sampling:
        sampling = request.sampling
        _bound("stop", len(sampling.stop), self.limits.stop_strings)
        own = {name: getattr(info.sampling, name) for name in sampling.left_to_model}
        own = {name: value for name, value in own.items() if value is not None}
        sampling = msgspec.structs.replace(sampling, **own, left_to_model=[])
        most = self.limits.output_tokens
        if sampling.max_tokens is None:
            return msgspec.structs.replace(sampling, max_tokens=most)
        if sampling.max_tokens > most:
            raise InvalidRequest(
                f"max_tokens is {sampling.max_tokens}, over this server's limit of {most}",
                param="max_tokens",
            )
        return sampling


def bound_text(text: str, limits: Limits) -> None:
    """
    Raises:
        PayloadTooLarge: the text is longer than a task takes.
    """
    if len(text) > limits.text_characters:
        raise PayloadTooLarge(
            f"a text of {len(text)} characters is over the limit of {limits.text_characters}",
            param="input",
        )


def _bound(param: str, value: int, limit: int) -> None:
    if value > limit:
        raise InvalidRequest(f"{param}: {value} is over the limit of {limit}", param=param)
