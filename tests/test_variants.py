"""Bias, residuals, shared draws, alpha dropout and tiles: kernels against the reference, bit for bit."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.exceptions import AxisError

import fastdrop as fd
from fastdrop import reference
from support import DTYPES, MODES, assert_identical, at_address, sample

SHAPES = (
    *((), (1,), (7,), (300,), (3, 5), (40, 17), (5, 1000), (70, 1), (0, 4), (4, 0)),
    *((2, 3, 4, 5), (6, 16, 49), (3, 2, 1100)),
)
LAYOUTS = ("contiguous", "misaligned", "transposed", "swapped", "in place")


def numbers(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Special values too."""
    return sample(math.prod(shape), dtype, seed).reshape(shape)


def with_one_nan(value):
    """Of a sum of two NaN, C leaves open which one stays; test_kernels.py holds the single ones."""
    if not isinstance(value, np.ndarray):
        return value
    return np.where(np.isnan(value), np.array(np.nan, value.dtype), value)


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    if layout == "misaligned":
        return at_address(array, 2 * array.itemsize + 1)
    if layout == "transposed":
        return np.asfortranarray(array)
    if layout == "swapped" and array.dtype.kind == "f":
        return array.astype(array.dtype.newbyteorder())
    return array.copy()


def shared_axes(shape: tuple[int, ...], generator: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(axis) for axis in range(len(shape)) if generator.random() < 0.4)


