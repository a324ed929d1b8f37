"""One HTTP request and its answer: bounded reading, strict JSON, plain and streamed answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    MutableMapping,
)
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from openmaas.errors import (
    Abandoned,
    InvalidRequest,
    OpenMaaSError,
    PayloadTooLarge,
    PersonalData,
    UnsupportedMedia,
)
from openmaas.gateway import errors as wire_errors

if TYPE_CHECKING:
    from openmaas.config import Limits
    from openmaas.gateway.endpoint import Wire
    from openmaas.gateway.privacy.tap import Tap
    from openmaas.inference import Event
    from openmaas.serving.admission import Ticket
    from openmaas.serving.call import Call
    from openmaas.serving.pipeline import Pipeline
    from openmaas.tenancy.access import Caller

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

JSON = b"application/json"
DONE = b"data: [DONE]\n\n"
PING_SECONDS = 15.0
PROGRESS_SECONDS = 2.0  # between words on a model that a stream waits for
WATCH_AFTER_SECONDS = 0.1


class Exchange:
    """What a handler has in hand. Built anew for each request."""

    def __init__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, request_id: str
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.request_id = request_id
        self.wire: Wire = "openai"
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.path: dict[str, str] = scope.get("path_params", {})
        self.parameters: dict[str, str] = {}  # of the URL, those that the endpoint takes
        self.started = False  # the answer's first byte is out
        self.status = 0
        self._last_sent = time.monotonic()
        self._ticket: Ticket | None = None
        self._tap: Tap | None = None
        self._unheard: Send = send
        self._body: bytes | None = None  # read before
        # set by the server before a handler runs
        self.caller: Caller
        self.pipeline: Pipeline
        self.limits: Limits

    @classmethod
    def inside(cls, path: str, body: bytes, send: Send, request_id: str) -> Exchange:
        """A POST that this server makes to itself, whose client never leaves."""
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
        made = cls(scope, _never, send, request_id)
        made._body = body
        return made

    @property
    def ticket(self) -> Ticket:
        """What a metered endpoint asks models with."""
        assert self._ticket is not None, "an endpoint that asks models has a task"
        return self._ticket

    @ticket.setter
    def ticket(self, ticket: Ticket) -> None:
        self._ticket = ticket

    def listen(self, tap: Tap) -> None:
        """What is read and sent from now on is overheard."""
        self._tap, self._unheard, self.send = tap, self.send, tap.over(self.send)

    def unlisten(self) -> None:
        """What is sent from now on is not: it was when it was made."""
        if self._tap is not None:
            self._tap, self.send = None, self._unheard

    def header(self, name: bytes) -> str | None:
        """A request header by its lower-case name."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def query(self, name: str) -> str | None:
        """A parameter of the URL."""
        return self.parameters.get(name)

    # --- reading ---------------------------------------------------------------------

    def detached(self, body: bytes, send: Send) -> Exchange:
        """The same request, answered to another, whose client never leaves."""
        other = Exchange(self.scope, _never, send, self.request_id)
        other.wire, other.path, other.parameters = self.wire, self.path, self.parameters
        other.caller, other.pipeline, other.limits = self.caller, self.pipeline, self.limits
        other._ticket, self._ticket = self._ticket, None
        other._body = body
        if self._tap is not None:
            other.listen(self._tap)
        return other

    async def body(self) -> bytes:
        """The whole body, decompressed. It can be had once.

        Raises:
            PayloadTooLarge: beyond ``limits.body_bytes``, before or after decompression.
            UnsupportedMedia: a Content-Encoding other than gzip or deflate.
        """
        if self._body is not None:
            return self._body
        limit = self.limits.body_bytes
        raw = b"".join([part async for part in self._parts(limit)])
        encoding = self.headers.get(b"content-encoding", b"identity").strip().lower()
        plain = raw if encoding == b"identity" else _inflate(raw, encoding, limit)
        if self._tap is not None:
            self._tap.sent(plain)
        return plain

    async def slices(self, size: int, limit: int | None = None) -> AsyncIterator[bytes]:
        """The body as it arrives, in slices of about ``size`` bytes; a compressed one in one.

        Args:
            limit: bytes of all of it; None: ``limits.body_bytes``.

        Raises:
            PayloadTooLarge, UnsupportedMedia: as ``body``.
        """
        if b"content-encoding" in self.headers:
            yield await self.body()
            return
        parts, held, first = [], 0, True
        async for part in self._parts(self.limits.body_bytes if limit is None else limit):
            parts.append(part)
            held += len(part)
            if held >= size:
                whole = b"".join(parts)
                parts, held, first = [], 0, False
                yield whole
        if held or first:  # an empty body is a slice too
            yield b"".join(parts)

    async def _parts(self, limit: int) -> AsyncIterator[bytes]:
        declared = self.header(b"content-length")
        # 18 digits: what is longer is over any limit, and costly to read as a number
        if declared is not None and (len(declared) > 18 or _number(declared) > limit):
            raise _too_large(limit)
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Abandoned("the client closed its connection")
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            yield part
            if not message.get("more_body"):
                return

    def decode(self, raw: bytes, kind: type[T]) -> T:
        """JSON → ``kind`` (a msgspec type); unknown fields are refused by name there.

        Raises:
            InvalidRequest: malformed JSON, a missing, unknown or wrong field.
        """
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.ValidationError as error:
            text = str(error)
            raise InvalidRequest(text, param=_param(text)) from None
        except RecursionError:
            raise InvalidRequest("the JSON is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None

    # --- answering -------------------------------------------------------------------

    async def respond(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: bytes = JSON,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """Sends a whole answer, once it is in the ledger.

        Raises:
            StorageUnavailable, StorageFull: it cannot be written there.
        """
        if self._ticket is not None:
            await self._ticket.settle("ok")
        await self._start(
            status,
            [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
            + (headers or []),
        )
        await self.send({"type": "http.response.body", "body": body})

    async def respond_json(self, value: Any, *, status: int = 200) -> None:
        """Sends a msgspec-encodable value."""
        await self.respond(msgspec.json.encode(value), status=status)

    async def respond_pieces(
        self, pieces: Iterator[bytes], *, content_type: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Sends what a thread makes piece by piece."""
        await self._start(200, [(b"content-type", content_type), *headers])
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})
        await self.send({"type": "http.response.body", "body": b""})

    async def fail(self, error: OpenMaaSError) -> None:
        """Sends an error in the caller's wire format; in a stream that has begun, as its end."""
        if self._ticket is not None:
            # What was sent of an answer before personal data turned up in it was answered.
            refused = self.started and isinstance(error, PersonalData)
            await self._ticket.settle("cut" if refused else error.code)
        payload = wire_errors.body(error, self.wire)
        if self.started:
            end = DONE if self.wire == "openai" else b""
            await self.end_events(b"data: " + payload + b"\n\n" + end)
            return
        status, _ = wire_errors.row(error)
        await self.respond(payload, status=status, headers=wire_errors.headers(error))

    async def start_events(self) -> None:
        """Begins a stream of server-sent events, if it has not begun."""
        if self.started:
            return
        await self._start(
            200,
            [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
            ],
            whole=False,
        )

    async def send_events(self, data: bytes) -> None:
        """Sends one or several whole events, each ending in a blank line."""
        self._last_sent = time.monotonic()
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_events(self, data: bytes) -> None:
        """Sends the last events, once the answer is in the ledger.

        Raises:
            StorageUnavailable, StorageFull: it cannot be written there.
        """
        if self._ticket is not None:
            await self._ticket.settle("ok")
        await self.start_events()
        await self.send({"type": "http.response.body", "body": data})

    async def leave(self) -> None:
        """The client is gone: it is billed for what it was sent of a stream."""
        if self._ticket is not None:
            with contextlib.suppress(OpenMaaSError):
                await self._ticket.settle("cut" if self.started else Abandoned.code)
        if self._tap is not None:
            self._tap.end()

    async def _start(
        self, status: int, headers: list[tuple[bytes, bytes]], *, whole: bool = True
    ) -> None:
        self.started = True
        self.status = status
        headers.append((b"x-request-id", self.request_id.encode()))
        if self._ticket is not None:
            headers += wire_errors.rate_headers(*self._ticket.rates())
            answered_by = self._ticket.answered_by
            if answered_by:
                headers.append((b"x-openmaas-model", answered_by.encode()))
            if self._ticket.redaction is not None:
                headers += wire_errors.redacted_headers(self._ticket.redaction, whole=whole)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    # --- following a call ----------------------------------------------------------------

    async def collect(self, call: Call) -> list[Event]:
        """All events of a call; it is cancelled when the client goes away.

        Raises:
            OpenMaaSError: the call failed.
        """
        # Most answers are there before a watcher would be worth its task.
        watcher: list[asyncio.Task[None]] = []
        timer = asyncio.get_running_loop().call_later(
            WATCH_AFTER_SECONDS,
            lambda: watcher.append(asyncio.create_task(self._cancel_when_gone(call))),
        )
        try:
            return await call.result()
        finally:
            call.cancel()
            timer.cancel()
            if watcher:
                watcher[0].cancel()

    async def follow(self, call: Call) -> AsyncGenerator[list[Event], None]:
        """Events of a call as they arrive, those that came together in one list. Silence is
        filled with ``: ping`` comments; the call is cancelled when the client goes away.

        Raises:
            OpenMaaSError: the call failed.
        """
        watcher = asyncio.create_task(self._cancel_when_gone(call, ping=True))
        try:
            async for events in call:
                yield events
        finally:
            call.cancel()
            watcher.cancel()

    async def complete(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a task that asks models several times; it is cancelled when the client
        goes away.

        Raises:
            OpenMaaSError: what the task raises; Abandoned when nobody waits for it any more.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self.disconnected())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Abandoned("the client closed its connection")
            return task.result()
        finally:
            gone.cancel()
            task.cancel()

    async def relay(self, pieces: AsyncGenerator[bytes, None]) -> None:
        """Sends server-sent events as they are made and the end mark, with ``: ping`` comments
        while there are none; the maker is ended when the client goes away.

        Raises:
            OpenMaaSError: what the maker raises.
        """

        async def send_all() -> None:
            async for piece in pieces:
                await self.start_events()
                await self.send_events(piece)

        work = asyncio.ensure_future(self.complete(send_all()))
        try:
            while not (await asyncio.wait({work}, timeout=PING_SECONDS))[0]:
                if time.monotonic() - self._last_sent >= PING_SECONDS:
                    await self.start_events()
                    await self.send_events(b": ping\n\n")
            await work
        finally:
            work.cancel()
            await pieces.aclose()
        await self.end_events(DONE)

    async def _cancel_when_gone(self, call: Call, *, ping: bool = False) -> None:
        gone = asyncio.ensure_future(self.disconnected())
        try:
            while True:
                every = PROGRESS_SECONDS if ping and call.waits_for() else PING_SECONDS
                if (await asyncio.wait({gone}, timeout=every))[0]:
                    break
                if ping and time.monotonic() - self._last_sent >= every:
                    await self.start_events()
                    await self.send_events(f": {call.waits_for() or 'ping'}\n\n".encode())
            call.cancel()
        finally:
            gone.cancel()

    async def disconnected(self) -> None:
        """Returns when the client has gone away."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def _never() -> MutableMapping[str, Any]:
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the request body is over the limit of {limit} bytes")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _inflate(raw: bytes, encoding: bytes, limit: int) -> bytes:
    if encoding not in (b"gzip", b"deflate"):
        raise UnsupportedMedia("Content-Encoding must be gzip, deflate or identity")
    machine = zlib.decompressobj(wbits=47)  # 32 + 15: gzip or zlib by its header
    try:
        plain = machine.decompress(raw, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not valid {encoding.decode()}: {error}") from None
    if len(plain) > limit:
        raise _too_large(limit)
    if not machine.eof or machine.unused_data:
        raise InvalidRequest(f"the body is not one whole {encoding.decode()} member")
    return plain


def _param(text: str) -> str | None:
    """The field that a msgspec message names: "… - at `$.messages[0].role`"."""
    if "unknown field `" in text:
        return text.split("unknown field `", 1)[1].split("`", 1)[0]
    if "missing required field `" in text:
        return text.split("missing required field `", 1)[1].split("`", 1)[0]
    if "`$." in text:
        return text.split("`$.", 1)[1].split("`", 1)[0]
    return None
