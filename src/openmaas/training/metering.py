"""Compute of training: whole seconds in the ledger, under the quotas of whoever owns it.

A job or session has one ``Clock``. Its owner asks ``check`` before each piece of work, says with
``add`` how long that was busy, and awaits ``write`` when it is ``due``, which is once a minute.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from typing import NamedTuple

import sqlalchemy as sa

from openmaas.database import Database
from openmaas.errors import NotFound
from openmaas.inference import Usage
from openmaas.schema import keys, projects, tenants
from openmaas.tenancy.access import LOCAL, Caller
from openmaas.tenancy.ledger import Ledger
from openmaas.tenancy.ledger_rows import Row
from openmaas.tenancy.meters import Account, Amounts, Meters
from openmaas.tenancy.prices import Prices
from openmaas.tenancy.quota import Quota, quota

TASK = "train"
ROW_SECONDS = 60.0  # between two rows of one job or session


class Owner(NamedTuple):
    """Whose a job or session is, as its row says."""

    tenant: str
    project: str
    key: str


class Metering:
    """Makes clocks.

    Args:
        metered: False: nothing is counted, and no quota holds.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        meters: Meters,
        prices: Prices,
        *,
        metered: bool = True,
    ) -> None:
        self.ledger = ledger
        self.meters = meters
        self.prices = prices
        self.metered = metered
        self._database = database

    async def open(
        self, owner: Owner, model: str, of: str, *, seconds: float = 0.0, billed: int | None = None
    ) -> Clock:
        """
        Args:
            of: the job's or session's id, which is what the ledger has as the version.
            seconds: that it was busy before.
            billed: how many of them are in the ledger; ``None``: all, rounded up.

        Raises:
            NotFound: the tenant or project was closed.
            StorageUnavailable, StorageFull: the database is away.
        """
        billed = math.ceil(seconds) if billed is None else billed
        return Clock(self, owner, (model, of), seconds, billed, await self.account(owner))

    async def account(self, owner: Owner) -> Account:
        """The meters of an owner, under the quotas that it has now.

        Raises:
            NotFound, StorageUnavailable, StorageFull: as ``open``.
        """
        if not self.metered:
            return Account()
        return await self.meters.of(await asyncio.to_thread(self._caller, owner))

    def _caller(self, owner: Owner) -> Caller:
        of_project = sa.select(tenants.c.quota, projects.c.quota.label("of_project")).where(
            tenants.c.id == owner.tenant,
            projects.c.tenant == tenants.c.id,
            projects.c.id == owner.project,
            tenants.c.closed.is_(None),
            projects.c.closed.is_(None),
        )
        of_key = sa.select(keys.c.quota).where(keys.c.id == owner.key)
        with self._database.read() as connection:
            row = connection.execute(of_project).first()
            key = connection.execute(of_key).first()
        if row is None:
            raise NotFound(f"tenant {owner.tenant!r} or its project {owner.project!r} is closed")
        # A key that is gone, or that of the environment, has no quota of its own.
        own = Quota() if key is None else quota(key.quota)
        return Caller(
            key=owner.key,
            tenant=owner.tenant,
            project=owner.project,
            scopes=LOCAL.scopes,
            quotas=(quota(row.quota), quota(row.of_project), own),
        )


class Clock:
    """Busy seconds of one job or session. Everything is on the event loop.

    Attributes:
        seconds: busy so far, those before this process too.
        billed: whole seconds of them that are in the ledger.
    """

    def __init__(
        self,
        metering: Metering,
        owner: Owner,
        of: tuple[str, str],
        seconds: float,
        billed: int,
        account: Account,
    ) -> None:
        self.seconds = seconds
        self.billed = billed
        self._metering = metering
        self._owner = owner
        self._model, self._of = of
        self._account = account
        self._held = Amounts()  # of the quotas, for what is not in the ledger yet
        self._written = time.monotonic()
        self._refused = False
        self._lock = asyncio.Lock()

    @property
    def due(self) -> bool:
        """Whether a row should be written now."""
        late = self._refused or time.monotonic() - self._written >= ROW_SECONDS
        return late and self.seconds > self.billed

    def check(self, ahead: float = 1.0) -> None:
        """Holds so many seconds of the owner's quotas beyond those that were used.

        Raises:
            QuotaExhausted: there are not so many.
            RateLimited: there may be, once others that run now have used less.
            StorageUnavailable, StorageFull: what is used could not be written down now.
        """
        if not self._metering.metered:
            return
        if self._metering.ledger.failing is not None:
            raise self._metering.ledger.failing
        more = self._more(self.seconds + ahead)
        if more is None:
            return
        for meter in self._account.meters:
            refusal = meter.refusal(more)
            if refusal is not None:
                self._refused = True  # what it has used itself should be told apart from the rest
                raise refusal
        self._hold(more)

    def add(self, seconds: float) -> None:
        """Counts busy time. It is held even where a quota is used up by it: it is billed."""
        self.seconds += seconds
        more = self._more(self.seconds)
        if more is not None:
            self._hold(more)

    async def write(self) -> None:
        """Writes what was used since the last row, and returns when that is durable. A begun
        second counts as one, and what it has left is used before the next is billed.

        Raises:
            StorageUnavailable, StorageFull: it could not be written in time. It will be.
        """
        async with self._lock:
            self._written, self._refused = time.monotonic(), False
            busy = math.ceil(self.seconds) - self.billed
            if busy <= 0 or not self._metering.metered:
                return
            row = self._row(busy)
            # Counted at the moment that the row tells, so that both are of the same day. A row
            # that cannot be written now is still on its way, and counts as billed.
            self.billed += busy
            used = Amounts(money=row.cost, compute_seconds=busy)
            for meter in self._account.meters:
                meter.use(used)
            self._release()
            await self._metering.ledger.add([row])
            self._account = await self._metering.account(self._owner)

    async def close(self) -> None:
        """Writes what is left and gives back what was held beyond it.

        Raises:
            StorageUnavailable, StorageFull: as ``write``.
        """
        try:
            await self.write()
        finally:
            self._release()

    # --- what is held ----------------------------------------------------------------------

    def _more(self, seconds: float) -> Amounts | None:
        """What is to be held beyond what is, to cover so many busy seconds."""
        short = math.ceil(seconds) - self.billed - self._held.compute_seconds
        if short <= 0:
            return None
        return Amounts(money=self._cost(short), compute_seconds=short)

    def _hold(self, change: Amounts) -> None:
        for meter in self._account.meters:  # all: one that has no bound now may get one
            meter.hold(change)
        self._held = Amounts(*map(sum, zip(self._held, change, strict=True)))

    def _release(self) -> None:
        self._hold(Amounts(*(-one for one in self._held)))

    def _cost(self, seconds: int) -> int:
        return self._metering.prices.of(self._model).cost(Usage(), requests=0, seconds=seconds)

    def _row(self, busy: int) -> Row:
        now = time.time_ns() // 1_000_000
        owner, price = self._owner, self._metering.prices.of(self._model)
        return Row(
            # Not the first part of a request: time of a machine is no request of a client.
            f"req_{now:012x}{secrets.token_hex(9)}", 1, now, owner.tenant, owner.project, owner.key,
            self._model, self._of, TASK, "batch", "ok",
            0, 0, 0, 0, busy, 0, busy * 1_000_000,
            price.id, self._cost(busy), None,
        )  # fmt: skip
