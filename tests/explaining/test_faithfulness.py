"""What ``make eval-explain`` computes, on made-up models whose figures are known."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from quality import faithfulness, randomised
from quality.faithfulness import Areas

PARTS = 4
PAGE = Path(__file__).parents[2] / "docs" / "explain-quality.md"


def only(part: int):
    """A model that is sure as long as one part is there."""
    return lambda masks: masks[:, part].astype(float)


def test_coalitions_on_the_way_of_an_order() -> None:
    order = np.array([2, 0, 1])
    assert faithfulness.insertions(order).astype(int).tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [1, 0, 1],
        [1, 1, 1],
    ]
    assert faithfulness.deletions(order).astype(int).tolist() == [
        [1, 1, 1],
        [1, 1, 0],
        [0, 1, 0],
        [0, 0, 0],
    ]


def test_the_greatest_attribution_goes_first_and_equals_as_they_come() -> None:
    assert faithfulness.order_of([0.0, -3.0, 2.0, 0.0]).tolist() == [2, 0, 3, 1]


def test_areas_of_a_model_of_one_part() -> None:
    """Removed first, the probability falls from 1 to 0 on the first quarter: ⅛ is under that."""
    best, worst = faithfulness.areas(
        only(2), [faithfulness.order_of(np.eye(PARTS)[2]), np.array([0, 1, 3, 2])]
    )
    assert best == pytest.approx(Areas(deletion=1 / 8, insertion=7 / 8, whole=1))
    assert worst == pytest.approx(Areas(deletion=7 / 8, insertion=1 / 8, whole=1))
    assert best.drop == pytest.approx(7 / 8)


def test_of_an_even_model_no_order_is_better_than_chance() -> None:
    orders = faithfulness.random_orders(PARTS, 5, seed=1)
    found = faithfulness.areas(lambda masks: masks.mean(1), orders)
    assert all(one == pytest.approx(Areas(0.5, 0.5, 1)) for one in found)
    for ratio in (
        faithfulness.drop_ratio,
        faithfulness.deletion_ratio,
        faithfulness.insertion_ratio,
    ):
        assert ratio(found, found) == pytest.approx((1, 1, 1))


def test_random_orders_are_the_seed_s_and_their_mean_is_known() -> None:
    """One part of n decides: it is anywhere with equal chance, so half the area is left."""
    orders = faithfulness.random_orders(PARTS, 2000, seed=3)
    again = faithfulness.random_orders(PARTS, 2000, seed=3)
    assert all((a == b).all() for a, b in zip(orders, again, strict=True))
    mean = faithfulness.mean_of(faithfulness.areas(only(1), orders))
    assert mean == pytest.approx(Areas(0.5, 0.5, 1), abs=0.02)


def test_ratios_are_larger_the_better_and_have_a_ceiling() -> None:
    chance = [Areas(0.5, 0.5, 1.0), Areas(0.7, 0.7, 0.9)]
    own = [Areas(0.1, 0.9, 1.0), Areas(0.3, 0.8, 0.9)]
    assert faithfulness.drop_ratio(own, chance).value == pytest.approx((0.9 + 0.6) / (0.5 + 0.2))
    assert faithfulness.most_drop(chance) == pytest.approx((1.0 + 0.9) / (0.5 + 0.2))
    assert faithfulness.deletion_ratio(own, chance).value == pytest.approx(1.2 / 0.4)
    found = faithfulness.insertion_ratio(own, chance)
    assert found.value == pytest.approx((0.5 + 0.3) / (0.1 + 0.2))
    assert found.low <= found.value <= found.high


def test_no_coalition_is_asked_about_twice() -> None:
    asked = []

    def play(masks):
        asked.extend(row.tobytes() for row in masks)
        return masks.mean(1)

    faithfulness.areas(play, [np.arange(PARTS), np.arange(PARTS)[::-1]])
    assert len(asked) == len(set(asked)) == 2 * PARTS


def test_rank_correlation() -> None:
    assert faithfulness.spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert faithfulness.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # with ties, by hand: ranks 1.5 1.5 3 and 1 2 3
    assert faithfulness.spearman([0, 0, 5], [1, 2, 3]) == pytest.approx(1.5 / np.sqrt(3))
    assert faithfulness.spearman([0, 0, 0], [1, 2, 3]) == 0


@pytest.mark.parametrize(("which", "drawn"), [("all", [0, 1, 2]), ("last", [2])])
def test_weights_are_drawn_anew_with_their_mean_and_deviation(
    tmp_path: Path, which, drawn: list[int]
) -> None:
    chance = np.random.default_rng(0)
    arrays = [
        chance.normal(1, 2, (64, 64)).astype(np.float32),
        chance.uniform(1, 2, (64,)).astype(np.float32),  # as variances are: positive
        chance.normal(0, 0.1, (64, 200)).astype(np.float32),
    ]
    given = ops.parameter([-1, 64], np.float32)
    x = ops.divide(ops.matmul(given, ops.constant(arrays[0]), False, False), np.float32(3))
    x = ops.multiply(x, ops.sqrt(ops.constant(arrays[1])))
    x = ops.matmul(x, ops.constant(arrays[2]), False, False)
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    ov.save_model(ov.Model([x], [given]), folder / randomised.MODEL, compress_to_fp16=False)

    assert randomised.copy(folder, tmp_path / "random", which, seed=1) == len(drawn)
    assert (tmp_path / "random" / "manifest.json").read_text() == "{}"
    read = ov.Core().read_model(tmp_path / "random" / randomised.MODEL)
    found = [op.data for op in read.get_ordered_ops() if op.get_type_name() == "Constant"]
    assert [one.item() for one in found if one.size == 1] == [3]  # a scale is no weight
    for at, (old, new) in enumerate(
        zip(arrays, (one for one in found if one.size > 1), strict=True)
    ):
        if at in drawn:
            assert abs(faithfulness.spearman(old.ravel(), new.ravel())) < 0.3
            assert new.mean() == pytest.approx(old.mean(), abs=float(old.std()) / 2)
            assert new.std() == pytest.approx(old.std(), rel=0.3)
            assert at != 1 or (new > 0).all()
        else:
            np.testing.assert_array_equal(old, new)


def test_the_page_has_every_evaluation() -> None:
    text = PAGE.read_text()
    assert "make eval-explain" in text
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    for one in ("News articles, by word", "Tweets, by word", "Digits, by pixel"):
        assert titles.index(f"{one}: random weights") == titles.index(one) + 1
    assert "Answers of language models" in titles
