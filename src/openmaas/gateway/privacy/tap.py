"""What a client sent and got, overheard for a tenant that has it kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from openmaas.privacy.retained import BODY_BYTES, Exchange
from openmaas.tenancy.access import Caller
from openmaas.tenancy.privacy import HIDING

if TYPE_CHECKING:
    from collections.abc import Callable

    from openmaas.gateway.exchange import Message, Send


def kept(caller: Caller) -> bool:
    """Whether a caller's exchanges are: what a key's policy hides is not written down."""
    return caller.privacy.retain_days is not None and caller.redaction.action not in HIDING


class Tap:
    """Of one exchange. What it hears of it is told once, when the answer has ended.

    Args:
        tell: takes the exchange, at once.
    """

    def __init__(
        self, caller: Caller, request: str, path: str, tell: Callable[[Exchange], None]
    ) -> None:
        self._caller = caller
        self._request = request
        self._path = path
        self._tell: Callable[[Exchange], None] | None = tell
        self._sent = b""
        self._sent_bytes = 0
        self._status = 0
        self._model = ""
        self._answered = bytearray()
        self._answered_bytes = 0

    def sent(self, body: bytes) -> None:
        """The request's body, as it is read."""
        self._sent, self._sent_bytes = body[:BODY_BYTES], len(body)

    def over(self, send: Send) -> Send:
        """An ASGI ``send`` that is overheard."""

        async def overheard(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                self._model = dict(message["headers"]).get(b"x-openmaas-model", b"").decode()
            else:
                body = message.get("body", b"")
                self._answered_bytes += len(body)
                self._answered += body[: BODY_BYTES - len(self._answered)]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.end()

        return overheard

    def end(self) -> None:
        """The answer has ended, or nobody reads it any more."""
        tell, self._tell = self._tell, None
        if tell is None:
            return
        caller = self._caller
        tell(
            Exchange(
                tenant=caller.tenant,
                request=self._request,
                time=time.time_ns() // 1_000_000,
                key=caller.key,
                path=self._path,
                model=self._model,
                status=self._status,
                request_bytes=self._sent_bytes,
                response_bytes=self._answered_bytes,
                cut=max(self._sent_bytes, self._answered_bytes) > BODY_BYTES,
                sent=self._sent,
                answered=bytes(self._answered),
            )
        )
