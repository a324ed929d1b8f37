"""What is held of a tenant: the report, the export, and the exchanges that it has kept."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tenants import by, own, thread
from openmaas.gateway.training import count
from openmaas.privacy.export import Exports, told
from openmaas.privacy.report import Report, Reports
from openmaas.privacy.retained import Day, Retained, RetainedExchanges, parse_day

MOST = 1000  # of one page


class RetainedList(Struct):
    data: list[Retained]
    days: list[Day]
    has_more: bool
    last_id: str | None  # for ``after``
    object: Literal["list"] = "list"


class RetainedObject(Struct):
    """``sent`` and ``answered`` are texts, or ``{"base64": …}`` where they are none."""

    about: Retained
    sent: Any
    answered: Any


class Removed(Struct):
    id: str
    removed: bool = True


class RemovedAll(Struct):
    removed: int


class Routes:
    """The handlers, over what they show and remove."""

    def __init__(self, retained: RetainedExchanges, reports: Reports, exports: Exports) -> None:
        self._retained = retained
        self._reports = reports
        self._exports = exports

    async def report(self, exchange: Exchange) -> None:
        await exchange.respond_json(await thread(self._reports.of, own(exchange)))

    async def export(self, exchange: Exchange) -> None:
        tenant = own(exchange)
        await thread(self._exports.check, tenant)
        name = f'attachment; filename="openmaas-{tenant}.tar"'.encode()
        await exchange.respond_pieces(
            self._exports.tar(tenant),
            content_type=b"application/x-tar",
            headers=[(b"content-disposition", name)],
        )

    async def list(self, exchange: Exchange) -> None:
        tenant, limit = own(exchange), count(exchange, "limit", 100, MOST)
        day = exchange.query("day")
        found = await thread(
            self._retained.list,
            tenant,
            day=None if day is None else parse_day(day),
            after=exchange.query("after") or "",
            limit=limit + 1,
        )
        last = found[:limit][-1].request if found else None
        days = list(await thread(self._retained.days, tenant))
        await exchange.respond_json(RetainedList(found[:limit], days, len(found) > limit, last))

    async def get(self, exchange: Exchange) -> None:
        found, bodies = await thread(self._retained.get, own(exchange), exchange.path["request"])
        await exchange.respond_json(RetainedObject(found, told(bodies.sent), told(bodies.answered)))

    async def remove(self, exchange: Exchange) -> None:
        request = exchange.path["request"]
        await thread(self._retained.remove, own(exchange), request, by(exchange))
        await exchange.respond_json(Removed(request))

    async def remove_all(self, exchange: Exchange) -> None:
        removed = await thread(self._retained.remove_all, own(exchange), by(exchange))
        await exchange.respond_json(RemovedAll(removed))


def endpoints(retained: RetainedExchanges, reports: Reports, exports: Exports) -> list[Endpoint]:
    """What is held of a tenant, for itself."""
    at = Routes(retained, reports, exports)
    tenant = "/v1/tenants/{tenant}"
    every, one = f"{tenant}/retained", f"{tenant}/retained/{{request}}"
    return [
        Endpoint("GET", f"{tenant}/privacy/report", at.report, "openai",
                 "What is held of a tenant, why and until when", scope="manage", response=Report),
        Endpoint("GET", f"{tenant}/export", at.export, "openai",
                 "Everything that is held of a tenant, as a tar", scope="manage", response=bytes),
        Endpoint("GET", every, at.list, "openai", "Exchanges that are kept",
                 scope="manage", response=RetainedList, query=("day", "after", "limit")),
        Endpoint("DELETE", every, at.remove_all, "openai", "Remove all exchanges that are kept",
                 scope="manage", response=RemovedAll),
        Endpoint("GET", one, at.get, "openai", "One exchange: what was sent and answered",
                 scope="manage", response=RetainedObject),
        Endpoint("DELETE", one, at.remove, "openai", "Remove one exchange",
                 scope="manage", response=Removed),
    ]  # fmt: skip
