"""Random numbers as pure functions: permutations, uniform and beta draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.train.keys import beta, mix, permute, uniform


@given(st.integers(0, 2**64 - 1), st.integers(1, 3000))
def test_permute_deals_every_card_once(key: int, size: int) -> None:
    cards = permute(mix(key), np.arange(size), size)
    assert np.array_equal(np.sort(cards), np.arange(size))


def test_permute_is_elementwise() -> None:
    keys, places, sizes = mix(7, np.arange(50)), np.arange(50) % 9, np.arange(50) + 9
    together = permute(keys, places, sizes)
    alone = [int(permute(keys[i], places[i], int(sizes[i]))) for i in range(50)]
    assert together.tolist() == alone


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_permutations_of_a_small_deck_are_equally_likely(size: int) -> None:
    shuffles = 300 * math.factorial(size)
    keys = np.repeat(mix(11, np.arange(shuffles)), size)
    dealt = permute(keys, np.tile(np.arange(size), shuffles), size).reshape(shuffles, size)
    counts = np.unique(dealt, axis=0, return_counts=True)[1]
    assert len(counts) == math.factorial(size)
    assert _chi_square(counts, np.full(len(counts), 300.0)) < 4


@pytest.mark.parametrize("size", [7, 64, 1000])
def test_a_place_of_a_deck_holds_each_card_equally_often(size: int) -> None:
    shuffles = 200_000
    cards = permute(mix(13, np.arange(shuffles)), np.full(shuffles, size // 2), size)
    assert _chi_square(np.bincount(cards, minlength=size), np.full(size, shuffles / size)) < 4


def test_neighbouring_places_are_unrelated() -> None:
    cards = permute(mix(17), np.arange(100_000), 100_000)
    assert abs(np.corrcoef(cards[:-1], cards[1:])[0, 1]) < 0.015


def test_uniform_fills_the_unit_interval() -> None:
    numbers = uniform(mix(19, np.arange(100_000)))
    assert numbers.min() >= 0 and numbers.max() < 1
    assert _chi_square(np.bincount((numbers * 50).astype(int), minlength=50), np.full(50, 2000.0)) < 4


@pytest.mark.parametrize("alpha", [1e-9, 0.1, 0.2, 0.5, 1.0, 2.0, 8.0, 500.0])
def test_beta_has_the_moments_and_quantiles_of_the_beta_distribution(alpha: float) -> None:
    draws = beta(mix(23, np.arange(200_000)), alpha)
    assert draws.min() >= 0 and draws.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(draws.mean() - 0.5) < 5 * math.sqrt(variance / len(draws))
    assert abs(draws.var() / variance - 1) < 0.02
    reference = np.random.default_rng(0).beta(alpha, alpha, 200_000)
    levels = [0.05, 0.2, 0.4, 0.7, 0.9]
    assert np.abs(np.quantile(draws, levels) - np.quantile(reference, levels)).max() < 0.01


def test_numbers_are_the_same_on_every_machine() -> None:
    # Frozen: a change of these changes every plan that was ever made.
    assert [int(key) for key in mix(1, np.arange(3))] == EXPECTED_KEYS
    assert permute(mix(1), np.arange(10), 10).tolist() == EXPECTED_CARDS


def _chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """How many standard deviations the chi-square statistic lies above its mean."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


EXPECTED_KEYS = [6791897765849424158, 16860738450190168606, 13608149317741381227]
EXPECTED_CARDS = [8, 6, 1, 7, 4, 9, 3, 0, 5, 2]
