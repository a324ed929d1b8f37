"""The truth of black-box methods: on models whose shares are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmaas.errors import InvalidRequest
from openmaas.explaining import kernel_shap, occlusion, shapley
from openmaas.explaining.game import Game, Masks, Shares, Values, all_masks
from tests.explaining.games import by_definition, curved, game

PARTS = 8
SAMPLED = [(shapley.sample, 12), (kernel_shap.sample, 96)]
numbers = st.floats(-3, 3, allow_nan=False, width=32)
seeds = st.integers(0, 1000)


async def every(function, parts: int = PARTS, seed: int = 0) -> list[Shares]:
    """Of all methods that promise Shapley values."""
    sampled = [await method(game(function, parts), count, seed) for method, count in SAMPLED]
    return [await shapley.enumerate_all(game(function, parts)), *sampled]


async def test_a_linear_model_gets_its_weights() -> None:
    weights = np.arange(PARTS) - 3.5
    for shares in [
        *await every(lambda there: there @ weights + 2),
        await occlusion.occlusion(game(lambda there: there @ weights + 2, PARTS)),
    ]:
        np.testing.assert_allclose(shares.values[:, 0], weights, atol=1e-9)
        assert shares.baseline == pytest.approx([2])
        assert shares.error is not None
        assert shares.error.max() < 1e-9


async def test_all_coalitions_give_the_values_of_the_definition() -> None:
    function = curved(6, 1)
    shares = await shapley.enumerate_all(game(function, 6))
    np.testing.assert_allclose(shares.values, by_definition(function, 6), atol=1e-12)
    asked = await shapley.shapley(game(function, 6), 64, seed=0)
    np.testing.assert_array_equal(asked.values, shares.values)


@pytest.mark.parametrize(("method", "count"), SAMPLED)
async def test_intervals_cover_the_exact_values(method, count: int) -> None:
    """Of 60 models of ten parts and two outputs: about nineteen in twenty."""
    inside, wide = [], []
    for seed in range(60):
        function = curved(10, seed)
        exact = (await shapley.enumerate_all(game(function, 10))).values
        shares = await method(game(function, 10), 2 * count, seed)
        inside.append((shares.low <= exact) & (exact <= shares.high))
        wide.append((shares.high - shares.low).mean() / np.abs(exact).mean())
        assert shares.error.max() < 1e-9  # what is shared out is the difference, sampled or not
    assert np.mean(inside) > 0.9
    assert np.mean(wide) < 1  # an interval that says nothing covers everything


@pytest.mark.parametrize(("method", "count"), SAMPLED)
async def test_more_samples_come_closer(method, count: int) -> None:
    function = curved(9, 3)
    exact = (await shapley.enumerate_all(game(function, 9))).values
    away = []
    for factor in (1, 16):
        tries = [await method(game(function, 9), factor * count, seed) for seed in range(5)]
        away.append(np.mean([np.abs(one.values - exact).mean() for one in tries]))
    assert away[1] < away[0] / 2


@settings(max_examples=25, deadline=None)
@given(st.lists(numbers, min_size=3, max_size=6), seeds)
async def test_dummy_a_part_that_changes_nothing_gets_nothing(weights: list, seed: int) -> None:
    def function(there):
        return np.tanh(there[:, :-1] @ weights)

    exact, sampled, surrogate = await every(function, len(weights) + 1, seed)
    for shares in (exact, sampled):
        np.testing.assert_allclose(shares.values[-1], 0, atol=1e-12)
    assert surrogate.low is not None
    assert surrogate.low[-1, 0] - 0.05 <= 0 <= surrogate.high[-1, 0] + 0.05


@settings(max_examples=25, deadline=None)
@given(numbers, numbers, st.lists(numbers, min_size=2, max_size=4), seeds)
async def test_symmetry_parts_that_do_the_same_get_the_same(
    own: float, together: float, others: list, seed: int
) -> None:
    def function(there):
        twins = own * (there[:, 0] + there[:, 1]) + together * there[:, 0] * there[:, 1]
        return np.tanh(twins + there[:, 2:] @ others)

    exact, sampled, _ = await every(function, 2 + len(others), seed)
    np.testing.assert_allclose(exact.values[0], exact.values[1], atol=1e-9)
    half = (sampled.high - sampled.low)[:2].sum()
    assert abs(sampled.values[0] - sampled.values[1]) <= half + 1e-9


@settings(max_examples=25, deadline=None)
@given(seeds, seeds, numbers, seeds)
async def test_additivity_shares_of_a_sum_are_sums_of_shares(
    one: int, other: int, factor: float, seed: int
) -> None:
    """Of sampled ones too, as the same seed draws the same coalitions."""

    def both(there):
        return curved(5, one)(there) + factor * curved(5, other)(there)

    first, second, summed = [
        await every(function, 5, seed) for function in (curved(5, one), curved(5, other), both)
    ]
    for a, b, c in zip(first, second, summed, strict=True):
        np.testing.assert_allclose(c.values, a.values + factor * b.values, atol=1e-7)


async def test_a_constant_model_gets_zeros() -> None:
    for shares in [
        *await every(lambda there: np.full(len(there), 7.0)),
        await occlusion.occlusion(game(lambda there: np.full(len(there), 7.0), PARTS)),
    ]:
        np.testing.assert_allclose(shares.values, 0, atol=1e-12)


async def test_a_single_part_has_it_all() -> None:
    for method in (shapley.shapley, kernel_shap.kernel_shap):
        shares = await method(game(lambda there: 3 * there[:, 0] + 1, 1), 2, seed=0)
        assert shares.values.tolist() == [[3.0]]


async def test_the_same_seed_gives_the_same_and_another_another() -> None:
    for method, count in SAMPLED:
        function = curved(9, 0)
        first, again, other = [
            (await method(game(function, 9), count, seed)).values for seed in (1, 1, 2)
        ]
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("method", [shapley, kernel_shap])
@pytest.mark.parametrize("parts", [1, 2, 5, 12, 13, 40])
@pytest.mark.parametrize("budget", [2, 300, 5000])
async def test_what_it_costs_is_said_before(method, parts: int, budget: int) -> None:
    run = shapley.shapley if method is shapley else kernel_shap.kernel_shap
    asked = game(lambda there: there.sum(1) ** 2, parts)
    least = 2 + (6 * max(1, parts - 1) if method is shapley else 4 * parts)
    if budget < least and not shapley.exact(parts, budget):
        with pytest.raises(InvalidRequest, match="coarser unit"):
            method.passes(parts, budget)
        with pytest.raises(InvalidRequest, match="coarser unit"):
            await run(asked, budget, seed=0)
        return
    most = method.passes(parts, budget)
    assert most <= budget
    await run(asked, budget, seed=0)
    assert 2 <= asked.passes <= most


async def test_no_coalition_is_asked_about_twice_and_few_at_a_time() -> None:
    seen: list[bytes] = []
    told: list[tuple[int, int]] = []

    async def play(masks: Masks) -> Values:
        assert len(masks) <= 16
        seen.extend(row.tobytes() for row in masks)
        return masks.sum(1, keepdims=True).astype(np.float64)

    asked = Game(6, play, chunk=16, most=64, progress=lambda *now: told.append(now))
    await asked.values(all_masks(6))
    again = await asked.values(np.repeat(all_masks(6), 2, axis=0))
    assert len(seen) == len(set(seen)) == asked.passes == 64
    assert again[:, 0].tolist() == [bin(at // 2).count("1") for at in range(128)]
    assert told == [(16, 64), (32, 64), (48, 64), (64, 64)]


async def test_few_at_a_time_where_others_call_the_model() -> None:
    sizes: list[int] = []

    async def play(masks: Masks) -> Values:
        sizes.append(len(masks))
        return masks.sum(1, keepdims=True).astype(np.float64)

    others = iter([True, True, False, True, False, False])
    asked = Game(5, play, chunk=10, small=3, busy=lambda: next(others))
    await asked.values(all_masks(5))
    assert sizes == [3, 3, 10, 3, 10, 3]
    assert sum(sizes) == asked.passes == 32
