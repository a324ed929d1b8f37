"""Erasure of tenants and of data sets, and the records that are left of it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from openmaas.errors import InvalidRequest
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tenants import by, own, thread
from openmaas.privacy.eraser import Eraser
from openmaas.privacy.erasures import Erasure, Erasures, Found, State
from openmaas.privacy.signing import SignedRecord, Signer


class EraseBody(Struct, forbid_unknown_fields=True):
    """What is erased is named once more: there is no way back."""

    confirm: Annotated[str, Meta(max_length=64)]


class ErasureObject(Struct):
    """``id`` is all that it takes to read it later: the tenant's keys are no good any more."""

    id: str
    tenant: str
    object: str | None  # a data set; null: all of the tenant
    state: State
    requested: int  # Unix seconds
    unreadable: int | None
    finished: int | None
    found: Found | None
    record: SignedRecord | None


class ErasureList(Struct):
    data: list[ErasureObject]
    object: Literal["list"] = "list"


class PublicKey(Struct):
    """Ed25519, hex."""

    public_key: str


class Routes:
    """The handlers, over what they erase."""

    def __init__(self, erasures: Erasures, eraser: Eraser, signer: Signer) -> None:
        self._erasures = erasures
        self._eraser = eraser
        self._signer = signer

    async def tenant(self, exchange: Exchange) -> None:
        tenant = own(exchange)
        _confirm(exchange, await exchange.body(), tenant)
        await self._begin(exchange, tenant)

    async def dataset(self, exchange: Exchange) -> None:
        dataset = exchange.path["dataset"]
        _confirm(exchange, await exchange.body(), dataset)
        await self._begin(exchange, exchange.caller.tenant, dataset)

    async def list(self, exchange: Exchange) -> None:
        found = await thread(self._erasures.list, own(exchange))
        await exchange.respond_json(ErasureList([shown(one) for one in found]))

    async def get(self, exchange: Exchange) -> None:
        found = await thread(self._erasures.get, exchange.path["erasure"])
        await exchange.respond_json(shown(found))

    async def key(self, exchange: Exchange) -> None:
        await exchange.respond_json(PublicKey(await thread(self._signer.public_key)))

    async def _begin(self, exchange: Exchange, tenant: str, dataset: str = "") -> None:
        made = await thread(self._erasures.request, tenant, by(exchange), dataset)
        await exchange.respond_json(shown(made))
        self._eraser.wake()


def shown(one: Erasure) -> ErasureObject:
    return ErasureObject(
        one.id, one.tenant, one.object or None, one.state, one.requested, one.unreadable,
        one.finished, one.found, one.record,
    )  # fmt: skip


def _confirm(exchange: Exchange, raw: bytes, name: str) -> None:
    """
    Raises:
        InvalidRequest: another name is confirmed, or none.
    """
    if exchange.decode(raw, EraseBody).confirm != name:
        raise InvalidRequest(
            "confirm is not the name of what is to be erased; nothing was", param="confirm"
        )


def endpoints(erasures: Erasures, eraser: Eraser, signer: Signer) -> list[Endpoint]:
    """What is erased, and what tells of it."""
    at = Routes(erasures, eraser, signer)
    return [
        Endpoint("POST", "/v1/tenants/{tenant}/erase", at.tenant, "openai",
                 "Erase all of a tenant", scope="manage", body=EraseBody, response=ErasureObject,
                 outlives=True),
        Endpoint("GET", "/v1/tenants/{tenant}/erasures", at.list, "openai",
                 "What was erased of a tenant", scope="manage", response=ErasureList),
        Endpoint("POST", "/v1/datasets/{dataset}/erase", at.dataset, "openai",
                 "Erase a data set, with proof", scope="train", body=EraseBody,
                 response=ErasureObject, outlives=True),
        Endpoint("GET", "/v1/erasures/key", at.key, "openai",
                 "What checks the signature of records", scope=None, response=PublicKey),
        Endpoint("GET", "/v1/erasures/{erasure}", at.get, "openai",
                 "An erasure and its signed record", scope=None, response=ErasureObject),
    ]  # fmt: skip
