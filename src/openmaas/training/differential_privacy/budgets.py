"""Budgets of data sets: how much may be learnt of their rows in all, and who spent what.

A job or session holds the most that it may spend from the moment it is made, in the transaction
that makes it, and is settled at its end to what it spent. The ε and δ of all of them are added up:
that bounds them together however each was chosen after the results of those before it (Rogers et
al. 2016, https://arxiv.org/abs/1605.08294), which of the tighter composition of their privacy
losses is known only for what was planned in advance. What was composed is kept, as events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from msgspec import Struct

from openmaas.audit import By
from openmaas.database import Database
from openmaas.errors import Conflict, NotFound
from openmaas.schema import datasets, jobs, sessions
from openmaas.schema import privacy_budgets as budgets
from openmaas.schema import privacy_spends as spends
from openmaas.training.spec import Budget, Privacy, SessionPrivacy

SLACK = 1e-9  # of sums of floating-point numbers
SHOWN = 1000  # spends, the newest
_ENDED_JOBS = ("succeeded", "failed", "cancelled")
_ENDED_SESSIONS = ("closed", "failed")


class Amount(Struct, frozen=True):
    epsilon: float
    delta: float


class Spend(Struct, frozen=True):
    """Of one job or session."""

    id: str
    state: Literal["held", "settled"]  # held: at the most; settled: what it was
    epsilon: float
    delta: float
    steps: int | None
    event: dict[str, Any] | None  # what was composed, as dp-accounting has it
    created: int  # Unix seconds
    settled: int | None


class DatasetBudget(Struct, frozen=True):
    """What may be spent of a data set, and what was."""

    dataset: str
    budget: Amount | None  # None: it has none
    spent: Amount  # settled
    held: Amount  # by jobs and sessions that are not at their end
    left: Amount | None
    unprotected: int  # jobs and sessions that learnt from it without privacy
    spends: list[Spend]  # the newest first


class Budgets:
    """All methods are short transactions; call them from a thread in the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, dataset: str, tenant: str) -> DatasetBudget:
        """
        Raises:
            NotFound: the tenant has no such data set.
        """
        with self._database.read() as connection:
            _dataset(connection, dataset, tenant, lock=False)
            return _told(connection, dataset, tenant)

    def set(self, dataset: str, tenant: str, wanted: Budget, by: By) -> DatasetBudget:
        """Gives a data set its budget, or another one.

        Raises:
            NotFound: the tenant has no such data set.
            Conflict: more is spent or held already, or something learns from it without privacy.
        """
        with self._database.write() as connection:
            _dataset(connection, dataset, tenant, lock=True)
            put(connection, dataset, tenant, wanted, by)
            return _told(connection, dataset, tenant)

    def step(self, id: str) -> int:
        """Writes down that a session makes its next step, and returns which, from 0.

        Raises:
            Conflict: it has made as many as it may.
        """
        which = (spends.c.id == id) & (spends.c.state == "held")
        with self._database.write() as connection:
            taken = connection.execute(
                spends.update()
                .where(which, spends.c.steps < spends.c.most)
                .values(steps=spends.c.steps + 1)
                .returning(spends.c.steps)
            ).scalar()
            if taken is None:
                most = connection.execute(sa.select(spends.c.most).where(which)).scalar()
                raise Conflict(
                    f"the privacy budget of this session is used up: it has made its {most} steps; "
                    "publish it, or open another one with what the data set has left",
                    param="privacy",
                )
        return int(taken) - 1

    def find(self, id: str) -> Spend | None:
        """What a job or session spends; None: nothing."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(*_SPEND).where(spends.c.id == id)).first()
            return None if row is None else Spend(*row)

    def composed(self, id: str, event: dict[str, Any]) -> None:
        """Writes down what a session composes at the most."""
        with self._database.write() as connection:
            connection.execute(spends.update().where(spends.c.id == id).values(event=event))

    def settle(
        self, id: str, amount: Amount, steps: int | None, event: dict[str, Any] | None
    ) -> None:
        """What was really spent takes the place of what was held; a second time changes nothing."""
        values = {"epsilon": amount.epsilon, "delta": amount.delta, "steps": steps, "event": event}
        with self._database.write() as connection:
            connection.execute(
                spends.update()
                .where(spends.c.id == id, spends.c.state == "held")
                .values(state="settled", settled=int(time.time()), **values)
            )

    def ended(self) -> Sequence[tuple[str, int | None]]:
        """Ids of jobs and sessions at their end that still hold something; of jobs, how often they
        were begun."""
        held = spends.c.state == "held"
        found: list[tuple[str, int | None]] = []
        with self._database.read() as connection:
            if connection.execute(sa.select(spends.c.id).where(held).limit(1)).first() is None:
                return found
            for users, states, attempts in (
                (jobs, _ENDED_JOBS, jobs.c.attempts),
                (sessions, _ENDED_SESSIONS, sa.null()),
            ):
                both = spends.join(users, users.c.id == spends.c.id)
                query = sa.select(spends.c.id, attempts).select_from(both)
                rows = connection.execute(query.where(held, users.c.state.in_(states)))
                found += [(row[0], row[1]) for row in rows]
        return found


_SPEND = [spends.c[name] for name in Spend.__struct_fields__]


# --- within others' transactions, which have locked the data set ----------------------------------


def reserve(
    connection: sa.Connection, id: str, dataset: str, tenant: str, privacy: Privacy
) -> None:
    """Holds what a job or session may spend at most.

    Raises:
        Conflict: the data set's budget has not so much left.
    """
    budget, total = _budget(connection, dataset), _sum(connection, dataset)
    after = Amount(total.epsilon + privacy.epsilon, total.delta + privacy.delta)
    if budget is not None and not _fits(after, budget):
        left = _left(budget, total)
        raise Conflict(
            f"data set {dataset} has a budget of {_words(budget)}, of which {_words(total)} are "
            f"spent or held: {_words(left)} are left, and {_words(privacy)} would be spent",
            param="privacy",
        )
    session = isinstance(privacy, SessionPrivacy)
    connection.execute(
        spends.insert().values(
            id=id,
            dataset=dataset,
            tenant=tenant,
            state="held",
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            steps=0 if session else None,
            most=privacy.steps if isinstance(privacy, SessionPrivacy) else None,
            event=None,
            created=int(time.time()),
            settled=None,
        )
    )


def check_unprotected(connection: sa.Connection, dataset: str) -> None:
    """
    Raises:
        Conflict: the data set has a budget, which what learns without privacy would make void.
    """
    budget = _budget(connection, dataset)
    if budget is not None:
        raise Conflict(
            f"data set {dataset} has a privacy budget ({_words(budget)}), which training without "
            "privacy would make void: say privacy, with epsilon and delta",
            param="privacy",
        )


def put(connection: sa.Connection, dataset: str, tenant: str, wanted: Budget, by: By) -> None:
    """
    Raises:
        Conflict: as ``Budgets.set``.
    """
    total = _sum(connection, dataset)
    amount = Amount(wanted.epsilon, wanted.delta)
    if not _fits(total, amount):
        raise Conflict(
            f"{_words(total)} of data set {dataset} are spent or held already, which is more than "
            f"{_words(amount)}",
            param="epsilon" if total.epsilon > amount.epsilon * (1 + SLACK) else "delta",
        )
    working = [one for one in _unprotected(connection, dataset, tenant) if one.working]
    if working:
        raise Conflict(
            f"{working[0].id} learns from data set {dataset} without privacy; wait for its end or "
            "cancel it"
        )
    connection.execute(budgets.delete().where(budgets.c.dataset == dataset))
    connection.execute(
        budgets.insert().values(
            dataset=dataset,
            tenant=tenant,
            epsilon=amount.epsilon,
            delta=amount.delta,
            changed=int(time.time()),
        )
    )
    by.note(
        connection,
        "dataset.budget",
        dataset,
        tenant=tenant,
        epsilon=amount.epsilon,
        delta=amount.delta,
    )


class _User(Struct):
    id: str
    working: bool  # it is not at its end


def _unprotected(connection: sa.Connection, dataset: str, tenant: str) -> list[_User]:
    found = []
    for users, ended in ((jobs, _ENDED_JOBS), (sessions, _ENDED_SESSIONS)):
        query = sa.select(users.c.id, users.c.state, users.c.spec).where(users.c.tenant == tenant)
        for row in connection.execute(query):
            if row.spec.get("dataset") == dataset and row.spec.get("privacy") is None:
                found.append(_User(row.id, row.state not in ended))
    return found


def _dataset(connection: sa.Connection, id: str, tenant: str, *, lock: bool) -> None:
    query = sa.select(datasets.c.id).where(datasets.c.id == id, datasets.c.tenant == tenant)
    if connection.execute(query.with_for_update() if lock else query).first() is None:
        raise NotFound(f"no data set {id[:64]!r}")


def _budget(connection: sa.Connection, dataset: str) -> Amount | None:
    query = sa.select(budgets.c.epsilon, budgets.c.delta).where(budgets.c.dataset == dataset)
    row = connection.execute(query).first()
    return None if row is None else Amount(*row)


def _sum(connection: sa.Connection, dataset: str, *states: str) -> Amount:
    query = sa.select(spends.c.epsilon, spends.c.delta).where(
        spends.c.dataset == dataset, spends.c.state.in_(states or ("held", "settled"))
    )
    rows = connection.execute(query).all()
    return Amount(math.fsum(row.epsilon for row in rows), math.fsum(row.delta for row in rows))


def _fits(amount: Amount, budget: Amount) -> bool:
    return amount.epsilon <= budget.epsilon * (1 + SLACK) and amount.delta <= budget.delta * (
        1 + SLACK
    )


def _left(budget: Amount, total: Amount) -> Amount:
    return Amount(max(0.0, budget.epsilon - total.epsilon), max(0.0, budget.delta - total.delta))


def _words(amount: Amount | Privacy) -> str:
    return f"ε = {amount.epsilon:.6g} and δ = {amount.delta:.6g}"


def _told(connection: sa.Connection, dataset: str, tenant: str) -> DatasetBudget:
    budget, total = _budget(connection, dataset), _sum(connection, dataset)
    newest = (
        sa.select(*_SPEND)
        .where(spends.c.dataset == dataset)
        .order_by(spends.c.created.desc(), spends.c.id)
        .limit(SHOWN)
    )
    return DatasetBudget(
        dataset=dataset,
        budget=budget,
        spent=_sum(connection, dataset, "settled"),
        held=_sum(connection, dataset, "held"),
        left=None if budget is None else _left(budget, total),
        unprotected=len(_unprotected(connection, dataset, tenant)),
        spends=[Spend(*row) for row in connection.execute(newest)],
    )
