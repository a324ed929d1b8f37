"""Attribution to parts of a prompt, on answers whose probabilities are known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler

from openmaas.explaining.ablations import branching, uniform
from openmaas.explaining.context import PENALTY, Score, context_cite, lasso, leave_one_out, logit
from openmaas.explaining.prompts import parts
from openmaas.explaining.scoring import Scoring
from openmaas.inference import Loglikelihood, Message, ModelInfo
from tests.tasks.exact_model import ExactModel

Floats = NDArray[np.float64]


def made(rule: Callable[[Floats], Floats]) -> Score:
    """A model whose answer has the probability that a rule says, of its masks as numbers."""

    async def score(masks: NDArray[np.bool_]) -> Floats:
        return rule(masks.astype(np.float64))

    return score


def linear(weights: Floats) -> Score:
    """The logit is linear in what is kept."""
    return made(lambda kept: -np.logaddexp(0.0, 4.0 - kept @ weights))


def test_leave_one_out_is_what_is_lost() -> None:
    weights = np.array([0.0, 3.0, -1.0])
    found = asyncio.run(leave_one_out(made(lambda kept: kept @ weights - 9.0), 3))
    assert found.attributions == pytest.approx(weights)
    assert (found.whole, found.nothing, found.ablations) == (-7.0, -9.0, 5)


@pytest.mark.parametrize("samples", [32, 64])
def test_a_linear_logit_is_recovered(samples: int) -> None:
    weights = np.array([0.5, -2.0, 3.0, 0.0, 1.0, 0.0, 0.0, -1.0, 0.0, 6.0, 0.0, 0.0])
    found = asyncio.run(context_cite(linear(weights), 12, samples, 7))
    # The penalty takes 0.01 of a standardised weight, twice that of one of zeros and ones, and more
    # where columns are alike.
    assert found.attributions == pytest.approx(weights, abs=0.15)
    assert found.fit is not None
    assert found.fit > 0.99
    assert found.ablations == samples + 2


def test_few_parts_among_many_are_found_with_few_ablations() -> None:
    weights = np.zeros(100)
    weights[[3, 50]] = 8.0, 4.0
    found = asyncio.run(context_cite(linear(weights), 100, 48, 1)).attributions
    assert np.argsort(-found)[:2].tolist() == [3, 50]
    assert found[3] == pytest.approx(8.0, abs=0.5)


def test_a_constant_answer_is_due_to_nothing() -> None:
    for value in (-3.0, 0.0, -1e4):
        found = asyncio.run(
            context_cite(made(lambda kept, v=value: np.full(len(kept), v)), 5, 32, 0)
        )  # type: ignore[misc]
        assert not found.attributions.any()
        assert found.fit is None


def test_one_part_alone() -> None:
    score = made(lambda kept: kept[:, 0] * 5.0 - 6.0)
    assert asyncio.run(leave_one_out(score, 1)).attributions == pytest.approx([5.0])
    found = asyncio.run(context_cite(score, 1, 32, 0)).attributions
    expected = float(np.diff(logit(np.array([-6.0, -1.0])))[0])
    assert found == pytest.approx([expected], abs=0.03)


def test_a_part_that_another_repeats_is_found_by_ablations_alone() -> None:
    score = made(lambda kept: np.where(kept[:, 0] + kept[:, 1] > 0, -0.5, -9.0))
    assert asyncio.run(leave_one_out(score, 8)).attributions == pytest.approx(np.zeros(8))
    found = asyncio.run(context_cite(score, 8, 64, 3)).attributions
    assert set(np.argsort(-found)[:2].tolist()) == {0, 1}


def test_the_length_of_the_answer_scales_the_penalty_alone() -> None:
    weights = np.array([6.0, 0.1, 0.0, -3.0])
    short, long = (
        asyncio.run(context_cite(linear(weights), 4, 16, 0, tokens=count)).attributions
        for count in (1, 20)
    )
    assert short[1] > 0
    assert long[1] == 0
    assert long[0] == pytest.approx(short[0], abs=0.5)


def test_a_seed_repeats() -> None:
    score = linear(np.arange(9.0) - 4)
    one, two, other = (asyncio.run(context_cite(score, 9, 32, seed)) for seed in (5, 5, 6))
    assert np.array_equal(one.attributions, two.attributions)
    assert one.fit == two.fit
    assert not np.array_equal(one.attributions, other.attributions)


def test_the_logit_is_stable() -> None:
    found = logit(np.array([-1e5, -1.0, -1e-12, 0.0]))
    assert found[0] == -1e5
    assert found[1] == pytest.approx(np.log(np.exp(-1) / (1 - np.exp(-1))))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("seed", range(5))
def test_lasso_agrees_with_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    inputs = uniform(30, 64, seed).astype(np.float64)
    inputs[:, 4] = 1.0  # a constant
    target = inputs @ generator.normal(size=30) + generator.normal(size=64)
    for penalty in (PENALTY, 0.2):
        weights, intercept = lasso(inputs, target, penalty)
        scaler = StandardScaler().fit(inputs)
        theirs = Lasso(alpha=penalty, tol=1e-12, max_iter=100_000)
        theirs.fit(scaler.transform(inputs), target)
        assert weights == pytest.approx(theirs.coef_ / scaler.scale_, abs=1e-4)
        predicted = theirs.predict(scaler.transform(inputs))
        assert inputs @ weights + intercept == pytest.approx(predicted, abs=1e-4)


# --- ablations -------------------------------------------------------------------------


@pytest.mark.parametrize(("parts_", "samples"), [(12, 32), (12, 64), (20, 64), (30, 128)])
def test_ablations_are_balanced_and_begin_alike(parts_: int, samples: int) -> None:
    drawn = branching(parts_, samples, 3)
    assert drawn.shape == (samples, parts_)
    assert np.abs(drawn.sum(axis=0) - samples / 2).max() <= max(2, samples // 8)
    assert beginnings(drawn) < 0.75 * beginnings(uniform(parts_, samples, 3))
    if parts_ <= 12:
        signs = np.where(drawn, 1.0, -1.0)
        assert np.linalg.matrix_rank(np.column_stack((signs, np.ones(samples)))) == parts_ + 1


def test_all_subsets_where_they_are_few() -> None:
    drawn = branching(4, 16, 0)
    assert len({tuple(row) for row in drawn.tolist()}) == 16


def beginnings(masks: NDArray[np.bool_]) -> int:
    """Parts to read where each beginning is read once."""
    depths = range(1, masks.shape[1] + 1)
    return sum(len({tuple(row) for row in masks[:, :depth].tolist()}) for depth in depths)


# --- asking a model --------------------------------------------------------------------

TALK = [Message(role="user", content="A cat sat. A dog ran. It rained. Who sat?")]


def scoring(progress: Callable[[int, int], None] | None = None) -> tuple[Scoring, ExactModel]:
    model = ExactModel(
        ModelInfo(task="chat", runtime="exact"),
        likelihood=lambda text, answer: -1.0 if answer in text else -8.0 - len(text) / 100,
    )
    return Scoring(model, TALK, parts(TALK, "sentence"), "cat", progress), model


def test_the_sentence_that_says_it_has_the_share() -> None:
    score, model = scoring()
    found = asyncio.run(context_cite(score, 3, 8, 0))
    assert int(found.attributions.argmax()) == 0
    assert found.whole == -1.0
    assert score.passes == len(model.asked) == 8  # subsets of three parts, each asked once
    asyncio.run(leave_one_out(score, 3))
    assert score.passes == 8


def test_prompts_are_asked_in_order_with_one_salt_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    score, model = scoring(lambda done, of: told.append((done, of)))
    masks = np.array([[0, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    values = asyncio.run(score(masks))
    assert values[1] == values[3] == -1.0
    assert values[0] < -8.0
    assert told == [(1, 3), (2, 3), (3, 3)]
    requests = [one for one in model.asked if isinstance(one, Loglikelihood)]
    assert [one.messages[0].content for one in requests] == [
        "A cat sat. A dog ran. It rained. Who sat?",
        "A cat sat. It rained. Who sat?",
        "It rained. Who sat?",
    ]
    (salt,) = {one.cache_salt for one in requests}
    assert len(salt) == 32
    assert scoring()[0]._salt != salt