class Case(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    layout: str
    options: dict[str, Any]
    number: int


def cases() -> Iterator[Case]:
    """Each shape with each dtype, twice; the rest as a fixed generator has it."""
    generator = np.random.default_rng(1958)
    for number, (shape, dtype, _) in enumerate(itertools.product(SHAPES, DTYPES, range(2))):
        layout = LAYOUTS[generator.integers(len(LAYOUTS))]
        options = {
            "bias": bool(shape) and generator.random() < 0.5,
            "shared": shared_axes(shape, generator) if generator.random() < 0.6 else (),
            "mode": MODES[generator.integers(2)],
            "keep_prob": float(generator.choice([0.0, 0.5, 0.9, 0.3179, 1.0])),
            "offset": int(generator.choice([0, 5, 127, 2**40])),
        }
        yield Case(shape, dtype, layout, options, number)


CASES = tuple(cases())
CALLS = ("relu_dropout", "dropout", "dropout_add", "alpha_dropout")


def returned(library: Any, call: str, case: Case) -> tuple[Any, ...]:
    """All that a call and its backward call return, and where the stream is then."""
    shape, dtype, layout, options, number = case
    stream = fd.Stream(number, options["offset"])
    x = laid_out(numbers(shape, dtype, number), layout)
    residual = laid_out(numbers(shape, dtype, number + 1), layout)
    keywords = {"rng": stream, "broadcast_dims": options["shared"]}
    if call != "alpha_dropout":
        bias = numbers(shape[-1:], dtype, number + 2)
        keywords |= {"bias": bias if options["bias"] else None, "mode": options["mode"]}
    arrays = (x, residual) if call == "dropout_add" else (x,)
    if layout == "in place":
        keywords["out"] = arrays[-1]
    y, mask = getattr(library, call)(*arrays, options["keep_prob"], **keywords)
    dy = laid_out(numbers(shape, dtype, number + 3), layout)
    gradients = {}
    if shape and call != "alpha_dropout":
        gradients["bias_grad"] = True
    dx = getattr(library, f"{call}_backward")(dy, mask, **gradients)
    return y, mask, stream.offset, *(dx if gradients else (dx,))


@functools.cache
def expected_of(call: str, number: int) -> tuple[Any, ...]:
    """The reference's answer, which all kernels share."""
    return returned(reference, call, CASES[number])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_forward_and_backward_equal_the_reference(isa, call, shape):
    for case in CASES:
        if case.shape == shape:
            results = zip(returned(fd, call, case), expected_of(call, case.number), strict=True)
            for actual, expected in results:
                assert_identical(with_one_nan(actual), with_one_nan(expected), str(case))


@pytest.mark.parametrize("dtype", DTYPES)
def test_predictions_equal_the_reference(isa, dtype):
    x, residual, bias = numbers((9, 70), dtype, 1), numbers((9, 70), dtype, 2), numbers((70,), dtype, 3)
    calls = (("relu_dropout", (x,)), ("dropout", (x,)), ("dropout_add", (x, residual)))
    for (name, arrays), mode in itertools.product(calls, MODES):
        actual, expected = (
            getattr(library, f"{name}_predict")(*arrays, 0.7, bias=bias, mode=mode)
            for library in (fd, reference)
        )
        assert_identical(with_one_nan(actual), with_one_nan(expected), f"{name}, {mode}")


# --- bias and residual ------------------------------------------------------------------------


def test_a_bias_is_the_sum_taken_before(isa):
    for columns in (1, 2, 15, 16, 17, 31, 64, 1000, 5000):
        x, bias = numbers((7, columns), "float32", 1), numbers((columns,), "float32", 2)
        y, mask = fd.relu_dropout(x, 0.6, bias=bias, rng=3)
        with np.errstate(all="ignore"):
            expected, expected_mask = fd.relu_dropout(x + bias, 0.6, rng=3)
        assert_identical(with_one_nan(y), with_one_nan(expected), f"{columns} columns")
        assert mask == expected_mask, columns


@pytest.mark.parametrize("shape", [(1500, 100), (15_000, 7), (2, 150_000), (50, 3, 1000)])
def test_column_sums_do_not_depend_on_threads(isa, threads, shape):
    dy = np.random.default_rng(0).standard_normal(shape, np.float32)
    mask = fd.keep_mask(shape, 0.5, rng=1)
    _, expected = reference.dropout_backward(dy, mask, bias_grad=True)
    for count in (1, 2, 5):
        fd.set_num_threads(count)
        dx, dbias = fd.dropout_backward(dy, mask, bias_grad=True)
        assert_identical(dbias, expected, f"{count} threads")
        np.testing.assert_allclose(dbias, dx.reshape(-1, shape[-1]).sum(0, np.float64), rtol=1e-6, atol=1e-5)


def test_a_residual_may_be_the_result(isa):
    x, residual = numbers((64, 33), "float32", 1), numbers((64, 33), "float32", 2)
    expected, _ = fd.dropout_add(x, residual, 0.8, rng=1)
    y, _ = fd.dropout_add(x, residual, 0.8, rng=1, out=residual)
    assert y is residual
    assert_identical(with_one_nan(y), with_one_nan(expected))


def test_a_result_that_overlaps_the_residual_is_as_without(isa):
    buffer = numbers((3000,), "float32", 1)
    x = numbers((2000,), "float32", 2)
    expected, _ = fd.dropout_add(x, buffer[:2000].copy(), 0.8, rng=1)
    y, _ = fd.dropout_add(x, buffer[:2000], 0.8, rng=1, out=buffer[5:2005])
    assert_identical(with_one_nan(y), with_one_nan(expected))


# --- shared draws -----------------------------------------------------------------------------


def test_shared_draws_are_those_of_the_small_mask(isa):
    x = np.ones((4, 6, 5, 3), np.float32)
    y, mask = fd.dropout(x, 0.5, broadcast_dims=(2, 3), rng=9)
    small = fd.keep_mask((4, 6, 1, 1), 0.5, rng=9)
    assert mask == small == fd.keep_mask(x.shape, 0.5, broadcast_dims=(-1, 2), rng=9)
    assert_identical(y, np.broadcast_to(small.to_array() * np.float32(2), x.shape).copy())


def test_a_shared_draw_reserves_one_position(isa):
    stream = fd.Stream(1)
    fd.dropout(np.ones((10, 20)), 0.5, broadcast_dims=1, rng=stream)
    assert stream.offset == 10
    fd.dropout(np.ones((10, 20)), 0.5, broadcast_dims=(0, 1), rng=stream)
    assert stream.offset == 11


@pytest.mark.parametrize("columns", [3, 511, 512, 5000])
def test_shared_draws_do_not_depend_on_threads(isa, threads, columns):
    x = numbers((150_000 // columns, columns), "float32", 1)
    for axis in (0, 1):
        expected, expected_mask = reference.relu_dropout(x, 0.5, broadcast_dims=axis, rng=2)
        for count in (1, 2, 3):
            fd.set_num_threads(count)
            y, mask = fd.relu_dropout(x, 0.5, broadcast_dims=axis, rng=2)
            assert_identical(y, expected, f"axis {axis}, {count} threads")
            assert mask == expected_mask, (axis, count)


def test_a_dropped_row_is_not_read(isa):
    x = np.full((50, 1000), np.nan, np.float32)
    y, mask = fd.dropout(x, 0.5, broadcast_dims=1, rng=4)
    assert_identical(np.isnan(y[:, 0]), mask.to_array()[:, 0])
    assert np.all(y[~mask.to_array()[:, 0]].view(np.uint32) == 0)


# --- alpha dropout ----------------------------------------------------------------------------


def test_alpha_dropout_keeps_mean_and_variance():
    """Of N(0, 1), the fixed point of SELU: both lie within 5 standard errors (one run in 10**6 fails)."""
    n = 10**6
    x = np.random.default_rng(5).standard_normal(n)
    for keep_prob in (0.5, 0.8, 0.95):
        y, _ = fd.alpha_dropout(x, keep_prob, rng=6)
        fourth = float(np.mean((y - y.mean()) ** 4))
        assert abs(y.mean()) < 5 / math.sqrt(n)
        assert abs(y.var() - 1) < 5 * math.sqrt((fourth - 1) / n)


def test_alpha_dropout_without_a_survivor_is_zero(library):
    y, mask = library.alpha_dropout(sample(100), 0.0, rng=1)
    assert np.all(y.view(np.uint32) == 0)
    assert np.all(library.alpha_dropout_backward(sample(100), mask).view(np.uint32) == 0)


# --- tiles ------------------------------------------------------------------------------------

WHOLES = (
    ((300,), (17,), (100,)),
    ((40, 50), (3, 7), (20, 33)),
    ((40, 50), (3, 0), (20, 50)),
    ((9, 3000), (2, 129), (5, 2500)),
    ((3, 20_000), (1, 65), (2, 19_001)),
    ((3, 300, 2), (0, 100, 0), (3, 150, 1)),
    ((4, 5, 6, 7), (1, 2, 3, 4), (2, 2, 2, 2)),
    ((4, 5, 6, 7), (0, 2, 0, 0), (4, 3, 6, 7)),
)


@pytest.mark.parametrize(("whole", "origin", "shape"), WHOLES)
def test_a_tile_has_the_bits_of_the_whole(implementation, whole, origin, shape):
    x = numbers(whole, "float32", 1)
    place = tuple(slice(start, start + length) for start, length in zip(origin, shape, strict=True))
    tile = fd.Tile(whole, origin, seed=12, offset=1000)

    for keep_prob, shared in itertools.product((0.0, 77 / 256, 1.0), ((), (0,), (-1,))):
        what, options = f"{keep_prob}, {shared}", {"broadcast_dims": shared}
        y, mask = implementation.relu_dropout(x, keep_prob, rng=fd.Stream(12, 1000), **options)
        part, part_mask = implementation.relu_dropout(x[place], keep_prob, rng=tile, **options)
        assert_identical(part, y[place], what)
        assert_identical(part_mask.to_array(), mask.to_array()[place], what)
        if not shared:
            bits = implementation.keep_mask(shape, keep_prob, rng=tile).to_array()
            every = implementation.keep_mask(whole, keep_prob, rng=fd.Stream(12, 1000)).to_array()
            assert_identical(bits, every[place], what)


def test_large_tiles_do_not_depend_on_threads(isa, threads):
    whole, origin, shape = (500, 1200), (10, 33), (400, 1100)
    x = numbers(shape, "float32", 1)
    expected = reference.keep_mask(whole, 0.9, rng=3).to_array()[10:410, 33:1133]
    for count in (1, 2, 3):
        fd.set_num_threads(count)
        _, mask = fd.dropout(x, 0.9, rng=fd.Tile(whole, origin, seed=3))
        assert_identical(mask.to_array(), expected)


def test_a_tile_of_a_stream():
    stream = fd.Stream(5, offset=70)
    tile = stream.tile((10, 10), (2, 3))
    assert tile == fd.Tile((10, 10), (2, 3), seed=5, offset=70)
    assert stream.offset == 70
    assert repr(tile) == "Tile(shape=(10, 10), origin=(2, 3), seed=5, offset=70)"
    assert hash(tile) == hash(stream.tile((10, 10), (2, 3)))
    assert tile != stream.tile((10, 10), (2, 4))


# --- errors -----------------------------------------------------------------------------------

X = np.ones((2, 3), np.float32)
ERRORS = (
    ("dropout", {"bias": X[0, :2]}, ValueError, r"bias must have .* input's last axis, \(3,\), got \(2,\)"),
    ("dropout", {"bias": np.ones(3)}, TypeError, "bias must have the input's dtype float32, got float64"),
    ("dropout", {"broadcast_dims": 2}, AxisError, "broadcast_dims: axis 2 is out of bounds for array of dim"),
    ("dropout", {"broadcast_dims": (0, -3)}, ValueError, "broadcast_dims: axis -3 is out of bounds"),
    ("dropout", {"broadcast_dims": 2**70}, ValueError, f"broadcast_dims: axis {2**70} is out of bounds"),
    ("dropout", {"broadcast_dims": 0.5}, TypeError, "broadcast_dims must be an int or ints, got 0.5"),
    ("dropout_add", {"residual": X[0]}, ValueError, r"residual must have the input's shape .*, got \(3,\)"),
    ("dropout_add", {"residual": None}, TypeError, "residual must be an array, got None"),
    ("dropout", {"rng": fd.Tile((2, 3), (1, 0), seed=0)}, ValueError, "rng must be a tile"),
    ("dropout", {"rng": fd.Tile((3,), (0,), seed=0)}, ValueError, "rng must be a tile"),
)  # fmt: skip


@pytest.mark.parametrize(("call", "wrong", "error", "message"), ERRORS)
def test_errors_change_nothing(library, call, wrong, error, message):
    stream, out = fd.Stream(1), np.full_like(X, 7)
    with pytest.raises(error, match=message):
        getattr(library, call)(X, keep_prob=0.5, **({"rng": stream, "out": out} | wrong))
    assert stream.offset == 0
    assert np.all(out == 7)


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


def test_a_mask_of_another_shape_is_refused(library):
    with pytest.raises(ValueError, match="saved must have dy's shape"):
        library.dropout_backward(X, fd.keep_mask((1, 2), 0.5))
    with pytest.raises(ValueError, match="bias_grad needs a gradient with at least one axis"):
        library.dropout_backward(X[0, 0], fd.keep_mask((), 0.5), bias_grad=True)
