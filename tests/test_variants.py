"""Bias, residual, shared draws, alpha dropout and tiles mean what the pages say.

test_whole_calls.py compares every kernel with the reference on all of them.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import fastdrop as fd
from support import assert_identical, sample


def numbers(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Return normal and special values."""
    return sample(math.prod(shape), dtype, seed).reshape(shape)


def with_one_nan(value):
    """Replace every NaN by one, because C does not say which NaN the sum of two is."""
    if not isinstance(value, np.ndarray):
        return value
    return np.where(np.isnan(value), np.array(np.nan, value.dtype), value)


# --- bias and residual ------------------------------------------------------------------------


def test_a_bias_is_the_sum_taken_before(isa):
    for columns in (1, 2, 15, 16, 17, 31, 64, 1000, 5000):
        x, bias = numbers((7, columns), "float32", 1), numbers((columns,), "float32", 2)
        y, mask = fd.relu_dropout(x, keep_prob=0.6, bias=bias, rng=3)
        with np.errstate(all="ignore"):
            expected, expected_mask = fd.relu_dropout(x + bias, keep_prob=0.6, rng=3)
        assert_identical(with_one_nan(y), with_one_nan(expected), f"{columns} columns")
        assert mask == expected_mask, columns


@pytest.mark.parametrize("shape", [(1500, 100), (15_000, 7), (2, 150_000), (50, 3, 1000)])
def test_a_bias_gradient_is_the_sum_of_its_column(library, shape):
    dy = np.random.default_rng(0).standard_normal(shape, np.float32)
    dx, dbias = library.dropout_backward(dy, fd.keep_mask(shape, keep_prob=0.5, rng=1), bias_grad=True)
    np.testing.assert_allclose(dbias, dx.reshape(-1, shape[-1]).sum(0, np.float64), rtol=1e-6, atol=1e-5)


# --- shared draws -----------------------------------------------------------------------------


def test_shared_draws_are_those_of_the_small_mask(library):
    x = np.ones((4, 6, 5, 3), np.float32)
    y, mask = library.dropout(x, keep_prob=0.5, broadcast_dims=(2, 3), rng=9)
    small = library.keep_mask((4, 6, 1, 1), keep_prob=0.5, rng=9)
    assert mask == small == library.keep_mask(x.shape, keep_prob=0.5, broadcast_dims=(-1, 2), rng=9)
    assert_identical(y, np.broadcast_to(small.to_array() * np.float32(2), x.shape).copy())


def test_a_shared_draw_reserves_one_position(library):
    stream = fd.Stream(1)
    library.dropout(np.ones((10, 20)), keep_prob=0.5, broadcast_dims=1, rng=stream)
    assert stream.offset == 10
    library.dropout(np.ones((10, 20)), keep_prob=0.5, broadcast_dims=(0, 1), rng=stream)
    assert stream.offset == 11


def test_a_dropped_row_is_not_read(isa):
    x = np.full((50, 1000), np.nan, np.float32)
    y, mask = fd.dropout(x, keep_prob=0.5, broadcast_dims=1, rng=4)
    assert_identical(np.isnan(y[:, 0]), mask.to_array()[:, 0])
    assert np.all(y[~mask.to_array()[:, 0]].view(np.uint32) == 0)


# --- alpha dropout ----------------------------------------------------------------------------


def test_alpha_dropout_keeps_mean_and_variance():
    """N(0, 1) is the fixed point of SELU. Both lie within 5 standard errors: one run in 10**6 fails."""
    n = 10**6
    x = np.random.default_rng(5).standard_normal(n)
    for keep_prob in (0.5, 0.8, 0.95):
        y, _ = fd.alpha_dropout(x, keep_prob=keep_prob, rng=6)
        fourth = float(np.mean((y - y.mean()) ** 4))
        assert abs(y.mean()) < 5 / math.sqrt(n)
        assert abs(y.var() - 1) < 5 * math.sqrt((fourth - 1) / n)


def test_alpha_dropout_without_a_survivor_is_zero(library):
    y, mask = library.alpha_dropout(sample(100), keep_prob=0.0, rng=1)
    assert np.all(y.view(np.uint32) == 0)
    assert np.all(library.alpha_dropout_backward(sample(100), mask).view(np.uint32) == 0)


# --- tiles ------------------------------------------------------------------------------------

WHOLES = (
    ((300,), (17,), (100,)),
    ((40, 50), (3, 7), (20, 33)),
    ((40, 50), (3, 0), (20, 50)),
    ((9, 3000), (2, 129), (5, 2500)),
    ((3, 20_000), (1, 65), (2, 19_001)),
    ((3, 40, 2), (0, 13, 0), (3, 20, 1)),
    ((4, 5, 6, 7), (1, 2, 3, 4), (2, 2, 2, 2)),
    ((4, 5, 6, 7), (0, 2, 0, 0), (4, 3, 6, 7)),
)


@pytest.mark.parametrize(("whole", "origin", "shape"), WHOLES)
def test_a_tile_has_the_bits_of_the_whole(library, whole, origin, shape):
    x = numbers(whole, "float32", 1)
    place = tuple(slice(start, start + length) for start, length in zip(origin, shape, strict=True))
    tile = fd.Tile(whole, origin, seed=12, offset=1000)

    for keep_prob, shared in itertools.product((0.0, 77 / 256, 1.0), ((), (0,), (-1,))):
        what, options = f"{keep_prob}, {shared}", {"broadcast_dims": shared}
        y, mask = library.relu_dropout(x, keep_prob=keep_prob, rng=fd.Stream(12, 1000), **options)
        part, part_mask = library.relu_dropout(x[place], keep_prob=keep_prob, rng=tile, **options)
        assert_identical(part, y[place], what)
        assert_identical(part_mask.to_array(), mask.to_array()[place], what)
        if not shared:
            bits = library.keep_mask(shape, keep_prob=keep_prob, rng=tile).to_array()
            every = library.keep_mask(whole, keep_prob=keep_prob, rng=fd.Stream(12, 1000)).to_array()
            assert_identical(bits, every[place], what)


def test_a_tile_of_a_stream():
    stream = fd.Stream(5, offset=70)
    tile = stream.tile((10, 10), (2, 3))
    assert tile == fd.Tile((10, 10), (2, 3), seed=5, offset=70)
    assert stream.offset == 70
    assert repr(tile) == "Tile(shape=(10, 10), origin=(2, 3), seed=5, offset=70)"
    assert hash(tile) == hash(stream.tile((10, 10), (2, 3)))
    assert tile != stream.tile((10, 10), (2, 4))


# --- errors -----------------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 3), (0,), 0), "origin must have an index for each axis"),
        (((2, -3), (0, 0), 0), "shape must have no negative length"),
        (((2, 3), (0, 0), 0, 2**64 - 5), "offset must be in"),
        (((2, 3), (0, 0), -1), "seed must be in"),
    ],
)
def test_what_a_tile_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        fd.Tile(*arguments)
