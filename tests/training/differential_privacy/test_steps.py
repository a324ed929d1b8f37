"""A private step is the ordinary one, but for the bound and the noise."""

from __future__ import annotations

import pytest
from tests.training.differential_privacy import programs
from tests.training.differential_privacy.test_clipping import NETWORKS


def run(name: str, *arguments: str) -> object:
    return programs.run("steps_programs", name, *arguments)


def test_without_noise_and_bound_it_is_an_ordinary_step() -> None:
    """With weights of rows, a penalty on weights, and Adam."""
    found = run("ordinary")
    assert isinstance(found, dict)
    assert found.keys() == {"pseudorandom", "cryptographic"}
    assert all(far < 1e-5 for far in found.values()), found


def test_how_rows_are_parted_does_not_matter() -> None:
    found = run("microbatches")
    assert isinstance(found, dict)
    assert found["far"] < 1e-5 < 1e-3 < found["moved"], found


def test_noise_is_as_wide_as_it_is_said_to_be() -> None:
    found = run("noise")
    assert isinstance(found, dict)
    for kernel, bias in found.values():
        assert kernel == pytest.approx(1, abs=0.02)
        assert bias == pytest.approx(1, abs=0.2)


def test_a_row_that_is_no_number_is_as_good_as_none() -> None:
    far = run("spoiled")
    assert isinstance(far, float)
    assert far < 1e-6


@pytest.mark.parametrize("network", NETWORKS)
def test_every_weight_moves(network: str) -> None:
    """Of a layer that gradients of single rows forget, weights stay as they were, and nothing else
    tells of it."""
    assert run("moved", network) == []
