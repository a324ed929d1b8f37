"""The way of one request: find the model → check that it can do it → queue → events."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from openmaas.audit import By
from openmaas.config import Limits
from openmaas.errors import (
    DeadlineExceeded,
    InsufficientMemory,
    InvalidRequest,
    ModelNotFound,
    OpenMaaSError,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
)
from openmaas.inference import (
    Attribute,
    Chat,
    Complete,
    Loglikelihood,
    ModelInfo,
    Predict,
    Request,
    Sampling,
    Tag,
    Tagged,
    Tokenize,
    Translate,
)
from openmaas.redaction.entity import Entity
from openmaas.schema import PUBLIC
from openmaas.serving.admission import Ticket
from openmaas.serving.asking import Asking
from openmaas.serving.call import Call
from openmaas.serving.capabilities import check
from openmaas.serving.choice import EXPLAINED
from openmaas.serving.deployment import Deployment
from openmaas.serving.fleet import Fleet, Found
from openmaas.serving.redacting import tagging
from openmaas.serving.redacting.redaction import Redaction
from openmaas.serving.redacting.redactor import Redactor
from openmaas.serving.worst_case import worst_case
from openmaas.tenancy.access import Caller

TEXTS_AT_ONCE = 1000  # of one question to a tagger


class Pipeline:
    """Every request of every wire format goes through ``submit``."""

    def __init__(self, fleet: Fleet, limits: Limits, redactor: Redactor) -> None:
        self.fleet = fleet
        self.limits = limits
        self.redactor = redactor

    async def submit(
        self, ticket: Ticket, model: str, request: Request, *, version: str | None = None
    ) -> Call:
        """Queues a request and returns its call. Waits while the model is being loaded, and for a
        place where the caller's quota has none free.

        Raises:
            ModelNotFound: nothing of that name (or version) is deployed.
            InvalidRequest: the model does another task, or a number is out of bounds.
            UnsupportedParameter: its runtime cannot honour a parameter.
            PermissionDenied: the key may not call it.
            RateLimited, QuotaExhausted: beyond what the caller may use.
            PersonalData: the caller's policy refuses what is in it.
            Overloaded: the queue is full, or the model is not running.
        """
        return await self.ask(
            ticket, self.choose(ticket.caller, model, version, ticket.sticky), request
        )

    async def ask(self, ticket: Ticket, found: Found, request: Request) -> Call:
        """As ``submit``, of a version that was chosen."""
        deployment = found.deployment
        deadline = time.monotonic() + self.limits.request_seconds
        info = await deployment.known(deadline)
        check(info, deployment.model, request)
        request = self._bounded(request, info)
        answers = None
        if ticket.caller.redaction.action != "off":
            redaction = await self.redaction(ticket)
            request, answers = await redaction.request(request, info)
        call = await self._queued(ticket, found, request, info, deadline)
        call.answers = answers
        return call

    async def tag(self, ticket: Ticket, model: str, texts: Sequence[str]) -> list[list[Entity]]:
        """What a model finds in texts of a ticket's request, which is not the caller's to choose:
        whatever its key may call, and whatever its redaction policy hides from others.

        Raises:
            Overloaded: it is not deployed, or does not run: what it would find is not known.
        """
        found = self.fleet.find(ticket.caller.tenant, model)
        if found is None:
            raise Overloaded(
                f"model {model!r}, which this key's redaction policy asks, is not deployed here"
            )
        ticket.beside = model
        entities: list[list[Entity]] = []
        for at in range(0, len(texts), TEXTS_AT_ONCE):
            deadline = time.monotonic() + self.limits.request_seconds
            info = await found.deployment.known(deadline)
            request: Request = Tag(inputs=list(texts[at : at + TEXTS_AT_ONCE]))
            check(info, model, request)
            request = self._bounded(request, info)
            call = await self._queued(ticket, found, request, info, deadline)
            try:
                (event,) = await call.result()
            finally:
                call.cancel()
            assert isinstance(event, Tagged)
            entities += map(tagging.entities, event.outputs)
        return entities

    async def redaction(self, ticket: Ticket) -> Redaction:
        """What is done about personal data in a ticket's request, by its caller's policy.

        Raises:
            InvalidRequest, RateLimited: see ``Redactor.of``.
        """
        return ticket.redaction or await self.redactor.of(ticket, self.tag)

    async def _queued(
        self, ticket: Ticket, found: Found, request: Request, info: ModelInfo, deadline: float
    ) -> Call:
        deployment, route = found
        caller = ticket.caller
        reserved = await ticket.reserve(deployment.model, worst_case(request, info), deadline)
        if deployment.state == "stopping":  # it was replaced while the caller waited
            deployment = self._instead(ticket, deployment)
        if caller.privacy.dedicated:  # whichever way it was found
            deployment = self.fleet.dedicated(deployment, caller.tenant)
        try:
            call = deployment.submit(request, deadline, ticket.share)
        except OpenMaaSError:
            ticket.release(reserved)
            raise
        call.route = route
        ticket.follow(call, reserved)
        try:
            ticket.queue(call)
        except OpenMaaSError:
            call.cancel()
            raise
        if route is not None:
            self.fleet.copy(route, call, deadline, dedicated=caller.privacy.dedicated)
        return call

    def _instead(self, ticket: Ticket, gone: Deployment) -> Deployment:
        """What answers in place of a deployment that is taken down: the same version, if it is
        there, else what the model's calls go to now."""
        tenant = ticket.caller.tenant
        found = self.fleet.find(tenant, gone.model, gone.version)
        found = found or self.fleet.find(tenant, gone.model, key=ticket.sticky)
        return gone if found is None else found.deployment

    async def asking(
        self, ticket: Ticket, name: str | None, what: str, order: Callable[[ModelInfo], int | None]
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
            found = self.choose(ticket.caller, name, key=ticket.sticky)
            info = await found.deployment.known(deadline)
            if order(info) is None:
                raise InvalidRequest(
                    f"model {name!r} does {info.task}; it cannot {what}", param="model"
                )
            return Asking(self, ticket, found, info)
        able = await self.able(ticket, order)
        if not able:
            raise ModelNotFound(
                f"no deployed model can {what}; `openmaas models list --catalog` shows models that "
                "can be pulled",
                param="model",
            )
        return able[0]

    def explainer(self, ticket: Ticket, model: Asking) -> Asking | None:
        """What says by gradients why a model answers as it does; None: its form is not one that
        can be differentiated here."""
        deployment = model.deployment
        if deployment.spec.runtime not in EXPLAINED:
            return None
        explainer = self.fleet.explainer(deployment)
        return Asking(self, ticket, Found(explainer, None), model.info)

    async def able(self, ticket: Ticket, order: Callable[[ModelInfo], int | None]) -> list[Asking]:
        """The deployed models that can do a task, the best first. What does not run is left out."""
        deadline = time.monotonic() + self.limits.request_seconds
        able: list[tuple[int, str, Asking]] = []
        for one in self.seen_by(ticket.caller):
            if one.state in ("broken", "stopping"):
                continue
            if one.info is None and one.state == "waiting for memory":
                continue  # nobody knows what it is, nor when it will be told
            try:
                info = await one.known(deadline)
            except (Overloaded, InsufficientMemory, DeadlineExceeded):
                continue
            rank = order(info)
            if rank is not None:
                asking = Asking(self, ticket, Found(one, None), info, chosen=False)
                able.append((rank, one.model, asking))
        return [asking for _, _, asking in sorted(able, key=lambda one: one[:2])]

    # --- what a caller sees -----------------------------------------------------------------

    def choose(
        self, caller: Caller, model: str, which: str | None = None, key: str | None = None
    ) -> Found:
        """The version that answers a caller. Another tenant's is as if there were none.

        Args:
            model: a model, or ``model@version`` or ``model@alias``.
            which: a version or an alias, where ``model`` names none.
            key: calls with the same one get the same version.

        Raises:
            ModelNotFound: nothing of that name (or version) is deployed.
            PermissionDenied: its key may not call it.
        """
        if which is None and "@" in model:
            model, _, which = model.rpartition("@")
        found = self.fleet.find(caller.tenant, model, which, key)
        if found is None:
            known = ", ".join(one.model for one in self.seen_by(caller)) or "none"
            of = "" if which is None else f" of version or alias {which[:64]!r}"
            raise ModelNotFound(
                f"no model {model[:256]!r}{of} is deployed here; deployed are: {known}",
                param="model",
            )
        if not caller.may_call(model):
            raise PermissionDenied(f"this key may not call model {model!r}", param="model")
        if caller.privacy.dedicated:
            own = self.fleet.dedicated(found.deployment, caller.tenant)
            return found._replace(deployment=own)
        return found

    def find(self, caller: Caller, model: str, which: str | None = None) -> Deployment:
        """As ``choose``; without a version the one that most calls go to, and no call is counted.

        Raises:
            ModelNotFound, PermissionDenied: as ``choose``.
        """
        if which is None and "@" not in model:
            main = self.fleet.main(caller.tenant, model)
            if main is not None and caller.may_call(model):
                return main
        return self.choose(caller, model, which).deployment

    def seen_by(self, caller: Caller) -> list[Deployment]:
        """What a caller may call, by name."""
        return [one for one in self.fleet.seen_by(caller.tenant) if caller.may_call(one.model)]

    # --- what a caller may change --------------------------------------------------------------

    async def load(self, caller: Caller, model: str) -> None:
        """Deploys a model of the caller's tenant; for an administrator, else a public one.

        Raises:
            ModelNotFound, Overloaded: see ``Fleet.load``.
            PermissionDenied: it is public, and the caller no administrator.
        """
        owner = await self.owner(caller, model, self.fleet.in_registry)
        await self.fleet.load(owner, model, By(caller.key))

    async def unload(self, caller: Caller, model: str) -> None:
        """Takes down what ``load`` deploys.

        Raises:
            ModelNotFound: it is not deployed.
            PermissionDenied: it is public, and the caller no administrator.
        """
        owner = await self.owner(caller, model, self.fleet.is_deployed)
        await self.fleet.undeploy(owner, model, By(caller.key))

    async def owner(
        self, caller: Caller, model: str, is_there: Callable[[str, str], Awaitable[bool]]
    ) -> str:
        """Whose model a caller changes: its tenant's, or for an administrator a public one.
        Where there is neither, it is the one that could be the caller's.

        Raises:
            PermissionDenied: it is public, and the caller no administrator.
        """
        if await is_there(caller.tenant, model):
            return caller.tenant
        if not caller.may("admin") and await is_there(PUBLIC, model):
            raise PermissionDenied(f"model {model[:256]!r} is public; it takes an admin's key")
        return PUBLIC if caller.may("admin") else caller.tenant

    def _bounded(self, request: Request, info: ModelInfo) -> Request:
        limits = self.limits
        if isinstance(request, Predict):
            if request.rows > limits.rows:
                raise PayloadTooLarge(f"{request.rows} rows are over the limit of {limits.rows}")
            return request
        if isinstance(request, Attribute):
            if request.text is not None:
                bound_text(request.text, limits)
            return request
        if isinstance(request, Loglikelihood):
            _bound("labels", len(request.answers), limits.inputs)
            _bound("messages", len(request.messages), limits.messages)
            return request
        if not isinstance(request, Chat | Complete):
            _bound("input", len(request.inputs), limits.inputs)
            if isinstance(request, Tokenize | Tag | Translate):
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
