"""What steps cost is what dp-accounting says they cost."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from openmaas.errors import InvalidRequest
from openmaas.training.differential_privacy import accountant, accounting
from openmaas.training.differential_privacy.accounting import Mechanism
from openmaas.training.differential_privacy.guarantee import Spent


def theirs(kind: type, rate: float, noise: float, steps: int, delta: float) -> float:
    """Composed step by step, as an event of one's own would be."""
    counted = kind()
    gaussian = dp_accounting.GaussianDpEvent(noise)
    counted.compose(dp_accounting.PoissonSampledDpEvent(rate, gaussian), steps)
    return float(counted.get_epsilon(delta))


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta"),
    [(0.01, 1.1, 1000, 1e-5), (0.2, 2.0, 50, 1e-6), (1.0, 8.0, 20, 1e-5), (0.05, 0.7, 1, 1e-4)],
)
def test_epsilon_is_theirs(rate: float, noise: float, steps: int, delta: float) -> None:
    found = accounting.epsilon(Mechanism(rate, noise), steps, delta)
    assert found == pytest.approx(theirs(PLDAccountant, rate, noise, steps, delta), rel=1e-9)
    # Another way of counting comes to no less, and not to much more.
    bound = theirs(RdpAccountant, rate, noise, steps, delta)
    assert 0.4 * bound < found <= bound * 1.001


def test_one_gaussian_is_as_balle_and_wang_say() -> None:
    """Of a single step on all rows there is a formula (2018, https://arxiv.org/abs/1805.06530)."""

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    def delta_of(epsilon: float, noise: float) -> float:
        half, rest = 1 / (2 * noise), epsilon * noise
        return normal(half - rest) - math.exp(epsilon) * normal(-half - rest)

    found = accounting.epsilon(Mechanism(1.0, 2.0), 1, 1e-5)
    assert delta_of(found, 2.0) <= 1e-5
    assert delta_of(found - 1e-3, 2.0) > 1e-5


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
def test_the_least_noise_that_keeps_to_epsilon(epsilon: float) -> None:
    rate, steps, delta = 0.08, 78, 1e-5
    found = accounting.noise_multiplier(epsilon, delta, rate, steps)
    assert theirs(PLDAccountant, rate, found, steps, delta) <= epsilon
    assert theirs(PLDAccountant, rate, found - 1e-3, steps, delta) > epsilon


def test_no_step_costs_nothing() -> None:
    assert accounting.epsilon(Mechanism(0.5, 1.0), 0, 1e-5) == 0


def test_what_no_noise_can_hide_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no noise keeps 100000 steps"):
        accounting.noise_multiplier(1e-4, 1e-12, 1.0, 100_000)


def test_a_process_of_its_own_counts_the_same() -> None:
    spent = Spent(rate=0.1, noise_multiplier=1.5, delta=1e-5, steps=40)
    found = accountant.epsilon(spent)
    assert found == accounting.epsilon(Mechanism(0.1, 1.5), 40, 1e-5)
