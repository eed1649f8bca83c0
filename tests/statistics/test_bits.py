"""The drawn bits are those of independent coins.

Every check compares a count with the exact binomial distribution and raises a false alarm with probability
below `FALSE_ALARM`. The seeds are fixed, so that a check which has passed goes on passing until bits change.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

import fastdrop as fd

FALSE_ALARM = 1e-9
SIZE = 1 << 22
SEED = 20240229
KEEP_PROBS = (1e-6, 1e-3, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 0.999, 1 - 1e-6)
LAGS = (1, 2, 7, 8, 16, 31, 32, 64, 127, 128, 256, 511, 512, 1000, 1024, 4096, 65536)


def drawn(keep_prob: float, rng: object = SEED, size: int = SIZE) -> np.ndarray:
    return fd.keep_mask(size, keep_prob, rng=rng).to_array()


def assert_binomial(successes: int, trials: int, probability: float) -> None:
    low, high = binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], trials, probability)
    assert low <= successes <= high, f"{successes} of {trials}, not within [{low:.0f}, {high:.0f}]"


def assert_independent(first: np.ndarray, second: np.ndarray) -> None:
    """Two fair sequences that agree about half of the time."""
    assert_binomial(np.count_nonzero(first == second), len(first), 0.5)


@pytest.mark.parametrize("keep_prob", KEEP_PROBS)
def test_keep_rate(isa: str, keep_prob: float) -> None:
    assert_binomial(np.count_nonzero(drawn(keep_prob)), SIZE, keep_prob)


@pytest.mark.parametrize("keep_prob", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("position", range(0, 512, 37))
def test_keep_rate_at_each_place_of_a_group(keep_prob: float, position: int) -> None:
    column = drawn(keep_prob)[position::512]
    assert_binomial(np.count_nonzero(column), len(column), keep_prob)


@pytest.mark.parametrize("lag", LAGS)
def test_lags_are_independent(lag: int) -> None:
    bits = drawn(0.5)
    assert_independent(bits[:-lag], bits[lag:])


@pytest.mark.parametrize("keep_prob", [1e-3, 0.3, 0.9])
@pytest.mark.parametrize("lag", [1, 8, 128, 512])
def test_both_kept(keep_prob: float, lag: int) -> None:
    """Disjoint pairs, so that the count is exactly binomial."""
    pairs = drawn(keep_prob).reshape(-1, 2, lag)
    assert_binomial(np.count_nonzero(pairs[:, 0] & pairs[:, 1]), SIZE // 2, keep_prob**2)


@pytest.mark.parametrize("difference", [1 << bit for bit in range(0, 64, 7)])
def test_neighbouring_seeds(difference: int) -> None:
    first, second = (drawn(0.5, fd.Stream(seed)) for seed in (SEED, SEED ^ difference))
    assert_independent(first, second)


def test_spawned_streams() -> None:
    parent = fd.Stream(SEED)
    sequences = [drawn(0.5, stream) for stream in (*parent.spawn(4), parent)]
    for i, first in enumerate(sequences):
        for second in sequences[:i]:
            assert_independent(first, second)
