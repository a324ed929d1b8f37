"""Policies of privacy, of tenants and of keys; and a text to try one on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest, PermissionDenied
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tasks.common import texts
from openmaas.gateway.tenants import ADMINISTRATION, by, own, thread
from openmaas.redaction.finder import finder
from openmaas.redaction.policy import RedactionPolicy
from openmaas.redaction.vault import Vault
from openmaas.tenancy.keys import Key, Keys
from openmaas.tenancy.privacy import PrivacyPolicy
from openmaas.tenancy.tenants import Tenants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openmaas.redaction.entity import Entity

MOST_WORDS = 10_000  # of a policy that is tried; a tenant's own may have more


class RedactBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """One of ``text`` and ``texts``."""

    text: str | None = None
    texts: Annotated[list[str], Meta(min_length=1)] | None = None
    policy: RedactionPolicy | None = None  # null: the key's own; what it does, ``action``, is hide


class FoundEntity(Struct):
    kind: str
    start: int  # characters
    end: int
    score: float


class Redacted(Struct):
    index: int
    text: str  # as a model would see it
    entities: list[FoundEntity]


class RedactAnswer(Struct):
    data: list[Redacted]
    object: Literal["redaction"] = "redaction"


class Routes:
    """The handlers, over whose policies they are."""

    def __init__(self, tenants: Tenants, keys: Keys) -> None:
        self._tenants = tenants
        self._keys = keys

    async def get_policy(self, exchange: Exchange) -> None:
        tenant = await thread(self._tenants.get, own(exchange))
        await exchange.respond_json(tenant.privacy)

    async def set_policy(self, exchange: Exchange) -> None:
        """Replaces all of it."""
        tenant = own(exchange)
        policy = exchange.decode(await exchange.body(), PrivacyPolicy)
        before = await thread(self._tenants.get, tenant)
        if policy.dedicated != before.privacy.dedicated and not exchange.caller.may("admin"):
            raise PermissionDenied("dedicated replicas cost memory: they take an admin's key")
        await _check(exchange, tenant, policy.redaction)
        changed = await thread(self._tenants.change, tenant, by(exchange), privacy=policy)
        await exchange.respond_json(changed.privacy)

    async def set_key(self, exchange: Exchange) -> None:
        """Replaces what holds for a key instead of its tenant's policy; null: nothing does."""
        id, tenant = exchange.path["key"], own(exchange)
        raw = await exchange.body() or b"null"
        policy: RedactionPolicy | None = exchange.decode(raw, RedactionPolicy | None)  # type: ignore[arg-type]
        key: Key = await thread(self._keys.get, id, tenant)
        if not exchange.caller.may("admin") and set(key.scopes) & set(ADMINISTRATION):
            raise PermissionDenied("this key is an admin's: it takes one to change it")
        if policy is not None:
            await _check(exchange, tenant, policy)
        changed = await thread(self._keys.redact, id, by(exchange), policy, tenant)
        await exchange.respond_json(changed)


async def redact(exchange: Exchange) -> None:
    """What a policy finds in texts, and what a model would see of them. Nothing is asked of a
    model, but of the policy's own, and nothing is kept."""
    body = exchange.decode(await exchange.body(), RedactBody)
    if (body.text is None) == (body.texts is None):
        raise InvalidRequest("give text or texts, one of them", param="text")
    given = body.text if body.texts is None else body.texts
    assert given is not None
    found = texts(given, exchange.limits, "text" if body.texts is None else "texts")
    policy = exchange.caller.redaction if body.policy is None else body.policy
    if body.policy is not None:
        await _check(exchange, exchange.caller.tenant, policy)
        if policy.model is not None:
            exchange.pipeline.choose(exchange.caller, policy.model)
        if sum(map(len, policy.words.values())) > MOST_WORDS:
            raise InvalidRequest(
                f"a policy that is tried has up to {MOST_WORDS} words", param="policy"
            )
    entities = await exchange.complete(_entities(exchange, policy, found))
    vault = Vault()
    for text in found:
        vault.avoid(text)
    data = [
        Redacted(
            index,
            vault.hide(text, each),
            [FoundEntity(one.kind, one.start, one.end, one.score) for one in each],
        )
        for index, (text, each) in enumerate(zip(found, entities, strict=True))
    ]
    await exchange.respond_json(RedactAnswer(data))


async def _entities(
    exchange: Exchange, policy: RedactionPolicy, found: list[str]
) -> list[list[Entity]]:
    pipeline = exchange.pipeline
    more: Sequence[Sequence[Entity]] = ()
    if policy.model is not None:
        more = await pipeline.tag(exchange.ticket, policy.model, found)
    searching = pipeline.redactor.searching
    return await searching.find(await searching.by(policy), found, more)


async def _check(exchange: Exchange, tenant: str, policy: RedactionPolicy) -> None:
    """
    Raises:
        InvalidRequest: an expression cannot be, or is a danger; or the model is none that finds
            names.
    """
    await asyncio.to_thread(finder, policy)
    if policy.model is None:
        return
    found = exchange.pipeline.fleet.find(tenant, policy.model)
    info = None if found is None else found.deployment.info
    if found is None or (info is not None and info.task != "tag"):
        raise InvalidRequest(
            f"no model {policy.model!r} that finds names is deployed for tenant {tenant!r}",
            param="model",
        )


def endpoints(tenants: Tenants, keys: Keys) -> list[Endpoint]:
    at = Routes(tenants, keys)
    privacy = "/v1/tenants/{tenant}/privacy"
    key = "/v1/tenants/{tenant}/keys/{key}/redaction"
    return [
        Endpoint("GET", privacy, at.get_policy, "openai", "A tenant's policy of privacy",
                 scope="manage", response=PrivacyPolicy),
        Endpoint("PUT", privacy, at.set_policy, "openai", "Replace a tenant's policy of privacy",
                 scope="manage", body=PrivacyPolicy, response=PrivacyPolicy),
        Endpoint("PUT", key, at.set_key, "openai", "Replace or remove a key's redaction policy",
                 scope="manage", body=RedactionPolicy | None, response=Key),
        Endpoint("POST", "/v1/redact", redact, "openai", "Personal data in texts, and texts "
                 "without it", body=RedactBody, response=RedactAnswer, task="redact"),
    ]  # fmt: skip
