"""What private steps are drawn from: how often rows are taken, how far noise spreads."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.typing import NDArray

from openmaas.training.differential_privacy import noise
from openmaas.training.differential_privacy.noise import Cryptographic, Pseudorandom, Source
from openmaas.training.spec import Privacy

KEY = bytes(range(32))
SOURCES = [Pseudorandom(7), Cryptographic(KEY)]
COUNT = 400_000


def drawn(source: Source, step: int, count: int) -> NDArray[np.float32]:
    if source.key is not None:
        (found,) = noise.of_key(source.key, np.int32(step), [(count,)])
        return np.asarray(found)
    words = source.words(step, count)
    assert words is not None
    (found,) = noise.of_words(jax.numpy.asarray(words), [(count,)])
    return np.asarray(found)


@pytest.mark.parametrize("source", SOURCES)
def test_noise_is_normal(source: Source) -> None:
    """Mean, deviation, and what lies beyond one, two and three of these; five standard errors."""
    found = np.concatenate([drawn(source, step, COUNT) for step in range(3)]).astype(float)
    error = 1 / np.sqrt(len(found))
    assert abs(found.mean()) < 5 * error
    assert abs(found.std() - 1) < 5 * error
    assert abs((found**4).mean() - 3) < 5 * error * np.sqrt(96)
    for bound, share in ((1, 0.317311), (2, 0.045500), (3, 0.0026998)):
        spread = np.sqrt(share * (1 - share)) * error
        assert abs((np.abs(found) > bound).mean() - share) < 5 * spread
    half = len(found) // 2
    assert abs(np.corrcoef(found[:half], found[half : 2 * half])[0, 1]) < 5 * error * 2


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("rate", [0.003, 0.1, 0.7])
def test_rows_are_taken_each_by_itself(source: Source, rate: float) -> None:
    """As many as a binomial says, in mean and in variance, and every row as often as others."""
    rows, steps = 2000, 400
    taken = np.zeros(rows)
    sizes = []
    for step in range(steps):
        places = source.sample(step, rows, rate)
        assert (np.diff(places) > 0).all()
        taken[places] += 1
        sizes.append(len(places))
    spread = np.sqrt(rate * (1 - rate) / (rows * steps))
    assert abs(np.mean(sizes) / rows - rate) < 5 * spread
    binomial = rows * rate * (1 - rate)
    assert abs(np.var(sizes) / binomial - 1) < 5 * np.sqrt(2 / steps)
    each = steps * rate * (1 - rate)
    assert abs(np.var(taken) / each - 1) < 5 * np.sqrt((2 + 1 / each) / rows)


@pytest.mark.parametrize("source", SOURCES)
def test_of_the_whole_all_rows_are_taken(source: Source) -> None:
    assert source.sample(3, 500, 1.0).tolist() == list(range(500))


@pytest.mark.parametrize("source", SOURCES)
def test_a_step_is_the_same_again_and_no_other(source: Source) -> None:
    assert (drawn(source, 4, 100) == drawn(source, 4, 100)).all()
    assert (source.sample(4, 100, 0.5) == source.sample(4, 100, 0.5)).all()
    assert not (drawn(source, 4, 100) == drawn(source, 5, 100)).any()
    assert source.sample(4, 100, 0.5).tolist() != source.sample(5, 100, 0.5).tolist()


def test_a_secret_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    wanted = Privacy(epsilon=1, delta=1e-5)
    assert wanted.noise == "cryptographic"
    one, other = (tmp_path / name for name in ("one", "other"))
    for folder in (one, other):
        folder.mkdir()
    first, again = noise.source(wanted, 0, one), noise.source(wanted, 0, one)
    assert (drawn(first, 0, 50) == drawn(again, 0, 50)).all()
    assert (one / noise.KEY).stat().st_mode & 0o777 == 0o600
    elsewhere = noise.source(wanted, 0, other)  # of the same seed
    assert not (drawn(first, 0, 50) == drawn(elsewhere, 0, 50)).any()


def test_pseudorandom_noise_is_known_from_the_seed(tmp_path: Path) -> None:
    wanted = Privacy(epsilon=1, delta=1e-5, noise="pseudorandom")
    first, again = noise.source(wanted, 5, tmp_path), noise.source(wanted, 5, tmp_path)
    assert not (tmp_path / noise.KEY).exists()
    assert (drawn(first, 0, 50) == drawn(again, 0, 50)).all()
    assert not (drawn(first, 0, 50) == drawn(noise.source(wanted, 6, tmp_path), 0, 50)).any()


def test_numbers_go_to_their_weights() -> None:
    """Of an odd count too: the same numbers as flat, in the order of the weights."""
    words = Cryptographic(KEY).words(0, 11)
    assert words is not None
    given = jax.numpy.asarray(words)
    (flat,) = noise.of_words(given, [(11,)])
    one, two, three = noise.of_words(given, [(2, 3), (4,), ()])
    assert (one.shape, two.shape, three.shape) == ((2, 3), (4,), ())
    assert [*one.ravel().tolist(), *two.tolist(), three.item()] == flat.tolist()


def test_the_far_ends_are_there() -> None:
    """Of the least words and of the largest come numbers: the farthest from the middle, and 0."""
    ends = np.zeros(noise.words_of(2), np.uint32)
    (found,) = noise.of_words(jax.numpy.asarray(ends), [(2,)])
    assert 13.3 < float(found[0]) < 13.4  # √(−2 ln 2⁻³²) four times, halved
    ends[:] = 2**32 - 1
    (found,) = noise.of_words(jax.numpy.asarray(ends), [(2,)])
    assert np.isfinite(np.asarray(found)).all()
    assert np.abs(np.asarray(found)).max() < 1e-3


def test_pairs_are_those_of_the_textbook() -> None:
    """A turn's quarters are counted otherwise, and sine and cosine are series."""
    words = np.random.default_rng(3).integers(0, 2**32, (2, 20_000), np.uint32)
    unit, turn = words.astype(float)
    size, angle = np.sqrt(-2 * np.log((unit + 1) / 2**32)), turn % 2**30 / 2**30 * np.pi / 2
    found = noise._pair(*map(jax.numpy.asarray, words))
    for bit, got, want in zip((30, 31), found, (np.cos(angle), np.sin(angle)), strict=True):
        sign = np.where(words[1] >> bit & 1, -1, 1)
        np.testing.assert_allclose(np.asarray(got), size * want * sign, atol=5e-6)
