"""A private job: what it must be, what trains it, and what its version promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openmaas.errors import InvalidRequest, TrainingFailed
from openmaas.training.differential_privacy import accounting, forms, guarantee, networks, noise
from openmaas.training.differential_privacy.accounting import Mechanism
from openmaas.training.differential_privacy.engine import PrivateEngine, Step
from openmaas.training.differential_privacy.guarantee import Guarantee, Spent
from openmaas.training.differential_privacy.loop import PrivateLoop
from openmaas.training.loop import Control, Diverged, Fitted, Plan
from openmaas.training.recipes.base import Prepared
from openmaas.training.rows import Rows
from openmaas.training.spec import Fit, Privacy


class Private:
    """One private run.

    Args:
        fit: with its gaps filled.
        folder: the job's.

    Raises:
        InvalidRequest: nothing private can be made of it; the message says what can.
    """

    def __init__(
        self, privacy: Privacy, fit: Fit, prepared: Prepared, recipe: str | None, folder: Path
    ) -> None:
        check_rows(privacy, prepared)
        forms.check(fit)
        self._privacy = privacy
        self._fit = fit
        self._folder = folder
        self._prepared = prepared
        self._recipe = recipe
        rows = prepared.train.size
        self.batch = min(fit.batch_size or 32, rows)
        self.planned = (fit.epochs or 1) * -(-rows // self.batch)
        self.mechanism = mechanism(privacy, self.batch / rows, self.planned)
        self._source = noise.source(privacy, fit.seed, folder)
        self._taken = 0

    def engine(self, model: Any, later: list[Rows], answers: bool) -> PrivateEngine:
        networks.check(model)
        privacy = self._privacy
        step = Step(self.batch, privacy.max_grad_norm, self.mechanism.noise_multiplier)
        return PrivateEngine(
            model, self._prepared.train, step, self._source, self._fit.seed, later, answers
        )

    def fit(self, engine: PrivateEngine, plan: Plan, control: Control) -> Fitted:
        """
        Raises:
            TrainingFailed: weights are no numbers any more.
            Paused, StorageFull
        """
        loop = PrivateLoop(
            engine,
            self._prepared.train,
            self._prepared.validation,
            plan,
            control,
            source=self._source,
            rate=self.mechanism.rate,
            spend=self._spend,
        )
        try:
            fitted = loop.run()
        except Diverged as error:
            raise TrainingFailed(
                f"The weights or the loss of held-out rows became no finite numbers in epoch "
                f"{error.epoch}; the learning rate was {error.rate:g}: take a lower one.",
                cause="training_diverged",
            ) from None
        self._taken = loop.taken
        return fitted

    def guarantee(self) -> Guarantee:
        """Of the steps that were taken."""
        privacy, taken = self._privacy, self._taken
        return Guarantee(
            epsilon=accounting.epsilon(self.mechanism, taken, privacy.delta),
            delta=privacy.delta,
            sampling_rate=self.mechanism.rate,
            batch_size=self.batch,
            noise_multiplier=self.mechanism.noise_multiplier,
            max_grad_norm=privacy.max_grad_norm,
            steps=taken,
            planned_steps=self.planned,
            noise=privacy.noise,
            accountant=guarantee.accountant(),
            event=guarantee.event(self.mechanism.rate, self.mechanism.noise_multiplier, taken),
            not_covered=guarantee.not_covered(privacy.noise, self._recipe),
        )

    def _spend(self, steps: int) -> None:
        """Steps up to so many are about to be made. Those that are made again after a crash are
        the same ones, as their chance is."""
        spent = guarantee.read(self._folder)
        most = max(steps, 0 if spent is None else spent.steps)
        made = Spent(
            rate=self.mechanism.rate,
            noise_multiplier=self.mechanism.noise_multiplier,
            delta=self._privacy.delta,
            steps=most,
        )
        if made != spent:
            guarantee.write(self._folder, made)


def mechanism(privacy: Privacy, rate: float, steps: int) -> Mechanism:
    """The step that a budget allows so many times.

    Raises:
        InvalidRequest: the noise that is asked for does not keep to it, or none does.
    """
    epsilon, delta = privacy.epsilon, privacy.delta
    if privacy.noise_multiplier is None:
        return Mechanism(rate, accounting.noise_multiplier(epsilon, delta, rate, steps))
    made = Mechanism(rate, privacy.noise_multiplier)
    comes_to = accounting.epsilon(made, steps, delta)
    if comes_to > epsilon:
        raise InvalidRequest(
            f"with a noise multiplier of {privacy.noise_multiplier:g}, {steps} steps at a sampling "
            f"rate of {rate:.3g} come to ε = {comes_to:.4g}, which is more than {epsilon:g}; leave "
            "noise_multiplier out, and the least that keeps to ε is found",
            param="privacy.noise_multiplier",
        )
    return made


def check_rows(privacy: Privacy, prepared: Prepared) -> None:
    """
    Raises:
        InvalidRequest: δ is no small chance, or no rows are held out.
    """
    rows = prepared.train.size
    if privacy.delta * rows >= 1:
        raise InvalidRequest(
            f"delta is the chance that the promise does not hold: below 1 / rows, {1 / rows:.3g} "
            f"of {rows} rows",
            param="privacy.delta",
        )
    if prepared.held_out[1] is None:
        raise InvalidRequest(
            "a private version is judged and verified with rows that it was not trained on; make "
            "the data set with validation or test rows",
            param="dataset",
        )
