"""The backward calls are the gradients of the forward ones, and the two modes agree on average."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import reference
from support import DTYPES, MODES, assert_identical, bit_patterns, sample

KEEP_PROBS = (0.0, 2.0**-11, 0.25, 0.5, 0.9, 1.0)
SIZE = 3001


# The reference and one kernel are enough here, because test_kernels.py compares all kernels.


def scale_of(keep_prob: float, mode: str) -> float:
    return 1.0 if mode == "vanilla" else 1 / keep_prob if keep_prob else 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_the_analytic_gradient(library, dtype, mode):
    """d(scale * relu(x)) / dx is exactly the scale where x was kept and above 0, and 0 elsewhere."""
    for keep_prob in KEEP_PROBS:
        assert_analytic_gradient(library, dtype, mode, keep_prob)


def assert_analytic_gradient(library, dtype, mode, keep_prob):
    generator = np.random.default_rng(1)
    x, dy = generator.standard_normal((2, SIZE)).astype(dtype)
    kept = reference.keep_mask(SIZE, keep_prob=keep_prob, rng=3).to_array()
    arithmetic = np.float64 if dtype == "float64" else np.float32
    scaled = (dy.astype(arithmetic) * arithmetic(scale_of(keep_prob, mode))).astype(dtype)
    zero = np.dtype(dtype).type(0)

    y, mask = library.relu_dropout(x, keep_prob=keep_prob, mode=mode, rng=3)
    expected = np.where(kept & (x > 0), scaled, zero)
    assert_identical(library.relu_dropout_backward(dy, mask), expected)
    assert_identical(library.relu_dropout_backward(dy, mask, keep_prob=keep_prob, mode=mode), expected)
    assert_identical(library.relu_dropout_backward(dy, y, keep_prob=keep_prob, mode=mode), expected)

    _, mask = library.dropout(x, keep_prob=keep_prob, mode=mode, rng=3)
    assert_identical(library.dropout_backward(dy, mask), np.where(kept, scaled, zero))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("keep_prob", [0.25, 0.75])
def test_finite_differences(library, mode, relu, keep_prob):
    """The differences are taken along each coordinate of a weighted sum; the step crosses no kink."""
    forward = library.relu_dropout if relu else library.dropout
    generator = np.random.default_rng(2)
    x, weights = generator.standard_normal((2, 64))
    x += np.copysign(0.01, x)
    step = 2.0**-10

    def loss(point: np.ndarray) -> float:
        y, _ = forward(point, keep_prob=keep_prob, mode=mode, rng=5)
        return math.fsum(weights * y)

    differences = np.array(
        [(loss(x + step * axis) - loss(x - step * axis)) / (2 * step) for axis in np.eye(x.size)]
    )
    _, mask = forward(x, keep_prob=keep_prob, mode=mode, rng=5)
    backward = library.relu_dropout_backward if relu else library.dropout_backward
    np.testing.assert_allclose(backward(weights, mask), differences, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(library, dtype):
    """The gradient at 0 is 0, that of a kept NaN passes, and nothing leaks through what was dropped."""
    x, dy = sample(SIZE, dtype, seed=8), sample(SIZE, dtype, seed=9)
    y, mask = library.relu_dropout(x, keep_prob=0.6, rng=1)
    passed = mask.to_array()
    assert not passed[x == 0].any()
    assert passed[np.isnan(x)].any()
    dx = library.relu_dropout_backward(dy, mask)
    assert np.all(bit_patterns(dx[~passed]) == 0)
    assert np.array_equal(np.isnan(dx), passed & np.isnan(dy))
    assert_identical(dx, reference.relu_dropout_backward(dy, mask))
    assert_identical(dx, library.relu_dropout_backward(dy, y, keep_prob=0.6, mode="inverted"))


@pytest.mark.parametrize("offset", [0, 2**32 - 100, 2**63 + 3])
def test_a_mask_made_again_gives_the_same_gradient(library, offset):
    """Other libraries had forward and backward masks that disagreed past 2**32 positions."""
    x, dy = sample(SIZE, seed=1), sample(SIZE, seed=2)
    _, mask = library.dropout(x, keep_prob=0.7, rng=fd.Stream(1, offset))
    again = library.keep_mask(SIZE, keep_prob=0.7, rng=fd.Stream(1, offset))
    assert_identical(library.dropout_backward(dy, again), library.dropout_backward(dy, mask))


# --- expectation ------------------------------------------------------------------------------

FALSE_ALARM = 1e-7  # of one comparison, at most; the tests below make four
REPEATS = 4000


def tolerance(greatest: np.ndarray, comparisons: int) -> np.ndarray:
    """Return how far a mean of REPEATS values in [0, greatest] may stray from its expectation.

    Hoeffding's inequality (1963) says that P(|mean - expectation| >= t) <= 2 exp(-2 n t**2 / greatest**2).
    The probabilities of all `comparisons` add up to at most FALSE_ALARM.
    """
    return greatest * math.sqrt(math.log(2 * comparisons / FALSE_ALARM) / (2 * REPEATS))


@pytest.mark.parametrize("keep_prob", [0.5, 0.9])
@pytest.mark.parametrize("mode", MODES)
def test_training_has_the_expectation_of_prediction(mode, keep_prob):
    """In each mode, the mean over masks of the training result is the prediction.

    Vanilla scales at prediction what inverted scales in training, so each is the other times
    keep_prob. The chance that a correct stream fails is below 1e-6 for the four cases together.
    """
    x = np.linspace(-1, 2, 61)
    stream = fd.Stream(2014)
    total = np.zeros_like(x)
    for _ in range(REPEATS):
        total += fd.relu_dropout(x, keep_prob=keep_prob, mode=mode, rng=stream, return_mask=False)
    predicted = fd.relu_dropout_predict(x, keep_prob=keep_prob, mode=mode)
    greatest = np.maximum(x, 0) * scale_of(keep_prob, mode)
    assert np.all(np.abs(total / REPEATS - predicted) <= tolerance(greatest, x.size))
    assert stream.offset == REPEATS * x.size
