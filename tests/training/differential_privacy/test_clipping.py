"""No row's gradient is longer than the bound, and the sum is that of a loop over the rows."""

from __future__ import annotations

import pytest
from tests.training.differential_privacy import programs

SOON = ["dense", "lstm"]
LATER = [
    "image", "image, same, strides", "image, same, dilated", "series", "lstm, dropout within",
    "gru", "gru, reset before", "attention", "shared",
]  # fmt: skip
NETWORKS = [*SOON, *(pytest.param(one, marks=pytest.mark.slow) for one in LATER)]


@pytest.mark.parametrize("network", NETWORKS)
def test_clipped_sums_are_those_of_a_loop_over_the_rows(network: str) -> None:
    found = programs.run("clipping_properties", network)
    # Attention's keys have a bias that a softmax takes away: its gradient is zero up to rounding.
    assert found == {"untouched": [], "plain_again": True}
