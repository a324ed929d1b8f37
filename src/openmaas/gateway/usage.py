"""What was used, what it costs, what is left, and who changed what."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from msgspec import Meta, Struct

from openmaas.audit import Act, acts
from openmaas.database import Database
from openmaas.errors import InvalidRequest
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.tenants import by, own, thread
from openmaas.tenancy import usage
from openmaas.tenancy.meters import Meters
from openmaas.tenancy.prices import Prices, Rates
from openmaas.tenancy.quota import Quota, money

MOST_ROWS = 1000  # of one page
PIECE = 1 << 18  # bytes


class SumList(Struct):
    since: str  # days, in UTC, both within
    until: str
    currency: str
    data: list[usage.Sum]
    object: Literal["list"] = "list"


class RowList(Struct):
    data: list[dict[str, Any]]
    has_more: bool
    last_id: str | None  # for ``after``
    object: Literal["list"] = "list"


class PriceBody(Struct, forbid_unknown_fields=True, kw_only=True):
    model: Annotated[str, Meta(min_length=1, max_length=256)]  # "*": all that have none
    rates: Rates  # for a million of each


class PriceVersion(Struct):
    id: int
    model: str
    since: int
    rates: dict[str, str]


class PriceList(Struct):
    currency: str
    data: list[PriceVersion]
    object: Literal["list"] = "list"


class ActList(Struct):
    data: list[Act]
    has_more: bool
    object: Literal["list"] = "list"


class Standing(Struct):
    """Of the tenant, project or key: what it may use, and what it has used."""

    of: str
    quota: Quota
    used: dict[str, dict[str, str]]  # period → resource → amount
    running: int


class StandingList(Struct):
    data: list[Standing]
    object: Literal["list"] = "list"


class Routes:
    """The handlers, over what they tell of."""

    def __init__(self, database: Database, prices: Prices, meters: Meters, currency: str) -> None:
        self._database = database
        self._prices = prices
        self._meters = meters
        self._currency = currency

    async def sums(self, exchange: Exchange) -> None:
        tenant = own(exchange) if "tenant" in exchange.path else None
        when = _period(exchange)
        only = {name: value for name in usage.DIMENSIONS if (value := exchange.query(name))}
        for name in ("day", "month"):
            if name in only:
                raise InvalidRequest(f"{name}: say since and until instead", param=name)
        if tenant is not None:
            only["tenant"] = tenant
        found = await thread(usage.sums, self._database, when, _dimensions(exchange), only)
        await exchange.respond_json(SumList(str(when.first), str(when.last), self._currency, found))

    async def rows(self, exchange: Exchange) -> None:
        tenant = own(exchange) if "tenant" in exchange.path else None
        limit = _limit(exchange)
        after = exchange.query("after") or ""
        found = await thread(
            usage.rows, self._database, _period(exchange), tenant, after=after, limit=limit + 1
        )
        last = found[:limit][-1]["request"] if found else None
        await exchange.respond_json(RowList(found[:limit], len(found) > limit, last))

    async def export(self, exchange: Exchange) -> None:
        tenant = own(exchange) if "tenant" in exchange.path else None
        when, form = _period(exchange), exchange.query("format") or "csv"
        if form not in ("csv", "parquet"):
            raise InvalidRequest("format is csv or parquet", param="format")
        name = f"usage-{tenant or 'all'}-{when.first}-{when.last}.{form}"
        headers = [(b"content-disposition", f'attachment; filename="{name}"'.encode())]
        if form == "csv":
            pieces = usage.csv_pieces(self._database, when, tenant)
            await exchange.respond_pieces(pieces, content_type=b"text/csv", headers=headers)
            return
        with tempfile.TemporaryDirectory(prefix="openmaas-") as folder:
            file = Path(folder) / "usage.parquet"
            await thread(usage.write_parquet, self._database, when, file, tenant)
            await exchange.respond_pieces(
                _read(file), content_type=b"application/vnd.apache.parquet", headers=headers
            )

    async def statement(self, exchange: Exchange) -> None:
        tenant, month = own(exchange), exchange.path["month"]
        await exchange.respond_json(
            await thread(usage.statement, self._database, tenant, month, self._currency)
        )

    async def list_prices(self, exchange: Exchange) -> None:
        found = [_price(one) for one in await thread(self._prices.list)]
        await exchange.respond_json(PriceList(self._currency, found))

    async def set_price(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), PriceBody)
        made = await thread(self._prices.set, body.model, body.rates, by(exchange))
        await exchange.respond_json(_price(made))

    async def audit(self, exchange: Exchange) -> None:
        tenant = own(exchange) if "tenant" in exchange.path else None
        limit = _limit(exchange)
        before = exchange.query("before")
        if before is not None and not (before.isascii() and before.isdigit() and len(before) < 16):
            raise InvalidRequest("before is an act's id", param="before")
        found = await thread(
            acts,
            self._database,
            tenant=tenant,
            before=None if before is None else int(before),
            limit=limit + 1,
        )
        await exchange.respond_json(ActList(found[:limit], len(found) > limit))

    async def standing(self, exchange: Exchange) -> None:
        account = await self._meters.of(exchange.caller)
        data = [
            Standing(meter.name, meter.quota, meter.told(), meter.running)
            for meter in account.meters
        ]
        await exchange.respond_json(StandingList(data))


def _period(exchange: Exchange) -> usage.Period:
    return usage.period(exchange.query("since"), exchange.query("until"))


def _dimensions(exchange: Exchange) -> list[usage.Dimension]:
    given = [one for one in (exchange.query("by") or "").split(",") if one]
    for one in given:
        if one not in usage.DIMENSIONS:
            known = ", ".join(usage.DIMENSIONS)
            raise InvalidRequest(f"by: no {one[:64]!r}; there are: {known}", param="by")
    return [cast(usage.Dimension, one) for one in dict.fromkeys(given)]


def _limit(exchange: Exchange) -> int:
    given = exchange.query("limit") or "100"
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= MOST_ROWS):
        raise InvalidRequest(f"limit is from 1 to {MOST_ROWS}", param="limit")
    return int(given)


def _price(one: Any) -> PriceVersion:
    rates = {unit: money(getattr(one, unit)) for unit in usage.UNITS}
    return PriceVersion(one.id, one.model, one.since, rates)


def _read(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            yield piece


WHEN = ("since", "until")
SUMS = (*WHEN, "by", "project", "key", "model", "version", "task", "outcome")
PAGE = (*WHEN, "after", "limit")
ACTS = ("before", "limit")


def endpoints(database: Database, prices: Prices, meters: Meters, currency: str) -> list[Endpoint]:
    """Usage of a tenant for itself, of all for administrators; prices; quotas; the audit log."""
    at = Routes(database, prices, meters, currency)
    found = [
        Endpoint("GET", "/v1/quota", at.standing, "openai", "What the caller may use and has used",
                 response=StandingList),
        Endpoint("GET", "/v1/prices", at.list_prices, "openai", "Prices, in all their versions",
                 response=PriceList),
        Endpoint("POST", "/v1/prices", at.set_price, "openai", "Set a model's price",
                 scope="admin", body=PriceBody, response=PriceVersion),
        Endpoint("GET", "/v1/tenants/{tenant}/statements/{month}", at.statement, "openai",
                 "What a tenant owes for a month", scope="manage", response=usage.Statement),
    ]  # fmt: skip
    of_tenant: tuple[str, Literal["manage", "admin"]] = "/v1/tenants/{tenant}", "manage"
    for prefix, scope in (of_tenant, ("/v1", "admin")):
        tenants = () if scope == "manage" else ("tenant",)
        found += [
            Endpoint("GET", f"{prefix}/usage", at.sums, "openai", "Sums of usage",
                     scope=scope, response=SumList, query=(*SUMS, *tenants)),
            Endpoint("GET", f"{prefix}/usage/rows", at.rows, "openai", "The ledger's rows",
                     scope=scope, response=RowList, query=PAGE),
            Endpoint("GET", f"{prefix}/usage/export", at.export, "openai",
                     "The ledger as CSV or Parquet", scope=scope, query=(*WHEN, "format")),
            Endpoint("GET", f"{prefix}/audit", at.audit, "openai", "Who changed what",
                     scope=scope, response=ActList, query=ACTS),
        ]  # fmt: skip
    return found
