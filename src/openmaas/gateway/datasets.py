"""Uploads in pieces, and the data sets that are made of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from openmaas.audit import By
from openmaas.errors import InvalidRequest, UnsupportedMedia
from openmaas.gateway import errors as wire_errors
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.training import count
from openmaas.training.data import Preview
from openmaas.training.datasets import DatasetRecord, Datasets
from openmaas.training.differential_privacy.budgets import Budgets, DatasetBudget
from openmaas.training.options import Format, Options
from openmaas.training.reading import Reader
from openmaas.training.spec import Budget, Id
from openmaas.training.uploads import Upload, Uploads, WrongOffset

MOST = 1000  # of one page
SLICE = 1 << 20  # bytes of a piece that are in memory at one time
OFFSET = b"upload-offset"
MEDIA = ("application/octet-stream", "application/offset+octet-stream")

# Of a file or a data set: what is shown to people, and no path of ours.
Name = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]


class UploadBody(Struct, forbid_unknown_fields=True, kw_only=True):
    name: Name  # its ending tells the format
    size: Annotated[int, Meta(ge=1, le=1 << 50)]  # bytes in all
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None


class DatasetBody(Struct, forbid_unknown_fields=True, kw_only=True):
    name: Name
    upload: Id  # a whole one; it is used up
    format: Format | None = None  # null: what the upload's name or content tells
    options: Options = Options()
    budget: Budget | None = None  # of privacy; null: none


class UploadList(Struct):
    data: list[Upload]
    has_more: bool
    last_id: str | None  # for ``after``
    object: Literal["list"] = "list"


class DatasetList(Struct):
    data: list[DatasetRecord]
    has_more: bool
    last_id: str | None  # for ``after``
    object: Literal["list"] = "list"


class Removed(Struct):
    id: str
    removed: bool = True


class Routes:
    """The handlers, over what they show and change."""

    def __init__(
        self, uploads: Uploads, datasets: Datasets, reader: Reader, budgets: Budgets
    ) -> None:
        self._uploads = uploads
        self._datasets = datasets
        self._reader = reader
        self._budgets = budgets

    # --- uploads -------------------------------------------------------------------------

    async def create_upload(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), UploadBody)
        owner, by = _owner(exchange), By(exchange.caller.key)
        made = await asyncio.to_thread(
            self._uploads.create, body.name, body.size, body.sha256, owner, by
        )
        await exchange.respond_json(made)

    async def list_uploads(self, exchange: Exchange) -> None:
        limit, after = _page(exchange)
        found = await asyncio.to_thread(
            self._uploads.list, exchange.caller.tenant, after=after, limit=limit + 1
        )
        last = found[:limit][-1].id if found else None
        await exchange.respond_json(UploadList(found[:limit], len(found) > limit, last))

    async def get_upload(self, exchange: Exchange) -> None:
        await self._tell(
            exchange,
            await asyncio.to_thread(
                self._uploads.get, exchange.path["upload"], exchange.caller.tenant
            ),
        )

    async def append(self, exchange: Exchange) -> None:
        id, tenant = exchange.path["upload"], exchange.caller.tenant
        upload = await asyncio.to_thread(self._uploads.get, id, tenant)
        offset = _offset(exchange)
        if offset != upload.received:  # said before the piece is read
            await self._refuse(exchange, WrongOffset(upload.received))
            return
        try:
            # What arrived of a piece that breaks off is there all the same.
            async for part in exchange.slices(SLICE):
                upload = await asyncio.to_thread(self._uploads.append, id, tenant, offset, part)
                offset += len(part)
        except WrongOffset as error:
            await self._refuse(exchange, error)
            return
        await self._tell(exchange, upload)

    async def remove_upload(self, exchange: Exchange) -> None:
        id, by = exchange.path["upload"], By(exchange.caller.key)
        await asyncio.to_thread(self._uploads.remove, id, exchange.caller.tenant, by)
        await exchange.respond_json(Removed(id))

    async def _tell(self, exchange: Exchange, upload: Upload) -> None:
        await exchange.respond(
            msgspec.json.encode(upload), headers=[(OFFSET, str(upload.received).encode())]
        )

    async def _refuse(self, exchange: Exchange, error: WrongOffset) -> None:
        await exchange.respond(
            wire_errors.body(error, exchange.wire),
            status=wire_errors.row(error)[0],
            headers=[(OFFSET, str(error.offset).encode())],
        )

    # --- data sets -----------------------------------------------------------------------

    async def create(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), DatasetBody)
        made = await asyncio.to_thread(
            self._datasets.create,
            body.name,
            body.upload,
            body.format,
            body.options,
            _owner(exchange),
            By(exchange.caller.key),
            body.budget,
        )
        self._reader.wake()
        await exchange.respond_json(made)

    async def list(self, exchange: Exchange) -> None:
        limit, after = _page(exchange)
        found = await asyncio.to_thread(
            self._datasets.list, exchange.caller.tenant, after=after, limit=limit + 1
        )
        last = found[:limit][-1].id if found else None
        await exchange.respond_json(DatasetList(found[:limit], len(found) > limit, last))

    async def get(self, exchange: Exchange) -> None:
        found = await asyncio.to_thread(
            self._datasets.get, exchange.path["dataset"], exchange.caller.tenant
        )
        await exchange.respond_json(found)

    async def preview(self, exchange: Exchange) -> None:
        found = await asyncio.to_thread(
            self._datasets.preview, exchange.path["dataset"], exchange.caller.tenant
        )
        await exchange.respond_json(found)

    async def remove(self, exchange: Exchange) -> None:
        id, by = exchange.path["dataset"], By(exchange.caller.key)
        await asyncio.to_thread(self._datasets.remove, id, exchange.caller.tenant, by)
        await exchange.respond_json(Removed(id))

    # --- budgets of privacy --------------------------------------------------------------

    async def budget(self, exchange: Exchange) -> None:
        found = await asyncio.to_thread(
            self._budgets.get, exchange.path["dataset"], exchange.caller.tenant
        )
        await exchange.respond_json(found)

    async def set_budget(self, exchange: Exchange) -> None:
        wanted = exchange.decode(await exchange.body(), Budget)
        caller = exchange.caller
        found = await asyncio.to_thread(
            self._budgets.set, exchange.path["dataset"], caller.tenant, wanted, By(caller.key)
        )
        await exchange.respond_json(found)


def _owner(exchange: Exchange) -> tuple[str, str, str]:
    caller = exchange.caller
    return caller.tenant, caller.project, caller.key


def _page(exchange: Exchange) -> tuple[int, str]:
    return count(exchange, "limit", 100, MOST), exchange.query("after") or ""


def _offset(exchange: Exchange) -> int:
    """Where a piece begins.

    Raises:
        InvalidRequest: it is not said.
        UnsupportedMedia: the body is said to be something else than bytes.
    """
    media = (exchange.header(b"content-type") or MEDIA[0]).partition(";")[0].strip().lower()
    if media not in MEDIA:
        raise UnsupportedMedia(f"a piece is sent as {MEDIA[0]}")
    given = exchange.header(OFFSET) or ""
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise InvalidRequest(
            "the header Upload-Offset says at which byte the piece begins", param="Upload-Offset"
        )
    return int(given)


def endpoints(
    uploads: Uploads, datasets: Datasets, reader: Reader, budgets: Budgets
) -> list[Endpoint]:
    """Everything below ``/v1/uploads`` and ``/v1/datasets``."""
    at = Routes(uploads, datasets, reader, budgets)
    upload, dataset = "/v1/uploads/{upload}", "/v1/datasets/{dataset}"
    page = ("after", "limit")
    return [
        Endpoint("POST", "/v1/uploads", at.create_upload, "openai", "Begin an upload",
                 scope="train", body=UploadBody, response=Upload),
        Endpoint("GET", "/v1/uploads", at.list_uploads, "openai", "List uploads",
                 scope="train", response=UploadList, query=page),
        Endpoint("GET", upload, at.get_upload, "openai", "How far an upload is",
                 scope="train", response=Upload),
        Endpoint("PATCH", upload, at.append, "openai", "Send the next piece of an upload",
                 scope="train", body=bytes, response=Upload),
        Endpoint("DELETE", upload, at.remove_upload, "openai", "Remove an upload",
                 scope="train", response=Removed),
        Endpoint("POST", "/v1/datasets", at.create, "openai", "Make a data set of an upload",
                 scope="train", body=DatasetBody, response=DatasetRecord),
        Endpoint("GET", "/v1/datasets", at.list, "openai", "List data sets",
                 scope="train", response=DatasetList, query=page),
        Endpoint("GET", dataset, at.get, "openai", "One data set and what is in it",
                 scope="train", response=DatasetRecord),
        Endpoint("GET", f"{dataset}/preview", at.preview, "openai", "A data set's first rows",
                 scope="train", response=Preview),
        Endpoint("GET", f"{dataset}/budget", at.budget, "openai",
                 "A data set's budget of privacy, and what was spent of it",
                 scope="train", response=DatasetBudget),
        Endpoint("PUT", f"{dataset}/budget", at.set_budget, "openai",
                 "Give a data set a budget of privacy, or another one",
                 scope="train", body=Budget, response=DatasetBudget),
        Endpoint("DELETE", dataset, at.remove, "openai", "Remove a data set",
                 scope="train", response=Removed),
    ]  # fmt: skip
