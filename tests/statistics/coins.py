"""The statistical tests share these sequences, and exact bounds for counts of them.

Every check compares counts with their exact binomial distribution. All bounds of one check together are
missed with probability below `FALSE_ALARM`, by the union bound, if the bits are independent coins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binom

import fastdrop as fd

FALSE_ALARM = 1e-9
BLOCK, GROUP = 128, 512  # the bits of one call of the generator, and of four: what a kernel makes at once


def drawn(keep_prob: float, seed: Any, size: int, offset: int = 0) -> np.ndarray:
    return fd.keep_mask(size, keep_prob=keep_prob, rng=fd.Stream(seed, offset)).to_array()


def signs(bits: np.ndarray, columns: int) -> np.ndarray:
    """Return rows of +1 and -1. Their products count agreements; sums of fewer than 2**24 are exact."""
    return np.where(bits.reshape(-1, columns), np.float32(1), np.float32(-1))


def assert_binomial(successes: Any, trials: int, probability: Any) -> None:
    """Assert that each of the counts lies within its bounds."""
    tail = FALSE_ALARM / 2 / np.size(successes)
    low, high = binom.ppf(tail, trials, probability), binom.isf(tail, trials, probability)
    beyond = np.flatnonzero((successes < low) | (successes > high))
    assert not beyond.size, (
        f"{beyond.size} of {np.size(successes)} counts, first number {beyond[0]}: "
        f"{np.ravel(successes)[beyond[0]]} of {trials}, not within "
        f"[{np.ravel(low)[beyond[0] % np.size(low)]:.0f}, {np.ravel(high)[beyond[0] % np.size(high)]:.0f}]"
    )


def assert_independent(first: np.ndarray, second: np.ndarray) -> None:
    """Assert that two fair sequences agree about half of the time."""
    assert_binomial(np.count_nonzero(first == second), len(first), 0.5)


def assert_columns_independent(first: np.ndarray, second: np.ndarray) -> None:
    """Assert that every column of one matrix of signs is independent of every column of another."""
    products = first.T @ second
    if first is second:  # each pair once
        products = products[np.triu_indices(len(products), 1)]
    assert_binomial((len(first) + products) / 2, len(first), 0.5)
