"""What private steps cost, by dp-accounting's privacy loss distributions.

A step takes each row with probability ``rate``, sums the rows' clipped gradients and adds noise: a
Gaussian mechanism on a Poisson sample (Abadi et al. 2016, https://arxiv.org/abs/1607.00133;
accounted for as Koskela et al. 2020, https://arxiv.org/abs/1906.03049, and Doroshenko et al. 2022,
https://arxiv.org/abs/2207.04380). Neighbouring data sets differ in one row that is there or not.
"""

from __future__ import annotations

import math
from typing import Any

import dp_accounting
from dp_accounting.mechanism_calibration import ExplicitBracketInterval
from dp_accounting.pld import PLDAccountant
from msgspec import Struct

from openmaas.errors import InvalidRequest

LEAST_NOISE = 0.4  # of a multiplier; to account for less takes long, and it hides little
MOST_NOISE = 10_000.0  # of a multiplier; beyond it nothing is learnt
FACTOR = 1.4  # between two amounts of noise that are tried
DIGITS = 1e4  # a multiplier is rounded up to four decimals


class Mechanism(Struct, frozen=True):
    """One step."""

    rate: float  # probability of each row to be taken
    noise_multiplier: float  # the noise's standard deviation ÷ the clipping norm


def epsilon(mechanism: Mechanism, steps: int, delta: float) -> float:
    """An upper bound of ε of so many steps; infinite where there is none."""
    if steps == 0:
        return 0.0
    counted = PLDAccountant()
    counted.compose(_event(mechanism, steps))
    return float(counted.get_epsilon(delta))


def noise_multiplier(epsilon_: float, delta: float, rate: float, steps: int) -> float:
    """The least noise from ``LEAST_NOISE`` on with which so many steps keep to (ε, δ).

    Raises:
        InvalidRequest: none does.
    """

    def made(noise: float) -> Any:
        return _event(Mechanism(rate, noise), steps)

    def holds(noise: float) -> bool:
        return epsilon(Mechanism(rate, noise), steps, delta) <= epsilon_

    most = max(0.5, rate * math.sqrt(steps * math.log(1 / delta)) / epsilon_)
    while most <= MOST_NOISE and not holds(most):
        most *= FACTOR
    found = math.inf
    if most <= MOST_NOISE:
        while most > LEAST_NOISE and holds(most / FACTOR):
            most = max(LEAST_NOISE, most / FACTOR)
        if most == LEAST_NOISE:
            return most
        between = ExplicitBracketInterval(most / FACTOR, most)
        found = dp_accounting.calibrate_dp_mechanism(
            PLDAccountant, made, epsilon_, delta, between, tol=1 / DIGITS
        )
    rounded = math.ceil(found * DIGITS) / DIGITS if found <= MOST_NOISE else math.inf
    if rounded > MOST_NOISE:
        raise InvalidRequest(
            f"no noise keeps {steps} steps at a sampling rate of {rate:.3g} to ε = {epsilon_:g} "
            f"and δ = {delta:g}: take fewer epochs, smaller batches or more rows",
            param="privacy.epsilon",
        )
    return rounded


def _event(mechanism: Mechanism, steps: int) -> Any:
    gaussian = dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(mechanism.rate, gaussian)
    return dp_accounting.SelfComposedDpEvent(sampled, steps)
