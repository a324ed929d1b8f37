"""What is said of whole models: against scikit-learn, by hand, and where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.inspection import permutation_importance as of_sklearn
from sklearn.linear_model import LinearRegression, LogisticRegression

from openmaas.errors import EngineFailed
from openmaas.explaining.behaviour.answered import are_probabilities, probabilities
from openmaas.explaining.behaviour.calibration import calibration
from openmaas.explaining.behaviour.confusion import confusion
from openmaas.explaining.behaviour.importance import (
    Place,
    accuracy_error,
    permutation_importance,
    rmse,
)
from openmaas.explaining.behaviour.neighbours import nearest, row_cosines
from openmaas.explaining.behaviour.whole import (
    Numbers,
    Rows,
    Subject,
    Training,
    passes,
    shortened,
    whole,
)

Array = NDArray[Any]


def linear(rows: int = 400) -> tuple[Array, Array]:
    """Columns that weigh 4, 2, 1 and nothing."""
    drawn = np.random.default_rng(7)
    x = drawn.normal(size=(rows, 4))
    return x, x @ np.array([4.0, 2.0, 1.0, 0.0]) + drawn.normal(scale=0.1, size=rows)


PLACES = [Place(name, 0, at) for at, name in enumerate(["a", "b", "c", "nothing"])]


# --- importance ------------------------------------------------------------------------------


async def test_importance_agrees_with_scikit_learn() -> None:
    x, y = linear()
    model = LinearRegression().fit(x, y)

    async def predict(inputs: Sequence[Array]) -> Array:
        return np.asarray(model.predict(inputs[0]))[:, None]

    error = rmse(y[:, None])
    base = error(await predict([x]))
    ours = await permutation_importance(predict, [x], PLACES, error, base, repeats=20, seed=0)
    theirs = of_sklearn(
        model, x, y, n_repeats=20, random_state=0, scoring="neg_root_mean_squared_error"
    )
    assert [one.column for one in ours] == [PLACES[at].name for at in np.argsort(-theirs[
        "importances_mean"])]  # fmt: skip
    for one in ours:
        at = [place.name for place in PLACES].index(one.column)
        noise = (theirs["importances_std"][at] + one.deviation) / np.sqrt(20)
        assert abs(one.mean - theirs["importances_mean"][at]) <= 4 * noise + 1e-9
        assert one.mean == pytest.approx(np.mean(one.repeats))
        assert len(one.repeats) == 20


async def test_importance_of_labels_is_the_accuracy_that_is_lost() -> None:
    x, y = linear()
    truth = (y > 0).astype(np.int64)
    model = LogisticRegression().fit(x[:, :3], truth)

    async def predict(inputs: Sequence[Array]) -> Array:
        return np.asarray(model.predict_proba(inputs[0][:, :3]))

    error = accuracy_error(truth)
    base = error(await predict([x]))
    found = await permutation_importance(predict, [x], PLACES, error, base, repeats=5, seed=1)
    assert [one.column for one in found] == ["a", "b", "c", "nothing"]
    assert found[-1].mean == found[-1].deviation == 0  # exactly: the model never reads it
    again = await permutation_importance(predict, [x], PLACES, error, base, repeats=5, seed=1)
    assert again == found


async def test_what_is_not_dealt_out_stays_the_very_same_array() -> None:
    """So that it need not be written anew for each call."""
    numbers, words = np.arange(6.0), np.array(list("abcdef"), object)
    seen: list[Sequence[Array]] = []

    async def predict(inputs: Sequence[Array]) -> Array:
        seen.append(inputs)
        return np.zeros((6, 1))

    places = [Place("numbers", 0), Place("words", 1)]
    await permutation_importance(
        predict, [numbers, words], places, rmse(np.zeros((6, 1))), 0.0, repeats=2, seed=0
    )
    assert all(one[1] is words for one in seen[:2])
    assert all(one[0] is numbers for one in seen[2:])
    assert all(sorted(one[1]) == sorted(words) for one in seen[2:])


# --- calibration -----------------------------------------------------------------------------


def test_the_calibration_error_by_hand() -> None:
    """Bins (0.5, 0.6], (0.6, 0.7] and (0.9, 1]: 1 of 2, 0 of 1 and 1 of 1 right."""
    told = np.array([[0.6, 0.4], [0.55, 0.45], [0.3, 0.7], [1.0, 0.0]])
    found = calibration(told, np.array([0, 1, 0, 0]))
    full = [(one.low, one.count, one.confidence, one.accuracy) for one in found.bins if one.count]
    assert [count for _, count, _, _ in full] == [2, 1, 1]
    assert [low for low, *_ in full] == pytest.approx([0.5, 0.6, 0.9])
    assert [sure for _, _, sure, _ in full] == pytest.approx([0.575, 0.7, 1.0])
    assert [right for *_, right in full] == [0.5, 0.0, 1.0]
    assert found.expected_calibration_error == pytest.approx((2 * 0.075 + 0.7 + 0) / 4)
    assert found.maximum_calibration_error == pytest.approx(0.7)
    brier = (2 * 0.4**2 + 2 * 0.55**2 + 2 * 0.7**2 + 0) / 4
    assert found.brier_score == pytest.approx(brier)
    assert found.accuracy == 0.5
    assert len(found.bins) == 10


def test_a_model_that_is_right_as_often_as_it_is_sure() -> None:
    """100 rows in each of five bins, of which as many are right as the confidence says."""
    told, truth = [], []
    for sure in (0.55, 0.65, 0.75, 0.85, 0.95):
        told += [[1 - sure, sure]] * 100
        truth += [1] * round(100 * sure) + [0] * (100 - round(100 * sure))
    found = calibration(np.array(told), np.array(truth), 15)
    assert found.expected_calibration_error == pytest.approx(0, abs=1e-12)
    assert found.maximum_calibration_error == pytest.approx(0, abs=1e-12)
    assert len(found.bins) == 15
    assert sum(one.count for one in found.bins) == 500


def test_what_a_model_answers_as_probabilities() -> None:
    shares = np.array([[0.25, 0.75], [1.0, 0.0]])
    assert are_probabilities(shares)
    assert not are_probabilities(np.array([[2.0, -1.0]]))
    assert probabilities(shares, plain=True) == pytest.approx(shares)
    logits = probabilities(np.array([[0.0, np.log(3)]]), plain=False)
    assert logits == pytest.approx(np.array([[0.25, 0.75]]))
    assert probabilities(np.array([[0.9]]), plain=True) == pytest.approx(np.array([[0.1, 0.9]]))


# --- confusion -------------------------------------------------------------------------------


def test_confusion_and_the_surest_mistakes() -> None:
    told = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.2, 0.8, 0.0], [0.0, 0.3, 0.7]])
    found = confusion(told, np.array([0, 0, 2, 2]), ["x", "y", "z"], [5, 6, 7, 8], list("abcd"))
    assert found.matrix == [[1, 1, 0], [0, 0, 0], [0, 1, 1]]
    assert found.accuracy == 0.5
    assert [
        (one.row, one.shown, one.true, one.predicted, one.confidence) for one in found.mistakes
    ] == [(7, "c", "z", "y", 0.8), (6, "b", "x", "y", 0.6)]
    assert [one.recall for one in found.by_label] == [0.5, None, 0.5]
    assert [one.precision for one in found.by_label] == [1.0, 0.0, 1.0]
    assert found.macro_f1 == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)


def test_many_labels_and_many_mistakes_are_bounded() -> None:
    told = np.eye(101)
    names, rows = [str(at) for at in range(101)], list(range(101))
    found = confusion(told, np.roll(np.arange(101), 1), names, rows, names)
    assert found.matrix is None
    assert found.by_label == []
    assert len(found.mistakes) == 20
    assert found.mistaken == 101


# --- neighbours ------------------------------------------------------------------------------


def test_the_nearest_vectors() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, 0.0]])
    order, cosines = nearest(np.array([[0.0, 5.0]]), vectors, 3)
    assert order.tolist() == [[1, 2, 0]]
    assert cosines == pytest.approx(np.array([[1.0, np.sqrt(0.5), 0.0]]))


def test_rows_are_compared_by_standardised_columns() -> None:
    grams = np.array([1000.0, 2000.0, 3000.0, 4000.0])
    metres = np.array([0.1, 0.4, 0.2, np.nan])
    colour = np.array(["red", "blue", "red", "red"], object)
    rows: list[Array] = [grams, metres, colour]
    cosines = row_cosines(rows, rows)
    assert np.diag(cosines) == pytest.approx(np.ones(4))
    assert cosines == pytest.approx(cosines.T)
    # scale and offset of a column do not matter
    other: list[Array] = [grams / 1000 + 5, metres, colour]
    assert row_cosines(other, other) == pytest.approx(cosines)
    # one that never varies tells nothing apart
    more: list[Array] = [*rows, np.full(4, 9.0)]
    assert row_cosines(more, more) == pytest.approx(cosines)
    without = row_cosines(rows[:2], rows[:2])
    assert (cosines[0, 2] > without[0, 2]) == bool(without[0, 2] < 1)


# --- all of it -------------------------------------------------------------------------------


def subject(labels: list[str] | None, outputs: Array, truth: Array) -> tuple[Subject, list[int]]:
    asked: list[int] = []
    count = len(truth)
    x = np.arange(float(count))

    async def predict(inputs: Sequence[Array]) -> Array:
        asked.append(len(inputs[0]))
        return outputs[np.asarray(inputs[0], int)]

    names = [f"row {at}" for at in range(count)]
    rows = Rows([x], list(range(count)), names, ["?"] * count)
    return Subject(predict, rows, labels, truth, [Place("x", 0)]), asked


async def test_the_whole_of_a_classifier() -> None:
    outputs = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    of, asked = subject(["no", "yes"], outputs, np.array([0, 1, 1, 1]))
    known = Rows([np.array([0.0, 1.0, 5.0])], [10, 11, 12], list("abc"), ["no", "yes", "yes"])

    async def similarity(queries: Sequence[Array], rows: Sequence[Array]) -> Array:
        return -np.abs(queries[0][:, None] - rows[0][None, :])

    training = Training(known, 30, "distance", similarity, None, 2)
    parts = ("importance", "calibration", "confusion", "neighbours")
    found = await whole(of, training, parts, Numbers(3, 0, 10))
    assert found.metrics == {"accuracy": 0.75}
    assert sum(asked) == passes(parts, 4, 1, 3, given=False) == 4 + 3 * 4
    assert found.importance is not None
    assert found.importance.baseline == 0.75
    assert found.calibration is not None
    assert found.confusion is not None
    assert found.neighbours is not None
    (close,) = found.neighbours.found  # of the one mistake
    assert (close.row, close.true, close.predicted) == (1, "?", "no")
    assert [(one.row, one.label) for one in close.examples] == [(11, "yes"), (10, "no")]
    assert close.agreement == 0.5


async def test_the_whole_of_a_regression() -> None:
    truth = np.array([[1.0], [2.0], [3.0]])
    of, asked = subject(None, truth + 0.5, truth)
    found = await whole(of, None, ("importance",), Numbers(2, 0, 10))
    assert found.metrics["rmse"] == pytest.approx(0.5)
    assert found.metrics["r2"] == pytest.approx(1 - 0.75 / 2)
    assert found.importance is not None
    assert found.importance.metric == "rmse"
    assert asked == [3, 3, 3]


async def test_neighbours_of_a_given_input_ask_the_model_once() -> None:
    of, asked = subject(["no", "yes"], np.array([[3.0, -1.0]] * 4), np.array([0, 1, 1, 1]))
    known = Rows([np.array([0.0])], [10], ["a"], ["no"])

    async def similarity(queries: Sequence[Array], rows: Sequence[Array]) -> Array:
        return np.ones((1, 1))

    given = Rows([np.array([2.0])], [], ["mine"], [])
    training = Training(known, 1, "distance", similarity, given, 5)
    found = await whole(of, training, ("neighbours",), Numbers(3, 0, 10))
    assert asked == [1]
    assert found.metrics == {}
    assert found.neighbours is not None
    (close,) = found.neighbours.found
    assert (close.row, close.true, close.agreement) == (None, None, 1.0)
    assert close.confidence == pytest.approx(1 / (1 + np.exp(-4)))
    assert "softmax" in found.notes[0]


@pytest.mark.parametrize("outputs", [np.ones((2, 3)), np.array([[np.nan, 1.0]] * 2)])
async def test_answers_that_make_no_sense_are_refused(outputs: Array) -> None:
    of, _ = subject(["no", "yes"], outputs, np.array([0, 1]))
    with pytest.raises(EngineFailed):
        await whole(of, None, ("confusion",), Numbers(1, 0, 10))


def test_what_is_shown_of_a_text_is_short() -> None:
    assert shortened("a\n b") == "a b"
    assert len(shortened("word " * 1000)) == 200
