"""Admission: nothing runs that was not reserved, nothing is answered that is not in the ledger.

A ticket goes with one request of a client through everything that it asks of models. It takes a
place, reserves the most that each call can use, settles each call with what it used, and at the
end writes the request's rows into the ledger before the last byte is sent.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from openmaas.errors import DeadlineExceeded, OpenMaaSError, RateLimited
from openmaas.inference import Usage
from openmaas.serving.fairness import Priority, Share
from openmaas.tenancy.access import Caller
from openmaas.tenancy.ledger import Ledger
from openmaas.tenancy.ledger_rows import DAY_MS, Row
from openmaas.tenancy.meters import BILLED, NONE, Account, Amounts, Bucket, Meter, Meters, Rate
from openmaas.tenancy.prices import Prices

if TYPE_CHECKING:
    from openmaas.serving.call import Call
    from openmaas.serving.redacting.redaction import Redaction

NOTHING = Usage()
UNMETERED = Account()


class Admission:
    """Opens tickets.

    Args:
        metered: False: whoever calls is let in, and nothing is counted.
    """

    def __init__(self, ledger: Ledger, meters: Meters, prices: Prices, *, metered: bool) -> None:
        self.ledger = ledger
        self.meters = meters
        self.prices = prices
        self.metered = metered

    def known(self, caller: Caller, request: str, task: str) -> Ticket | None:
        """A ticket for a request, if its caller was seen before as it is; None: ``open`` one."""
        account = self.meters.known(caller) if self.metered else UNMETERED
        return None if account is None else Ticket(self, caller, request, task, account)

    async def open(self, caller: Caller, request: str, task: str) -> Ticket:
        """A ticket for a request.

        Raises:
            StorageUnavailable, StorageFull: what a caller has used cannot be read.
        """
        return Ticket(self, caller, request, task, await self.meters.of(caller))

    async def billed(self, tenant: str, idempotency: str) -> bool:
        """Whether the ledger has a row for a hash of an Idempotency-Key.

        Raises:
            StorageUnavailable, StorageFull: the database is away.
        """
        return self.metered and await self.meters.billed(tenant, idempotency)


class Ticket:
    """One request's way through quotas and ledger. ``settle`` ends it, whatever happened."""

    __slots__ = (
        "_account", "_admission", "_calls", "_entered", "_request", "_reserved",
        "_settled", "_started", "beside", "caller", "conversation", "idempotency", "priority",
        "redaction", "sticky", "task", "tried",
    )  # fmt: skip

    def __init__(
        self,
        admission: Admission,
        caller: Caller,
        request: str,
        task: str,
        account: Account,
    ) -> None:
        self.caller = caller
        self.task = task
        self.priority: Priority = "interactive"
        self.idempotency: str | None = None
        self.sticky: str | None = None  # requests with the same one get the same version
        self.conversation: str | None = None  # whose placeholders the request shares
        self.redaction: Redaction | None = None  # once its texts are looked at
        self.beside: str | None = None  # a model that was asked about the request, not by it
        self.tried = False  # its rows take the place of those that an earlier try may have left
        self._admission = admission
        self._request = request
        self._account = account
        self._calls: list[Call] = []
        self._entered = False
        self._settled = False
        self._reserved: list[Amounts] = []  # of each call
        self._started = time.monotonic()

    @property
    def entered(self) -> bool:
        """Whether anything was asked of a model."""
        return self._entered

    @property
    def answered_by(self) -> str:
        """The versions that were asked, as callers name them."""
        if len(self._calls) == 1:
            return f"{self._calls[0].model}@{self._calls[0].version}"
        calls = [one for one in self._calls if one.model != self.beside]
        return ", ".join(dict.fromkeys(f"{one.model}@{one.version}" for one in calls))

    @property
    def settled(self) -> bool:
        """Whether it is, or is being, written down."""
        return self._settled

    @property
    def share(self) -> Share:
        """Whose the calls are, for the fair queue."""
        return Share(self.caller.tenant, self.caller.weight, self.priority)

    # --- before and after a call ---------------------------------------------------------

    async def reserve(self, model: str, worst: Usage, deadline: float) -> Amounts:
        """Takes a place (once) and holds the most that a call can use.

        Raises:
            QuotaExhausted: it is more than what is left.
            RateLimited: it will do later, or too many requests wait already.
            StorageUnavailable, StorageFull: what is used could not be written down now.
            DeadlineExceeded: no place became free in time.
        """
        if not self._admission.metered:
            return Amounts()
        failing = self._admission.ledger.failing
        if failing is not None:
            raise failing
        binding = self._account.binding
        if not binding:
            self._entered = True
            return NONE
        if self._calls:
            for index in range(len(self._calls)):
                self._shrink(index)
        need = self._amounts(model, worst, requests=0 if self._entered else 1)
        self._check(need)
        if not self._entered:
            if any([meter.full() for meter in binding]):  # noqa: C419  half the time of a generator
                await self._enter(deadline)
                try:
                    self._check(need)  # others may have taken it meanwhile
                except OpenMaaSError:
                    self._leave()
                    raise
            else:
                for meter in binding:
                    meter.running += 1
            self._entered = True
        for meter in binding:
            meter.reserve(need)
        return need

    def release(self, reserved: Amounts) -> None:
        """Nothing came of a call."""
        for meter in self._account.binding:
            meter.hold(_minus(reserved))

    def follow(self, call: Call, reserved: Amounts) -> None:
        """Counts a call. What it turns out not to use of its reservation is given back when the
        next is made, or the request ends."""
        self._calls.append(call)
        self._reserved.append(reserved)

    def queue(self, call: Call) -> None:
        """Lets a call wait for its model, if so many may wait.

        Raises:
            RateLimited: too many do.
        """
        if call.dispatched is not None:
            return
        for meter in self._account.binding:
            if meter.queue_full():
                raise _too_many(meter)
        for meter in self._account.binding:
            meter.queued += 1
        call.left_queue = self._dispatched

    def rates(self) -> tuple[Rate | None, Rate | None]:
        """Of requests and of tokens, the limit that has the least left."""
        account = self._account
        return _tightest(account.requests), _tightest(account.tokens)

    # --- the end -----------------------------------------------------------------------------

    async def settle(self, outcome: str) -> None:
        """Writes the request down, and returns when that is durable. Only the first time counts.

        Args:
            outcome: "ok": all was used; "cut": the client went away while it was answered, and
                is billed for what was delivered; else an error's code: nothing is billed.

        Raises:
            StorageUnavailable, StorageFull: it could not be written in time. It will be, as
                that error, which bills nothing.
        """
        if self._settled or not self._entered:
            return
        self._settled = True
        for call in self._calls:
            if not call.done:
                call.cancel()
        rows, used = self._rows(outcome)
        account = self._account
        day = rows[0].time // DAY_MS if rows else None
        for meter in account.meters:
            meter.use(used, day)
        if account.binding:
            held = self._held()
            for meter in account.binding:
                meter.settle(held, used)
                meter.leave()
        if not rows:
            return
        ledger = self._admission.ledger
        durable = ledger.add(rows, tried=self.tried)
        if outcome not in BILLED:
            return  # it bills nothing: there is nothing to be sure of before the answer
        try:
            await durable
        except OpenMaaSError as error:
            if outcome == "ok":
                ledger.add(self._rows(error.code)[0], tried=True)
                for meter in account.meters:
                    meter.use(_minus(used))
            raise

    def _rows(self, outcome: str) -> tuple[list[Row], Amounts]:
        """A row for each model that was asked, and what they add up to."""
        now = time.monotonic()
        time_ms = time.time_ns() // 1_000_000
        caller = self.caller
        rows: list[Row] = []
        billed = outcome in BILLED
        tokens = money = 0
        for part, ((model, version), calls) in enumerate(self._by_model()):
            usage = NOTHING
            if billed:
                usage = add([call.delivered if outcome == "cut" else call.usage for call in calls])
            price = self._admission.prices.of(model)
            cost = 0
            if billed and price.id:
                cost = price.cost(usage, requests=1 if part == 0 else 0)
            begun = calls[0].dispatched or now
            row = Row._make((
                self._request, part, time_ms, caller.tenant, caller.project, caller.key,
                model, version, self.task, self.priority, outcome,
                usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.rows, 0,
                int((begun - self._started) * 1e6), int((now - begun) * 1e6),
                price.id, cost, self.idempotency if part == 0 and billed else None,
            ))  # fmt: skip
            rows.append(row)
            tokens += usage.input_tokens + usage.output_tokens
            money += cost
        return rows, Amounts(1, tokens, money) if billed else NONE

    def _by_model(self) -> Iterable[tuple[tuple[str, str], list[Call]]]:
        if len(self._calls) == 1:
            return (((self._calls[0].model, self._calls[0].version), self._calls),)
        found: dict[tuple[str, str], list[Call]] = {}
        for call in self._calls:
            found.setdefault((call.model, call.version), []).append(call)
        if self.beside is not None:  # the request's own models come first
            return sorted(found.items(), key=lambda one: one[0][0] == self.beside)
        return found.items()

    # --- reservations and places ----------------------------------------------------------------

    def _amounts(self, model: str, usage: Usage, requests: int) -> Amounts:
        tokens = usage.input_tokens + usage.output_tokens
        price = self._admission.prices.of(model)
        return Amounts(requests, tokens, price.cost(usage, requests=requests) if price.id else 0)

    def _check(self, need: Amounts) -> None:
        for meter in self._account.binding:
            refusal = meter.refusal(need)
            if refusal is not None:
                raise refusal

    def _shrink(self, index: int) -> None:
        """What a call that ended did not use is free again."""
        call, was = self._calls[index], self._reserved[index]
        if not call.done:
            return
        usage = call.delivered if call.usage == NOTHING else call.usage
        kept = self._amounts(call.model, usage, requests=was.requests)
        for meter in self._account.binding:
            meter.hold(Amounts(*(new - old for new, old in zip(kept, was, strict=True))))
        self._reserved[index] = kept

    def _dispatched(self) -> None:
        for meter in self._account.binding:
            meter.queued -= 1

    def _held(self) -> Amounts:
        if len(self._reserved) == 1:
            return self._reserved[0]
        return Amounts(*map(sum, zip(*self._reserved, strict=True))) if self._reserved else NONE

    async def _enter(self, deadline: float) -> None:
        """Takes a place of each meter: the key's first, so that what waits for a key holds no
        place of its tenant's."""
        taken: list[Meter] = []
        try:
            for meter in reversed(self._account.binding):
                if meter.full():
                    await self._wait(meter, deadline)
                else:
                    meter.enter()
                taken.append(meter)
        except BaseException:
            for meter in taken:
                meter.leave()
            raise

    async def _wait(self, meter: Meter, deadline: float) -> None:
        for one in self._account.binding:
            if one.queue_full() or meter.quota.queue is None:
                raise _too_many(one if one.queue_full() else meter)
        for one in self._account.binding:
            one.queued += 1
        place = meter.place()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await place
        except TimeoutError:
            raise DeadlineExceeded("no place became free in time", retry_after=1) from None
        finally:
            for one in self._account.binding:
                one.queued -= 1
            if not place.cancelled() and place.done() and sys.exc_info()[0] is not None:
                meter.leave()  # it came too late

    def _leave(self) -> None:
        for meter in self._account.binding:
            meter.leave()


def add(all_: list[Usage]) -> Usage:
    """Their sum."""
    if len(all_) == 1:
        return all_[0]
    return Usage(
        input_tokens=sum(one.input_tokens for one in all_),
        output_tokens=sum(one.output_tokens for one in all_),
        cached_tokens=sum(one.cached_tokens for one in all_),
        rows=sum(one.rows for one in all_),
    )


def _minus(amounts: Amounts) -> Amounts:
    return Amounts(*(-amount for amount in amounts))


def _tightest(buckets: tuple[Bucket, ...]) -> Rate | None:
    if len(buckets) < 2:
        return buckets[0].rate() if buckets else None
    return min([bucket.rate() for bucket in buckets], key=lambda rate: rate.remaining)


def _too_many(meter: Meter) -> RateLimited:
    quota = meter.quota
    if quota.queue is not None and meter.queue_full():
        told = f"{meter.queued} requests of this {meter.name} wait, as many as may (queue)"
    else:
        told = f"{meter.running} requests of this {meter.name} run, as many as may (concurrent)"
    return RateLimited(told, retry_after=1)
