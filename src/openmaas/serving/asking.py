"""One deployed model at work on one task, which may take many requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from openmaas.inference import Answer, Chat, Delta, Failure, ModelInfo, Request, Usage

if TYPE_CHECKING:
    from openmaas.serving.admission import Ticket
    from openmaas.serving.deployment import Deployment
    from openmaas.serving.fleet import Found
    from openmaas.serving.pipeline import Pipeline


class Asking:
    """What ``tasks`` call a model. ``usage`` adds up over all its requests."""

    def __init__(
        self,
        pipeline: Pipeline,
        ticket: Ticket,
        found: Found,
        info: ModelInfo,
        *,
        chosen: bool = True,
    ) -> None:
        self._pipeline = pipeline
        self._ticket = ticket
        self._found = found
        self._chosen = chosen  # else which version it is is chosen when it is first asked
        self.name = found.deployment.model
        self.info = info
        self.usage = Usage()

    @property
    def version(self) -> str:
        return self._found.deployment.version

    @property
    def deployment(self) -> Deployment:
        return self._found.deployment

    def busy(self) -> bool:
        """Whether somebody else calls the model interactively."""
        return self._found.deployment.busy

    def settled(self) -> Asking:
        """The same, of one version whatever its aliases do meanwhile; what it is asked counts for
        no alias, and no shadow gets a copy."""
        found = self._choose()._replace(route=None)
        return Asking(self._pipeline, self._ticket, found, found.deployment.info or self.info)

    def _choose(self) -> Found:
        if not self._chosen:
            self._chosen = True
            ticket = self._ticket
            found = self._pipeline.fleet.find(ticket.caller.tenant, self.name, key=ticket.sticky)
            # One that was never loaded may be anything.
            if found is not None and found.deployment.info is not None:
                self._found = found
        return self._found

    async def ask(self, request: Request) -> Answer:
        """The last event of a request; it is cancelled when the task that awaits it is.

        Raises:
            OpenMaaSError: the request failed.
        """
        call = await self._pipeline.ask(self._ticket, self._choose(), request)
        try:
            events = await call.result()
        finally:
            call.cancel()
        self._count(call.usage)
        last = events[-1]
        assert not isinstance(last, Failure)
        return last  # type: ignore[return-value]  # a call ends with an Answer or a Failure

    async def stream(self, request: Chat) -> AsyncGenerator[str, None]:
        """The text of a chat model's answer as it is written; left early, it is cancelled.

        Raises:
            OpenMaaSError: the request failed.
        """
        call = await self._pipeline.ask(self._ticket, self._choose(), request)
        try:
            async for events in call:
                text = "".join(event.text for event in events if isinstance(event, Delta))
                if text:
                    yield text
        finally:
            call.cancel()
            self._count(call.usage)

    def _count(self, one: Usage) -> None:
        used = self.usage
        self.usage = Usage(
            input_tokens=used.input_tokens + one.input_tokens,
            output_tokens=used.output_tokens + one.output_tokens,
            cached_tokens=used.cached_tokens + one.cached_tokens,
            rows=used.rows + one.rows,
        )
