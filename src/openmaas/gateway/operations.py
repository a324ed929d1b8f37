"""What operators and load balancers ask: health, metrics, the API's own description."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from openmaas import __version__
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.placement.sandbox import lacking
from openmaas.schema import PUBLIC
from openmaas.telemetry import Telemetry


class Health(msgspec.Struct):
    """``status`` is "ok" once what was deployed at the start has been loaded or given up."""

    status: Literal["ok", "loading"]
    version: str
    models: dict[str, str]  # name → state, of those that every tenant sees
    # whether every worker is confined as setting ``sandbox = "required"`` demands; null: none is
    # loaded
    confined: bool | None


def endpoints(telemetry: Telemetry, document: Callable[[], dict[str, Any]]) -> list[Endpoint]:
    async def health(exchange: Exchange) -> None:
        seen = exchange.pipeline.fleet.seen_by(PUBLIC)
        states: dict[str, str] = {one.model: one.state for one in seen}
        loading = exchange.pipeline.fleet.loading()
        layers = exchange.pipeline.fleet.layers()
        confined = None if layers is None else not lacking(layers)
        answer = Health("loading" if loading else "ok", __version__, states, confined)
        await exchange.respond_json(answer, status=503 if loading else 200)

    async def metrics(exchange: Exchange) -> None:
        fleet = exchange.pipeline.fleet
        telemetry.budget(fleet.residency.budget)
        running, waiting = Counter[str](), Counter[str]()
        replicas, memory = Counter[str](), Counter[str]()
        for one in fleet.everything():
            replicas[one.label] += len(one.replicas)
            memory[one.label] += one.resident()
            calls = list(one.calls.values())
            without = sum(call.first_event is None for call in calls)
            running[one.label] += len(calls) - without
            waiting[one.label] += without
        for label, count in running.items():
            telemetry.in_flight(label, count, waiting[label])
            telemetry.resident(label, replicas[label], memory[label])
        await exchange.respond(telemetry.text(), content_type=telemetry.content_type.encode())

    async def openapi(exchange: Exchange) -> None:
        await exchange.respond_json(document())

    return [
        Endpoint("GET", "/health", health, "openai", "Whether the server takes requests",
                 scope=None, response=Health),
        Endpoint("GET", "/metrics", metrics, "openai", "Prometheus metrics", scope="admin"),
        Endpoint("GET", "/openapi.json", openapi, "openai", "This API's description", scope=None),
    ]  # fmt: skip
