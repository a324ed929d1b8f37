"""OpenAI's /v1/batches: many requests at once, when nobody else wants to be answered."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from msgspec import Meta, Struct

from openmaas.audit import By
from openmaas.batches.files import KEEP_SECONDS, LONGEST_SECONDS, SHORTEST_SECONDS, State
from openmaas.batches.records import Batch, Batches, Path, Trouble
from openmaas.batches.service import BatchService
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.training import count

MOST = 100  # of one page

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]


class Expiry(Struct, forbid_unknown_fields=True):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=SHORTEST_SECONDS, le=LONGEST_SECONDS)]


class BatchBody(Struct, forbid_unknown_fields=True, kw_only=True):
    input_file_id: Annotated[str, Meta(max_length=64)]
    endpoint: Path
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: Expiry | None = None


class Counts(Struct):
    total: int
    completed: int
    failed: int


class TroubleList(Struct):
    data: list[Trouble]
    object: Literal["list"] = "list"


class InputDetails(Struct):
    cached_tokens: int


class OutputDetails(Struct):
    reasoning_tokens: int = 0


class BatchUsage(Struct):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class BatchObject(Struct, kw_only=True):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: TroubleList | None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: State
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: Counts
    usage: BatchUsage | None
    metadata: dict[str, str] | None


class BatchList(Struct):
    data: list[BatchObject]
    has_more: bool
    first_id: str | None
    last_id: str | None  # for ``after``
    object: Literal["list"] = "list"


class Routes:
    """The handlers, over what they show and change."""

    def __init__(self, batches: Batches, service: BatchService) -> None:
        self._batches = batches
        self._service = service

    async def create(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), BatchBody)
        caller, expiry = exchange.caller, body.output_expires_after
        made = await asyncio.to_thread(
            self._batches.create,
            body.endpoint,
            body.input_file_id,
            body.metadata,
            KEEP_SECONDS if expiry is None else expiry.seconds,
            (caller.tenant, caller.project, caller.key),
            By(caller.key),
        )
        self._service.wake()
        await exchange.respond_json(shown(made))

    async def list(self, exchange: Exchange) -> None:
        limit = count(exchange, "limit", 20, MOST)
        found = await asyncio.to_thread(
            self._batches.list,
            exchange.caller.tenant,
            after=exchange.query("after") or "",
            limit=limit + 1,
        )
        page = [shown(one) for one in found[:limit]]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        await exchange.respond_json(BatchList(page, len(found) > limit, first, last))

    async def get(self, exchange: Exchange) -> None:
        found = await asyncio.to_thread(
            self._batches.get, exchange.path["batch"], exchange.caller.tenant
        )
        await exchange.respond_json(shown(found))

    async def cancel(self, exchange: Exchange) -> None:
        caller = exchange.caller
        found = await asyncio.to_thread(
            self._batches.cancel, exchange.path["batch"], caller.tenant, By(caller.key)
        )
        self._service.wake()
        await exchange.respond_json(shown(found))


def shown(batch: Batch) -> BatchObject:
    """As OpenAI's clients read it."""
    used = batch.usage
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=None if batch.errors is None else TroubleList(batch.errors),
        input_file_id=batch.input,
        status=batch.state,
        output_file_id=batch.output,
        error_file_id=batch.error,
        created_at=batch.created,
        in_progress_at=batch.in_progress_at,
        expires_at=batch.expires,
        finalizing_at=batch.finalizing_at,
        completed_at=batch.completed_at,
        failed_at=batch.failed_at,
        expired_at=batch.expired_at,
        cancelling_at=batch.cancelling_at,
        cancelled_at=batch.cancelled_at,
        request_counts=Counts(batch.total, batch.completed, batch.failed),
        usage=None
        if used is None
        else BatchUsage(
            used.input, InputDetails(used.cached), used.output, OutputDetails(),
            used.input + used.output,
        ),
        metadata=batch.metadata,
    )  # fmt: skip


def endpoints(batches: Batches, service: BatchService) -> list[Endpoint]:
    """Everything below ``/v1/batches``."""
    at = Routes(batches, service)
    every, one = "/v1/batches", "/v1/batches/{batch}"
    return [
        Endpoint("POST", every, at.create, "openai", "Ask all lines of a file",
                 body=BatchBody, response=BatchObject),
        Endpoint("GET", every, at.list, "openai", "List batches",
                 response=BatchList, query=("after", "limit")),
        Endpoint("GET", one, at.get, "openai", "One batch", response=BatchObject),
        Endpoint("POST", f"{one}/cancel", at.cancel, "openai", "Ask no more lines of a batch",
                 response=BatchObject),
    ]  # fmt: skip
