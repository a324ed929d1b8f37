"""OpenAI's /v1/files: what batches read and write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import IO, Any, Literal, cast

from msgspec import Struct

from openmaas.audit import By
from openmaas.batches.files import (
    KEEP_SECONDS,
    LONGEST_SECONDS,
    MOST,
    SHORTEST_SECONDS,
    File,
    Files,
    Order,
    checked_name,
)
from openmaas.errors import InvalidRequest, NotFound
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.form import Form
from openmaas.gateway.training import count

SLICE = 1 << 20  # bytes of a file that are in memory at one time
FORM_BYTES = 64 << 10  # of a form beside its file

ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file", "purpose"],
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "description": "JSON Lines, a request a line; the part has a filename",
        },
        "purpose": {"type": "string", "enum": ["batch"]},
        ANCHOR: {"type": "string", "enum": ["created_at"]},
        SECONDS: {"type": "integer", "minimum": SHORTEST_SECONDS, "maximum": LONGEST_SECONDS},
    },
}


class FileObject(Struct):
    id: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    object: Literal["file"] = "file"
    status: Literal["processed"] = "processed"


class FileList(Struct):
    data: list[FileObject]
    has_more: bool
    first_id: str | None
    last_id: str | None  # for ``after``
    object: Literal["list"] = "list"


class FileDeleted(Struct):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class Routes:
    """The handlers, over what they show and change."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def create(self, exchange: Exchange) -> None:
        caller = exchange.caller
        most = self._files.most_bytes
        form = Form(exchange, "file", (*FORM["properties"],))
        declared = count_of(exchange.header(b"content-length"), most)
        arriving = await asyncio.to_thread(self._files.begin, caller.tenant, declared)
        try:
            async for piece in form.pieces(SLICE, most + FORM_BYTES):
                await asyncio.to_thread(arriving.write, piece)
            name, seconds = checked_name(form.filename), _fields(form)
        except BaseException:
            arriving.drop()
            raise
        owner = caller.tenant, caller.project, caller.key
        made = await asyncio.to_thread(
            self._files.keep, arriving, name, seconds, owner, By(caller.key)
        )
        await exchange.respond_json(shown(made))

    async def list(self, exchange: Exchange) -> None:
        limit = count(exchange, "limit", MOST, MOST)
        order = exchange.query("order") or "desc"
        if order not in ("asc", "desc"):
            raise InvalidRequest("order is asc or desc", param="order")
        found = await asyncio.to_thread(
            self._files.list,
            exchange.caller.tenant,
            after=exchange.query("after") or "",
            limit=limit + 1,
            order=cast(Order, order),
            purpose=exchange.query("purpose"),
        )
        page = [shown(one) for one in found[:limit]]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        await exchange.respond_json(FileList(page, len(found) > limit, first, last))

    async def get(self, exchange: Exchange) -> None:
        await exchange.respond_json(shown(await self._file(exchange)))

    async def content(self, exchange: Exchange) -> None:
        file = await self._file(exchange)
        try:
            opened = await asyncio.to_thread(self._files.open, file.id)
        except FileNotFoundError:  # removed at this very moment
            raise NotFound(f"no file {file.id!r}") from None
        await exchange.respond_pieces(
            _read(opened),
            content_type=b"application/octet-stream",
            headers=[(b"content-length", str(file.bytes).encode())],
        )

    async def remove(self, exchange: Exchange) -> None:
        id, by = exchange.path["file"], By(exchange.caller.key)
        await asyncio.to_thread(self._files.remove, id, exchange.caller.tenant, by)
        await exchange.respond_json(FileDeleted(id))

    async def _file(self, exchange: Exchange) -> File:
        return await asyncio.to_thread(
            self._files.get, exchange.path["file"], exchange.caller.tenant
        )


def shown(file: File) -> FileObject:
    """As OpenAI's clients read it."""
    return FileObject(file.id, file.bytes, file.created, file.expires, file.name, file.purpose)


def count_of(declared: str | None, most: int) -> int:
    """Bytes that are likely to come, by a header that may say anything."""
    if declared is None or not (declared.isascii() and declared.isdigit() and len(declared) < 19):
        return 0
    return min(max(0, int(declared) - FORM_BYTES), most)


def _fields(form: Form) -> int:
    """Seconds until a form's file expires.

    Raises:
        InvalidRequest: its other fields are wrong.
    """
    purpose = form.fields.get("purpose")
    if purpose != "batch":
        raise InvalidRequest("purpose is batch; nothing else is kept here", param="purpose")
    anchor, seconds = form.fields.get(ANCHOR), form.fields.get(SECONDS)
    if anchor is None and seconds is None:
        return KEEP_SECONDS
    if anchor != "created_at":
        raise InvalidRequest("a file expires after created_at", param=ANCHOR)
    if not (
        seconds
        and seconds.isascii()
        and seconds.isdigit()
        and SHORTEST_SECONDS <= int(seconds[:12]) <= LONGEST_SECONDS
    ):
        raise InvalidRequest(
            f"seconds are from {SHORTEST_SECONDS} to {LONGEST_SECONDS}", param=SECONDS
        )
    return int(seconds)


def _read(opened: IO[bytes]) -> Iterator[bytes]:
    with opened as file:
        while piece := file.read(SLICE):
            yield piece


def endpoints(files: Files) -> list[Endpoint]:
    """Everything below ``/v1/files``."""
    at = Routes(files)
    every, one = "/v1/files", "/v1/files/{file}"
    return [
        Endpoint("POST", every, at.create, "openai", "Keep a file for a batch",
                 body=FORM, response=FileObject),
        Endpoint("GET", every, at.list, "openai", "List files",
                 response=FileList, query=("after", "limit", "order", "purpose")),
        Endpoint("GET", one, at.get, "openai", "One file", response=FileObject),
        Endpoint("GET", f"{one}/content", at.content, "openai", "What is in a file",
                 response=bytes),
        Endpoint("DELETE", one, at.remove, "openai", "Remove a file", response=FileDeleted),
    ]  # fmt: skip
