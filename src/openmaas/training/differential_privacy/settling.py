"""Settles what jobs and sessions spent, at their end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from openmaas.errors import TrainingFailed
from openmaas.training.differential_privacy import accountant, guarantee
from openmaas.training.differential_privacy.budgets import Amount, Budgets, Spend
from openmaas.training.differential_privacy.guarantee import Guarantee, Spent
from openmaas.training.spec import SessionSpec

log = logging.getLogger(__name__)


class Settling:
    """All methods block, for seconds at times; call them from a thread in the gateway."""

    def __init__(self, budgets: Budgets) -> None:
        self.budgets = budgets

    def job(self, id: str, folder: Path, attempts: int) -> None:
        """A job whose trainer has ended for good; one that is not private has nothing to settle.
        What cannot be told any more is taken for spent.

        Args:
            folder: the job's.
            attempts: how often a trainer was started for it.
        """
        held = self.budgets.find(id)
        if held is None or held.state != "held":
            return
        if attempts and not folder.is_dir():
            log.error("job %s: its folder is gone, so that all is taken for spent", id)
            self._all(held)
            return
        try:
            spent = guarantee.read(folder)
        except (msgspec.MsgspecError, OSError):
            log.error("job %s: what it spent cannot be read, so that all is taken for spent", id)
            self._all(held)
            return
        self._settle(held, spent)

    def opened(self, id: str, rate: float, noise_multiplier: float) -> None:
        """Writes down what each step of a session is."""
        self.budgets.composed(id, guarantee.event(rate, noise_multiplier, 0))

    def promise(self, id: str, spec: SessionSpec) -> dict[str, Any]:
        """A ``Guarantee`` of the steps that a session has begun so far.

        Raises:
            TrainingFailed: it cannot be counted.
        """
        held = self.budgets.find(id)
        spent = None if held is None else spent_of(held)
        assert spent is not None
        assert spec.privacy is not None
        found: dict[str, Any] = msgspec.to_builtins(
            Guarantee(
                epsilon=accountant.epsilon(spent),
                delta=spent.delta,
                sampling_rate=spent.rate,
                batch_size=spec.privacy.batch_size,
                noise_multiplier=spent.noise_multiplier,
                max_grad_norm=spec.privacy.max_grad_norm,
                steps=spent.steps,
                planned_steps=spec.privacy.steps,
                noise=spec.privacy.noise,
                accountant=guarantee.accountant(),
                event=guarantee.event(spent.rate, spent.noise_multiplier, spent.steps),
                not_covered=guarantee.not_covered(spec.privacy.noise, spec.recipe),
            )
        )
        return found

    def session(self, id: str) -> None:
        """A session that is closed, or could not be opened."""
        held = self.budgets.find(id)
        if held is not None and held.state == "held":
            self._settle(held, spent_of(held))

    def ended(self, folder: Callable[[str], Path]) -> None:
        """All that is held by what is at its end.

        Args:
            folder: a job's, by its id.
        """
        for id, attempts in self.budgets.ended():
            if attempts is None:
                self.session(id)
            else:
                self.job(id, folder(id), attempts)

    def _settle(self, held: Spend, spent: Spent | None) -> None:
        if spent is None or spent.steps == 0:
            self.budgets.settle(held.id, Amount(0.0, 0.0), 0, None)
            return
        try:
            found = accountant.epsilon(spent)
        except TrainingFailed as error:
            log.error("%s: %s, so that all is taken for spent", held.id, error.message)
            self._all(held)
            return
        # What it may spend is what its noise was made for.
        amount = Amount(min(found, held.epsilon), held.delta)
        event = guarantee.event(spent.rate, spent.noise_multiplier, spent.steps)
        self.budgets.settle(held.id, amount, spent.steps, event)

    def _all(self, held: Spend) -> None:
        self.budgets.settle(held.id, Amount(held.epsilon, held.delta), held.steps, held.event)


def spent_of(spend: Spend) -> Spent | None:
    """A session's; None: it was not opened."""
    if spend.event is None:
        return None
    sampled = spend.event["self_composed"]["event"]["poisson_sampled"]
    return Spent(
        rate=sampled["sampling_probability"],
        noise_multiplier=sampled["event"]["gaussian"]["noise_multiplier"],
        delta=spend.delta,
        steps=spend.steps or 0,
    )
