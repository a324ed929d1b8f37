"""Redaction for one server: by whose policy, with which models, in which conversation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from openmaas import background
from openmaas.errors import InvalidRequest
from openmaas.redaction.entity import Entity
from openmaas.redaction.policy import RedactionPolicy
from openmaas.redaction.vault import Vault
from openmaas.serving.redacting.conversations import Conversations, Name
from openmaas.serving.redacting.redaction import Redaction, Told
from openmaas.serving.redacting.searching import Searching

if TYPE_CHECKING:
    from openmaas.serving.admission import Ticket

SWEEP_SECONDS = 60.0

Tagger = Callable[["Ticket", str, Sequence[str]], Awaitable[list[list[Entity]]]]
"""What a deployed model finds in each text, for a ticket."""


class Redactor:
    """A ``gateway.server.Service``.

    Args:
        told: counts what was found.
    """

    def __init__(self, told: Told) -> None:
        self.searching = Searching()
        self._told = told
        self._conversations = Conversations()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        await background.end(self._task)
        await self.searching.stop()

    async def of(
        self, ticket: Ticket, tagger: Tagger, policy: RedactionPolicy | None = None
    ) -> Redaction:
        """What is done in a ticket's request, which must not be nothing.

        Args:
            policy: ``None``: the caller's.

        Raises:
            InvalidRequest: a conversation that the policy has none of.
            RateLimited: the tenant has too many conversations.
        """
        if ticket.redaction is not None:
            return ticket.redaction
        policy = ticket.caller.redaction if policy is None else policy
        vault = self._conversation(ticket, policy)
        search = await self.searching.by(policy)
        model = policy.model

        async def tag(texts: Sequence[str]) -> list[list[Entity]]:
            assert model is not None
            return await tagger(ticket, model, texts)

        if ticket.redaction is None:  # a task may have asked twice at the same time
            ticket.redaction = Redaction(
                search,
                self.searching,
                Vault() if vault is None else vault,
                self._told,
                together=vault is not None or ticket.task == "explain",
                tagger=None if model is None else tag,
            )
        return ticket.redaction

    def forget(self, tenant: str) -> None:
        """Drops what is remembered of a tenant's conversations."""
        self._conversations.forget_tenant(tenant)

    def _conversation(self, ticket: Ticket, policy: RedactionPolicy) -> Vault | None:
        if ticket.conversation is None or policy.action != "hide":
            return None  # nothing is replaced, and so there is nothing to remember
        if not policy.conversation:
            raise InvalidRequest(
                "x-openmaas-conversation is for policies that say conversation: true, and this "
                "key's does not"
            )
        caller = ticket.caller
        return self._conversations.vault(Name(caller.tenant, caller.key, ticket.conversation))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._conversations.forget(time.monotonic())
