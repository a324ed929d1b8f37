"""Quotas at work: what each tenant, project and key has used, holds, and may still take.

Everything is on the event loop, so that looking and taking are one step: a request reserves the
most that it can use, and settles with what it used. Sums come from the ledger when a subject is
first seen; from then on this process, which alone writes the ledger, adds to them.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import sqlalchemy as sa

from openmaas.database import Database
from openmaas.errors import OpenMaaSError, QuotaExhausted, RateLimited
from openmaas.schema import usage, usage_days
from openmaas.tenancy.access import Caller
from openmaas.tenancy.quota import (
    NANO,
    PERIODS,
    RESOURCES,
    Period,
    Quota,
    Resource,
    began,
    ends,
    field,
    money,
)

BILLED = ("ok", "cut")  # outcomes that count
NO_QUOTA = Quota()


class Amounts(NamedTuple):
    """Of each resource, in the order of ``RESOURCES``; money in nano-units."""

    requests: int = 0
    tokens: int = 0
    money: int = 0
    compute_seconds: int = 0


NONE = Amounts()


class Rate(NamedTuple):
    """A rate limit as its headers tell it."""

    limit: int
    remaining: int
    reset: float  # seconds until all of it is there again


class Bucket:
    """A smooth rate: fills all the time, up to a minute's amount."""

    def __init__(self, per_minute: int) -> None:
        self.limit = per_minute
        self._level = float(per_minute)
        self._at = time.monotonic()

    def short(self, amount: int) -> float:
        """Seconds until so much is there; 0: now; infinity: never."""
        self._fill()
        if amount > self.limit:
            return math.inf
        return max(0.0, (amount - self._level) * 60 / self.limit)

    def take(self, amount: int) -> None:
        """Negative: gives back."""
        self._level = min(self._level - amount, float(self.limit))

    def rate(self) -> Rate:
        self._fill()
        left = max(0, math.floor(self._level + 1e-6))
        return Rate(self.limit, left, (self.limit - self._level) * 60 / self.limit)

    def _fill(self) -> None:
        now = time.monotonic()
        self._level = min(self._level + (now - self._at) * self.limit / 60, float(self.limit))
        self._at = now


class Meter:
    """What one subject (a tenant, project or key) has used and holds.

    Args:
        name: for messages: "tenant", "project" or "key".
        sums: used since the beginning of today, of this month and in all.
    """

    def __init__(self, name: str, quota: Quota, sums: dict[Period, Amounts]) -> None:
        self.name = name
        self.running = 0  # requests
        self.queued = 0  # of them, or beside them, those that wait for something
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._used = list(sums["all"])
        self._bases = {
            period: [all_ - part for all_, part in zip(sums["all"], sums[period], strict=True)]
            for period in PERIODS
        }
        self._day = int(time.time()) // 86_400
        today = _today()
        self._began = {period: began(period, today) for period in PERIODS}
        self._reserved = [0] * len(RESOURCES)
        self.set(quota)

    def set(self, quota: Quota) -> None:
        """Another quota from now on; what was used stays used."""
        self.quota = quota
        self._concurrent, self._queue = quota.concurrent, quota.queue
        self.requests = _bucket(getattr(self, "requests", None), quota.requests_per_minute)
        self.tokens = _bucket(getattr(self, "tokens", None), quota.tokens_per_minute)
        self._bounds = [
            (index, resource, period, bound)
            for index, resource in enumerate(RESOURCES)
            for period in PERIODS
            if (bound := quota.amount(resource, period)) is not None
        ]
        self._wake()

    # --- sums and rates --------------------------------------------------------------------

    def refusal(self, need: Amounts) -> OpenMaaSError | None:
        """Why so much cannot be reserved now."""
        requests, tokens = self.requests, self.tokens
        if requests is not None and (wait := requests.short(need.requests)) > 0:
            return self._too_fast(requests, need.requests, "requests", wait)
        if tokens is not None and (wait := tokens.short(need.tokens)) > 0:
            return self._too_fast(tokens, need.tokens, "tokens", wait)
        if self._bounds:
            self._turn()
        for index, resource, period, bound in self._bounds:
            used = self._used[index] - self._bases[period][index]
            if used + self._reserved[index] + need[index] > bound:
                return self._used_up(resource, period, bound, used, need[index])
        return None

    def reserve(self, need: Amounts) -> None:
        if self.requests is not None:
            self.requests.take(need.requests)
        self.hold(need)

    def hold(self, change: Amounts) -> None:
        """More, or (negative) less, is reserved."""
        held = self._reserved
        held[0] += change[0]
        held[1] += change[1]
        held[2] += change[2]
        held[3] += change[3]
        if self.tokens is not None:
            self.tokens.take(change[1])

    def settle(self, held: Amounts, used: Amounts) -> None:
        """A request is over: what it held is free, but for what it used."""
        reserved = self._reserved
        reserved[0] -= held[0]
        reserved[1] -= held[1]
        reserved[2] -= held[2]
        reserved[3] -= held[3]
        if self.tokens is not None:
            self.tokens.take(used[1] - held[1])

    def use(self, used: Amounts, day: int | None = None) -> None:
        """Adds to the sums. Call it at the moment that the ledger's row tells, so that both count
        it in the same day.

        Args:
            day: since the epoch, of that moment.
        """
        if day != self._day:
            self._turn()
        sums = self._used
        sums[0] += used[0]
        sums[1] += used[1]
        sums[2] += used[2]
        sums[3] += used[3]

    def told(self) -> dict[str, dict[str, str]]:
        """What was used, by period and resource; money in currency units."""
        self._turn()
        found: dict[str, dict[str, str]] = {}
        for period, base in self._bases.items():
            used = [now - then for now, then in zip(self._used, base, strict=True)]
            found[period] = {
                name: money(one) if name == "money" else str(one)
                for name, one in zip(RESOURCES, used, strict=True)
            }
        return found

    def _turn(self) -> None:
        """Sums of a day or month begin anew with it."""
        day = int(time.time()) // 86_400
        if day == self._day:
            return
        self._day = day
        today = _today()
        for period, since in self._began.items():
            now = began(period, today)
            if now != since:
                self._began[period] = now
                self._bases[period] = list(self._used)

    def _too_fast(self, bucket: Bucket, amount: int, what: str, wait: float) -> OpenMaaSError:
        if wait == math.inf:
            return QuotaExhausted(
                f"this request may take {amount} {what}, more than the {bucket.limit} a minute of "
                f"this {self.name}; ask for fewer (max_tokens)",
                param="max_tokens" if what == "tokens" else None,
            )
        return RateLimited(
            f"the {self.name}'s limit of {bucket.limit} {what} a minute is reached",
            retry_after=wait,
        )

    def _used_up(
        self, resource: Resource, period: Period, bound: int, used: int, need: int
    ) -> OpenMaaSError:
        name = field(resource, period)
        unit = NANO if resource == "money" else 1
        told = f"{name} is {bound / unit:g}, {used / unit:g} is used"
        if used + need <= bound:
            return RateLimited(
                f"the {self.name}'s quota may be used up by requests in flight: {told}",
                retry_after=1,
            )
        now = datetime.datetime.now(datetime.UTC)
        until = ends(period, now)
        when = "" if until is None else f"; it begins anew at {until:%Y-%m-%d %H:%M} UTC"
        return QuotaExhausted(
            f"the {self.name}'s quota does not suffice: {told}, this request may use "
            f"{need / unit:g}{when}",
            retry_after=None if until is None else (until - now).total_seconds(),
        )

    # --- places -------------------------------------------------------------------------------

    def full(self) -> bool:
        limit = self._concurrent
        return limit is not None and self.running >= limit

    def queue_full(self) -> bool:
        limit = self._queue
        return limit is not None and self.queued >= limit

    def enter(self) -> None:
        self.running += 1

    def leave(self) -> None:
        self.running -= 1
        if self._waiters:
            self._wake()

    def place(self) -> asyncio.Future[None]:
        """Done when a place is free, which then is the waiter's; first come, first served."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def _wake(self) -> None:
        while self._waiters and not self.full():
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.running += 1
                waiter.set_result(None)


class Account(NamedTuple):
    """The meters of a caller's tenant, project and key."""

    meters: tuple[Meter, ...] = ()
    binding: tuple[Meter, ...] = ()  # those of them that have a bound
    # the rates among the bounds
    requests: tuple[Bucket, ...] = ()
    tokens: tuple[Bucket, ...] = ()


