"""The language tasks as typed endpoints."""

from __future__ import annotations

from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.tasks import (
    classification,
    entities,
    relevance,
    summaries,
    tokens,
    translations,
)


def endpoints() -> list[Endpoint]:
    kinds = (tokens, classification, entities, relevance, summaries, translations)
    return [endpoint for kind in kinds for endpoint in kind.ENDPOINTS]
