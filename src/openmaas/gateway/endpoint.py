"""One row per route: what is served where, who may call it, in which wire format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from openmaas.gateway.exchange import Exchange

Wire = Literal["openai", "v2", "kserve", "huggingface"]
Scope = Literal["inference", "train", "manage", "admin"]


@dataclass(frozen=True)
class Endpoint:
    """The routing table, the OpenAPI document and the access test all read this row."""

    method: str
    path: str  # Starlette's form: /v2/models/{model}
    handler: Callable[[Exchange], Awaitable[None]]
    wire: Wire  # the format of its errors
    summary: str
    scope: Scope | None = "inference"  # None: no key asked
    # msgspec type of the JSON body; bytes: a piece of an upload; a dict: a form's JSON schema
    body: Any = None
    response: Any = None  # msgspec type of the JSON answer; bytes: a file
    query: tuple[str, ...] = ()  # parameters of the URL; others are refused
    # whether who calls it is answered although its tenant's requests are ended meanwhile
    outlives: bool = False
    task: str | None = None  # what the ledger calls it; None: nothing is metered