class Meters:
    """The meters of all subjects that were seen."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_subject: dict[tuple[str, ...], Meter] = {}
        self._of_key: dict[str, tuple[Caller, Account]] = {}
        self._lock = asyncio.Lock()  # a subject is loaded once, before it is used at all
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="meters")

    def known(self, caller: Caller) -> Account | None:
        """The account of a caller that was seen as it is."""
        found = self._of_key.get(caller.key)
        return found[1] if found is not None and found[0] is caller else None

    async def of(self, caller: Caller) -> Account:
        """The account of a caller, under the quotas that it came with.

        Raises:
            StorageUnavailable, StorageFull: the database is away.
        """
        async with self._lock:
            subjects = (
                (caller.tenant,),
                (caller.tenant, caller.project),
                (caller.tenant, caller.project, caller.key),
            )
            for subject, quota in zip(subjects, caller.quotas, strict=True):
                meter = self._by_subject.get(subject)
                if meter is None:
                    loop = asyncio.get_running_loop()
                    sums = await loop.run_in_executor(self._thread, self._sums, subject)
                    name = ("tenant", "project", "key")[len(subject) - 1]
                    self._by_subject[subject] = Meter(name, quota, sums)
                elif meter.quota != quota:
                    meter.set(quota)
            meters = tuple(self._by_subject[subject] for subject in subjects)
            account = Account(
                meters,
                tuple(meter for meter in meters if meter.quota != NO_QUOTA),
                tuple(meter.requests for meter in meters if meter.requests is not None),
                tuple(meter.tokens for meter in meters if meter.tokens is not None),
            )
            self._of_key[caller.key] = caller, account
            return account

    async def billed(self, tenant: str, idempotency: str) -> bool:
        """Whether a tenant's row with that hash of an Idempotency-Key is in the ledger."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._billed, tenant, idempotency)

    def _billed(self, tenant: str, idempotency: str) -> bool:
        query = sa.select(usage.c.request).where(
            usage.c.tenant == tenant, usage.c.idempotency == idempotency
        )
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def _sums(self, subject: Sequence[str]) -> dict[Period, Amounts]:
        of = usage_days.c
        columns = (of.requests, of.input_tokens + of.output_tokens, of.cost, of.seconds)
        query = sa.select(*(sa.func.coalesce(sa.func.sum(column), 0) for column in columns)).where(
            of.outcome.in_(BILLED),
            *(column == is_ for column, is_ in zip((of.tenant, of.project, of.key), subject)),  # noqa: B905
        )
        today = _today()
        with self._database.read() as connection:
            return {
                period: Amounts(
                    *map(int, connection.execute(query.where(of.day >= began(period, today))).one())
                )
                for period in PERIODS
            }


def _bucket(old: Bucket | None, limit: int | None) -> Bucket | None:
    if limit is None:
        return None
    return old if old is not None and old.limit == limit else Bucket(limit)


def _today() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
