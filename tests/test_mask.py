"""A Mask has one bit per element, in the order of numpy.packbits(..., bitorder="little")."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import reference
from support import assert_identical

SHAPES = [(), (0,), (3, 0), (1,), (7,), (8,), (9,), (2, 3, 5), (1001,)]


def flags(shape) -> np.ndarray:
    return np.random.default_rng(1).random(shape) < 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back(shape):
    array = flags(shape)
    mask = fd.Mask.from_array(array, keep_prob=0.25, mode="vanilla")
    assert mask.to_array().dtype == np.bool_
    assert np.array_equal(mask.to_array(), array)
    assert (mask.shape, mask.size, mask.keep_prob, mask.mode) == (shape, np.size(array), 0.25, "vanilla")
    assert mask.bits.dtype == np.uint8
    assert mask.nbytes == mask.bits.nbytes == (mask.size + 7) // 8
    assert np.array_equal(mask.bits, np.packbits(array, axis=None, bitorder="little"))
    assert mask == fd.Mask(mask.bits, shape, keep_prob=0.25, mode="vanilla")


def test_the_bit_folds_the_relu_in(library):
    x = np.array([1.0, -1.0, 0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324] * 100)
    kept = library.dropout(x, keep_prob=0.7, rng=3)[1].to_array()
    passed = library.relu_dropout(x, keep_prob=0.7, rng=3)[1].to_array()
    assert np.array_equal(passed, kept & ~(x <= 0))
    assert passed[np.isnan(x)].any()


def test_an_int_is_a_shape_of_one_axis(library):
    assert library.keep_mask(12, keep_prob=0.5, rng=1) == library.keep_mask((12,), keep_prob=0.5, rng=1)
    assert library.keep_mask((), keep_prob=0.5, rng=1).shape == ()


@pytest.mark.parametrize(
    ("keep_prob", "mode", "scale"),
    [(0.5, "inverted", 2), (0.5, "vanilla", 1), (0, "inverted", 0), (0, "vanilla", 1), (1, "inverted", 1)],
)
def test_scale(keep_prob, mode, scale):
    assert fd.Mask.from_array(flags(3), keep_prob=keep_prob, mode=mode).scale == scale


def test_equality():
    array = flags(20)
    mask = fd.Mask.from_array(array, keep_prob=0.5)
    assert mask == fd.Mask.from_array(array, keep_prob=0.5)
    assert mask != fd.Mask.from_array(~array, keep_prob=0.5)
    assert mask != fd.Mask.from_array(array.reshape(4, 5), keep_prob=0.5)
    assert mask != fd.Mask.from_array(array, keep_prob=0.6)
    assert mask != fd.Mask.from_array(array, keep_prob=0.5, mode="vanilla")
    assert mask != array.tolist()
    with pytest.raises(TypeError, match="unhashable"):
        hash(mask)


def test_repr_is_short(library):
    mask = library.keep_mask((1000, 1000), keep_prob=0.9, rng=42)
    count = np.count_nonzero(mask.to_array())
    shown = f"{count} of 1000000 kept, 10 % dropped"
    assert repr(mask) == f"Mask(shape=(1000, 1000), keep_prob=0.9, mode='inverted', {shown})"
    assert repr(fd.keep_mask(0, keep_prob=0.5)).endswith("0 of 0 kept)")


BITS = np.zeros(2, np.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((BITS.tolist(), 9, 0.5), TypeError, "bits must be an array of dtype uint8, got list"),
        ((BITS.astype(np.int8), 9, 0.5), TypeError, "bits must be an array of dtype uint8, got int8"),
        ((BITS, 17, 0.5), ValueError, "bits must have shape (3,) for 17 elements, got (2,)"),
        ((BITS, 8, 0.5), ValueError, "bits must have shape (1,) for 8 elements, got (2,)"),
        ((BITS.reshape(1, 2), 9, 0.5), ValueError, "bits must have shape (2,) for 9 elements, got (1, 2)"),
        ((BITS + 2, 9, 0.5), ValueError, "bits past the last of 9 elements must be zero, got 0x02"),
        ((BITS, (3, -3), 0.5), ValueError, "shape must have no negative length, got (3, -3)"),
        ((BITS, 9.0, 0.5), TypeError, "shape must be an int, got 9.0"),
        ((BITS, 9, 1.5), ValueError, "keep_prob must be in [0, 1], got 1.5"),
        ((BITS, 9, 0.5, "upscale"), ValueError, "mode must be 'inverted' or 'vanilla' or 'alpha', got"),
    ],
)
def test_what_a_mask_cannot_be(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        fd.Mask(*arguments[:2], **dict(zip(("keep_prob", "mode"), arguments[2:])))


FLAGS = np.array([[True, False, True], [False, False, True]])
MASK = fd.Mask.from_array(FLAGS, keep_prob=0.5)


def test_numpy_sees_a_bool_array():
    assert np.asarray(MASK).dtype == np.bool_
    assert np.array_equal(MASK, FLAGS)
    assert np.asarray(MASK, np.float32).tolist() == FLAGS.astype(np.float32).tolist()
    assert np.array(MASK).flags.writeable
    with pytest.raises(ValueError, match="copy must not be False"):
        np.asarray(MASK, copy=False)
    assert np.arange(6).reshape(2, 3)[MASK].tolist() == [0, 2, 5]
    assert np.count_nonzero(MASK) == MASK.kept == 3


def test_length_indices_and_iteration():
    assert len(MASK) == 2
    assert MASK[0].tolist() == [True, False, True]
    assert MASK[1, 2]
    assert MASK[:, :1].shape == (2, 1)
    assert [row.tolist() for row in MASK] == FLAGS.tolist()
    with pytest.raises(TypeError, match="one of shape"):
        len(fd.keep_mask((), keep_prob=0.5))
    with pytest.raises(TypeError):
        MASK[0] = True
    with pytest.raises(ValueError, match="a Mask has no truth value"):
        bool(MASK)


def test_sets_of_elements_are_bool_arrays():
    other = ~FLAGS.T.reshape(2, 3)
    assert np.array_equal(~MASK, ~FLAGS)
    for second in (other, fd.Mask.from_array(other, keep_prob=0.7)):
        assert np.array_equal(MASK & second, FLAGS & other)
        assert np.array_equal(MASK | second, FLAGS | other)
    assert np.array_equal(other & MASK, FLAGS & other)
    assert np.array_equal(other | MASK, FLAGS | other)
    assert type(MASK & MASK) is np.ndarray
    for wrong in (1, FLAGS.astype(int), None):
        with pytest.raises(TypeError, match="combines with a Mask or a bool array"):
            MASK & wrong


def test_a_product_says_what_to_use():
    x = np.ones((2, 3))
    for product in (lambda: MASK * x, lambda: x * MASK, lambda: MASK * 2, lambda: 2.0 * MASK):
        with pytest.raises(TypeError, match=r"use dropout_backward\(x, mask\), which scales, or mask.to_array"):
            product()
    for ufunc in (np.multiply, np.add, np.logical_and):
        with pytest.raises(TypeError, match="Mask"):
            ufunc(x, MASK)


def test_the_number_of_kept_elements():
    for shape in SHAPES:
        mask = fd.keep_mask(shape, keep_prob=0.5, rng=3)
        assert mask.kept == np.count_nonzero(mask.to_array())
        assert type(mask.kept) is int


def test_flags_have_to_be_bool():
    with pytest.raises(TypeError, match="array must have dtype bool, got int64"):
        fd.Mask.from_array(np.ones(3, np.int64), keep_prob=0.5)


@pytest.mark.parametrize("length", [2, 3, 7, 16, 31, 63, 64, 65, 129, 511])
def test_a_decision_on_a_stretch_is_on_each_of_its_elements(length):
    x = np.ones((300, length), np.float32)
    y, mask = fd.dropout(x, keep_prob=0.5, rng=1, broadcast_dims=1)
    assert_identical(y, np.broadcast_to(y[:, :1], x.shape).copy())
    assert_identical(fd.dropout_backward(x, mask), y)
    assert_identical(y, reference.dropout(x, keep_prob=0.5, rng=1, broadcast_dims=1)[0])


# --- masks that are of something else ---------------------------------------------------------


@pytest.mark.parametrize("other", [np.ones(4, bool), np.zeros(4, np.float32), True, np.False_])
def test_a_mask_is_not_compared_with_an_array(other):
    mask = fd.keep_mask(4, keep_prob=0.5, rng=1)
    for compare in (lambda: mask == other, lambda: mask != other, lambda: other == mask):
        with pytest.raises(TypeError, match=r"compare its elements by mask\.to_array\(\)"):
            compare()
    assert mask != None  # noqa: E711
    assert mask != "mask"


@pytest.mark.parametrize("library", [fd, fd.reference])
def test_a_gradient_takes_no_mask_that_scales_otherwise(library):
    x = np.ones(64, np.float32)
    _, alpha = library.alpha_dropout(x, keep_prob=0.5, rng=1)
    _, mask = library.dropout(x, keep_prob=0.5, rng=1)
    for call in (library.dropout_backward, library.dropout_add_backward, library.relu_dropout_backward):
        with pytest.raises(ValueError, match="no mask of alpha_dropout"):
            call(x, alpha)
    with pytest.raises(ValueError, match="mask must be the mask of alpha_dropout, got one with mode 'inverted'"):
        library.alpha_dropout_backward(x, mask)


@pytest.mark.parametrize("library", [fd, fd.reference])
def test_a_relu_has_a_decision_for_each_element_of_its_gradient(library):
    _, mask = library.relu_dropout(np.ones((1, 64), np.float32), keep_prob=0.5, rng=1)
    with pytest.raises(ValueError, match=r"saved must have dy's shape \(8, 64\), got \(1, 64\)"):
        library.relu_dropout_backward(np.ones((8, 64), np.float32), mask)
