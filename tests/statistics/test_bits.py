"""The drawn bits are those of independent coins, within one sequence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from coins import (
    BLOCK,
    FALSE_ALARM,
    GROUP,
    assert_binomial,
    assert_columns_independent,
    assert_independent,
    drawn,
    signs,
)

KEEP_PROBS = (1e-6, 1e-3, 0.01, 0.1, 0.25, 0.3, 0.5, 2 / 3, 0.7, 0.9, 0.99, 0.999, 1 - 1e-6)
LAGS = (1, 2, 7, 8, 16, 31, 32, 64, 127, 128, 256, 511, 512, 1000, 1024, 4096, 65536)


@pytest.mark.parametrize("keep_prob", KEEP_PROBS)
def test_keep_rate(keep_prob: float, seed: int, size: int) -> None:
    assert_binomial(np.count_nonzero(drawn(keep_prob, seed, size)), size, keep_prob)


@pytest.mark.parametrize("keep_prob", KEEP_PROBS)
def test_keep_rate_at_each_place_of_a_group(keep_prob: float, seed: int, size: int) -> None:
    counts = np.count_nonzero(drawn(keep_prob, seed, size).reshape(-1, GROUP), axis=0)
    assert_binomial(counts, size // GROUP, keep_prob)


@pytest.mark.parametrize("keep_prob", [1e-3, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("length", [BLOCK, 1000, 4096])
def test_keep_rate_of_each_row_and_column(keep_prob: float, length: int, seed: int, size: int) -> None:
    rows = drawn(keep_prob, seed, size // length * length).reshape(-1, length)
    assert_binomial(np.count_nonzero(rows, axis=0), len(rows), keep_prob)
    assert_binomial(np.count_nonzero(rows, axis=1), length, keep_prob)


@pytest.mark.parametrize("keep_prob", [0.1, 0.3, 0.5, 0.9])
def test_blocks_have_the_weights_of_coins(keep_prob: float, seed: int, size: int) -> None:
    """The numbers of blocks with 0, 1, ..., 128 bits set are binomial."""
    weights = np.count_nonzero(drawn(keep_prob, seed, size).reshape(-1, BLOCK), axis=1)
    counts = np.bincount(weights, minlength=BLOCK + 1)
    assert_binomial(counts, len(weights), binom.pmf(np.arange(BLOCK + 1), BLOCK, keep_prob))


@pytest.mark.parametrize("lag", LAGS)
def test_lags_are_independent(lag: int, seed: int, size: int) -> None:
    bits = drawn(0.5, seed, size)
    assert_independent(bits[:-lag], bits[lag:])


@pytest.mark.parametrize("keep_prob", [1e-3, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("lag", [1, 8, 128, 512])
def test_serial_correlation(keep_prob: float, lag: int, seed: int, size: int) -> None:
    """The pairs are disjoint, so each of the four counts is exactly binomial."""
    first, second = np.moveaxis(drawn(keep_prob, seed, size).reshape(-1, 2, lag), 1, 0)
    counts = np.bincount((2 * first + second).ravel(), minlength=4)
    chances = np.array([1 - keep_prob, keep_prob])
    assert_binomial(counts, size // 2, np.outer(chances, chances).ravel())


def test_every_pair_of_places_of_a_group(seed: int, size: int) -> None:
    rows = signs(drawn(0.5, seed, size), GROUP)
    assert_columns_independent(rows, rows)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 8, 16, 256])
def test_every_pair_of_places_of_two_blocks(distance: int, seed: int, size: int) -> None:
    blocks = signs(drawn(0.5, seed, size), BLOCK)
    assert_columns_independent(blocks[:-distance], blocks[distance:])


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("keep_prob", [1e-3, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_runs(keep_prob: float, kept: bool, seed: int, size: int) -> None:
    """Of a fixed number of runs, the numbers of those longer than 0, 1, 2, ... are geometric."""
    going_on = keep_prob if kept else 1 - keep_prob
    bits = drawn(keep_prob, seed, size) == kept
    ends = np.flatnonzero(np.diff(bits, prepend=False, append=False))
    number = int(0.9 * size * keep_prob * (1 - keep_prob))
    lengths = (ends[1::2] - ends[::2])[: number + 1][1:]  # the first may have begun earlier
    assert len(lengths) == number
    longest = int(np.log(FALSE_ALARM / number) / np.log(going_on)) + 2
    longer = np.array([np.count_nonzero(lengths > n) for n in range(min(longest, 300))])
    assert_binomial(longer, number, going_on ** np.arange(len(longer)))


@pytest.mark.parametrize("width", [8, 16])
def test_words(width: int, seed: int, size: int) -> None:
    """Each value of a byte, or of two bytes, is as frequent as any other."""
    words = np.packbits(drawn(0.5, seed, size)).view(f"u{width // 8}")
    assert_binomial(np.bincount(words, minlength=1 << width), len(words), 0.5**width)


@pytest.mark.parametrize("rate", [0.497, 0.503])
def test_a_small_bias_is_seen(rate: float, seed: int, size: int) -> None:
    """Biased coins fail the checks, so a check that passes was able to fail."""
    bits = np.random.default_rng(seed).random(size) < rate
    with pytest.raises(AssertionError, match="not within"):
        assert_binomial(np.count_nonzero(bits), size, 0.5)
