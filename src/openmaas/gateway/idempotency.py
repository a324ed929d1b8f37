"""``Idempotency-Key``: the same key runs once, is billed once, and is answered alike each time.

After draft-ietf-httpapi-idempotency-key-header and Stripe's API. What was answered is kept in
memory, never on disk, for a day or until there is too much of it. The ledger keeps the key's hash
for good: a key whose answer is gone (the server was restarted, say) is refused, not run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from openmaas.errors import Conflict, InvalidRequest
from openmaas.gateway.exchange import Exchange

HEADER = b"idempotency-key"
LONGEST = 255  # characters of a key
KEEP_SECONDS = 86_400.0
KEEP_BYTES = 64 << 20  # of all answers together …
ANSWER_BYTES = 4 << 20  # … and of one
RETRYABLE = (429, 503, 507)  # told to try again: the next try runs

Message = MutableMapping[str, Any]
Handler = Callable[[Exchange], Awaitable[None]]
Run = Callable[[Exchange, Awaitable[None]], Awaitable[None]]


class Recording:
    """An answer as it is made, for any number of readers."""

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.began = time.monotonic()
        self.size = 0
        self.done = False
        self._messages: list[Message] = []
        self._news = asyncio.Event()

    @property
    def status(self) -> int:
        return int(self._messages[0]["status"]) if self._messages else 0

    async def send(self, message: Message) -> None:
        """The ASGI ``send`` of whoever makes the answer."""
        self._messages.append(message)
        self.size += len(message.get("body", b""))
        self._tell()

    def end(self) -> None:
        self.done = True
        self._tell()

    async def play(self, exchange: Exchange, *, again: bool) -> None:
        """Sends it to one client: what is there at once, the rest as it is made."""
        at = 0
        while True:
            news = self._news
            while at < len(self._messages):
                message = self._messages[at]
                at += 1
                if again and message["type"] == "http.response.start":
                    headers = [*message["headers"], (b"idempotent-replayed", b"true")]
                    message = {**message, "headers": headers}
                await exchange.send(message)
            if self.done:
                return
            await news.wait()

    def _tell(self) -> None:
        told, self._news = self._news, asyncio.Event()
        told.set()


class Recordings:
    """Answers by tenant and key.

    Args:
        billed: whether the ledger has a row for a tenant and a key's hash.
    """

    def __init__(self, billed: Callable[[str, str], Awaitable[bool]]) -> None:
        self._billed = billed
        self._kept: dict[tuple[str, str], Recording] = {}  # the oldest first
        self._running: dict[asyncio.Task[None], str] = {}  # with its tenant

    async def answer(self, exchange: Exchange, key: str, handler: Handler, run: Run) -> None:
        """Answers a request that has a key: by running it, or as it was answered before.

        Args:
            handler: makes the answer, on an exchange whose client never leaves.
            run: does such work; where it fails, the error is the answer.

        Raises:
            InvalidRequest: the key is none, or was used with another request.
        """
        if not 1 <= len(key) <= LONGEST:
            raise InvalidRequest(f"Idempotency-Key has from 1 to {LONGEST} characters")
        body = await exchange.body()
        fingerprint = hashlib.sha256(exchange.scope["path"].encode() + b"\0" + body).digest()
        caller = exchange.caller
        hashed = hashlib.sha256(f"{caller.project}\0{key}".encode()).hexdigest()
        name = caller.tenant, hashed
        self._forget()
        recording = self._kept.get(name)
        again = recording is not None
        if recording is None:
            recording = self._kept[name] = Recording(fingerprint)
            inner = exchange.detached(body, recording.send)
            task = asyncio.create_task(self._run(inner, name, recording, handler, run))
            self._running[task] = caller.tenant
            task.add_done_callback(self._running.pop)
        elif recording.fingerprint != fingerprint:
            raise InvalidRequest("this Idempotency-Key was used with another request")
        await self._follow(exchange, recording, again=again)

    async def _run(
        self,
        exchange: Exchange,
        name: tuple[str, str],
        recording: Recording,
        handler: Handler,
        run: Run,
    ) -> None:
        try:
            await run(exchange, self._first(exchange, name, handler))
        finally:
            recording.end()
            too_big = recording.size > ANSWER_BYTES
            if recording.status in RETRYABLE or not exchange.ticket.entered or too_big:
                self._kept.pop(name, None)

    async def _first(self, exchange: Exchange, name: tuple[str, str], handler: Handler) -> None:
        """
        Raises:
            Conflict: the key was used, and its answer is not kept any more.
        """
        if await self._billed(*name):
            raise Conflict(
                "the request of this Idempotency-Key was answered and billed; the answer "
                "is not kept any more. Use a new key to run it again"
            )
        exchange.ticket.idempotency = name[1]
        await handler(exchange)

    def forget(self, tenant: str) -> int:
        """Drops a tenant's answers and ends those that are being made; how many these are."""
        for name in [name for name in self._kept if name[0] == tenant]:
            del self._kept[name]
        running = [task for task, of in self._running.items() if of == tenant]
        for task in running:
            task.cancel()
        return len(running)

    async def _follow(self, exchange: Exchange, recording: Recording, *, again: bool) -> None:
        exchange.unlisten()  # what is answered again is heard once
        play = asyncio.ensure_future(recording.play(exchange, again=again))
        gone = asyncio.ensure_future(exchange.disconnected())
        try:
            await asyncio.wait({play, gone}, return_when=asyncio.FIRST_COMPLETED)
            if play.done():
                play.result()
        finally:
            play.cancel()
            gone.cancel()

    def _forget(self) -> None:
        old = time.monotonic() - KEEP_SECONDS
        total = sum(one.size for one in self._kept.values())
        for name, one in list(self._kept.items()):
            if one.done and (one.began < old or total > KEEP_BYTES):
                total -= one.size
                del self._kept[name]
