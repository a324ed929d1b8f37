"""What a tenant, project or key may use: the form of a quota, and its four resources."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from openmaas.errors import InvalidRequest

NANO = 10**9
MOST = 10**15  # of anything, so that sums stay far below 2⁶³

Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Rate = Annotated[int, msgspec.Meta(ge=1, le=MOST)]
Money = Annotated[Decimal, msgspec.Meta()]

Resource = Literal["requests", "tokens", "money", "compute_seconds"]
Period = Literal["day", "month", "all"]
RESOURCES: tuple[Resource, ...] = ("requests", "tokens", "money", "compute_seconds")
PERIODS: tuple[Period, ...] = ("day", "month", "all")


class Quota(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Bounds; ``None`` is none. Those of tenant, project and key hold together."""

    # smooth rates: what is left grows all the time, up to the amount itself
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None  # input and output
    # used up until the day or month (in UTC) ends, or for good
    requests_per_day: Count | None = None
    requests_per_month: Count | None = None
    requests_in_all: Count | None = None
    tokens_per_day: Count | None = None
    tokens_per_month: Count | None = None
    tokens_in_all: Count | None = None
    money_per_day: Money | None = None
    money_per_month: Money | None = None
    money_in_all: Money | None = None
    compute_seconds_per_day: Count | None = None  # of training
    compute_seconds_per_month: Count | None = None
    compute_seconds_in_all: Count | None = None
    # held at one time
    concurrent: Rate | None = None  # requests
    queue: Count | None = None  # requests that wait for a model
    stored_bytes: Count | None = None

    def __post_init__(self) -> None:
        for period in PERIODS:
            money = getattr(self, field("money", period))
            if money is not None and not (money.is_finite() and 0 <= money <= MOST // NANO):
                raise ValueError(f"{field('money', period)} is from 0 to {MOST // NANO}")

    def amount(self, resource: Resource, period: Period) -> int | None:
        """The bound on a period's sum; money in nano-units."""
        found: int | Decimal | None = getattr(self, field(resource, period))
        return int(found * NANO) if isinstance(found, Decimal) else found


def field(resource: Resource, period: Period) -> str:
    return f"{resource}_in_all" if period == "all" else f"{resource}_per_{period}"


def quota(values: object) -> Quota:
    """A quota from JSON-like data.

    Raises:
        InvalidRequest: an unknown name, or a value out of range.
    """
    try:
        return msgspec.convert(values, Quota, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(Quota.__struct_fields__)
        told = f"; there are: {known}" if "unknown field" in str(error) else ""
        raise InvalidRequest(f"quota: {error}{told}", param="quota") from None


def stored(quota: Quota) -> dict[str, object]:
    """The form that the database keeps."""
    return msgspec.to_builtins(quota)  # type: ignore[no-any-return]


def began(period: Period, at: datetime.datetime) -> int:
    """The first day of a period as the number 20261231; 0 for ``all``."""
    if period == "all":
        return 0
    return at.year * 10000 + at.month * 100 + (at.day if period == "day" else 1)


def ends(period: Period, at: datetime.datetime) -> datetime.datetime | None:
    """When a period begins anew."""
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return midnight + datetime.timedelta(days=1)
    if period == "month":
        return (midnight.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
    return None


def money(nano: int) -> str:
    """Currency units, exact: 12.5, 0.000000001."""
    whole, rest = divmod(abs(nano), NANO)
    text = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
    return f"-{text}" if nano < 0 else text
