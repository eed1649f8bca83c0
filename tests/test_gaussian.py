"""Gaussian dropout equals its reference bit for bit, and its normal numbers are normal."""

from __future__ import annotations

import functools
import math
import pickle
import runpy

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import reference
from fastdrop.reference import normals
from support import DATA, DTYPES, assert_identical, at_address, sample

GOLDEN_NORMALS = DATA / "golden_normals.txt"
LENGTHS = [*range(70), 127, 128, 129, 255, 256, 511, 512, 513, 545, 1023, 1024, 1025, 4096, 5001]
OFFSETS = (0, 1, 15, 16, 17, 31, 32, 33, 511, 2**32 - 5, 2**63 + 3, 2**64 - 10_000)
ADDRESSES = (0, 4, 8, 32, 60, 1, 3)  # bytes after a multiple of 64
SEED = 0xFEEDFACE_DEADBEEF_01234567_89ABCDEF


# --- the same bits everywhere -----------------------------------------------------------------


def test_the_reference_keeps_to_the_golden_normals():
    assert GOLDEN_NORMALS.read_text() == runpy.run_path(str(DATA / "make_golden_normals.py"))["golden_text"]()


@functools.cache
def expected_of(length, dtype, keep_prob, offset):
    """Return the result of the reference, which is computed once for all kernels."""
    stream, x = fd.Stream(SEED, offset), sample(length, dtype, seed=length)
    y, noise = reference.gaussian_dropout(x, keep_prob=keep_prob, rng=stream)
    assert noise == fd.GaussianNoise(SEED, offset, (length,), keep_prob=keep_prob)
    assert stream.offset == offset + length
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keep_prob", [2.0**-126, 1e-3, 0.5, 0.9, 1 - 2.0**-53, 1.0])
def test_every_length_offset_and_address(isa, dtype, keep_prob):
    assert fd.cpu.active() == isa
    for n, length in enumerate(LENGTHS):
        offset, address = OFFSETS[n % len(OFFSETS)], ADDRESSES[n % len(ADDRESSES)]
        x = at_address(sample(length, dtype, seed=length), address)
        out = at_address(np.full_like(x, 9), ADDRESSES[n // 2 % len(ADDRESSES)])
        stream = fd.Stream(SEED, offset)
        expected = expected_of(length, dtype, keep_prob, offset)
        y, noise = fd.gaussian_dropout(x, keep_prob=keep_prob, rng=stream, out=out)
        assert y is out
        assert_identical(y, expected, f"{length} from {offset}")
        assert noise == fd.GaussianNoise(SEED, offset, (length,), keep_prob=keep_prob)
        assert stream.offset == offset + length
        assert_identical(fd.gaussian_dropout_backward(x, noise, out=x), expected, "the gradient, in place")


def test_the_noise_of_an_empty_tile_may_begin_where_the_stream_ends(library):
    tile, empty = fd.Tile((0, 3), (0, 0), seed=1, offset=2**64), np.empty((0, 3), np.float32)
    _, noise = library.gaussian_dropout(empty, keep_prob=0.5, rng=tile)
    assert noise.offset == 2**64


def test_chunks_change_nothing(library):
    x, stream = sample(30_001), fd.Stream(8, 3)
    whole, _ = library.gaussian_dropout(x, keep_prob=0.5, rng=fd.Stream(8, 3))
    parts = np.split(x, [1, 33, 5000, 7000, 25_000])
    results = [library.gaussian_dropout(part, keep_prob=0.5, rng=stream)[0] for part in parts]
    assert_identical(np.concatenate(results), whole)


@pytest.mark.parametrize("multiple", [1, 2**30])
def test_blocks_whose_numbers_have_few_bits_in_common(isa, multiple):
    """A call goes past a multiple of 2**16 blocks, each of which has the bits of four elements."""
    for before in (1, 512, 1500):
        offset = 4 * 2**16 * multiple - before
        y, _ = fd.gaussian_dropout(sample(2000), keep_prob=0.5, rng=fd.Stream(SEED, offset))
        assert_identical(y, expected_past_a_multiple(offset), f"from {offset}")


@functools.cache
def expected_past_a_multiple(offset):
    return reference.gaussian_dropout(sample(2000), keep_prob=0.5, rng=fd.Stream(SEED, offset))[0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_dtypes_are_rounded_once(library, dtype):
    x = sample(5000, dtype)
    y, noise = library.gaussian_dropout(x, keep_prob=0.5, rng=2)
    with np.errstate(all="ignore"):
        assert_identical(y, (x.astype(np.float32) * noise.to_array()).astype(dtype))


@pytest.mark.parametrize("shape", [(9, 700), (5, 7, 33), (300,), (2, 3, 4, 5), (64, 1), (1, 4097)])
@pytest.mark.parametrize("offset", [0, 45])
def test_a_tile_has_the_noise_of_the_whole(library, shape, offset):
    whole, _ = library.gaussian_dropout(np.ones(shape, np.float32), keep_prob=0.5, rng=fd.Stream(6, offset))
    generator = np.random.default_rng(len(shape))
    for _ in range(6):
        origin = tuple(int(generator.integers(length)) for length in shape)
        end = tuple(int(generator.integers(first, length + 1)) for first, length in zip(origin, shape))
        block = tuple(slice(*ends) for ends in zip(origin, end))
        ones = np.ones(whole[block].shape, np.float32)
        y, noise = library.gaussian_dropout(ones, keep_prob=0.5, rng=fd.Tile(shape, origin, seed=6, offset=offset))
        assert_identical(y, whole[block].copy(), f"{block}")
        assert_identical(library.gaussian_dropout_backward(ones, noise), y)
        assert_identical(noise.to_array(), y)
        assert pickle.loads(pickle.dumps(noise)) == noise == eval(repr(noise), vars(fd))


# --- what it means ----------------------------------------------------------------------------


def test_keep_prob_1_is_the_identity_and_uses_positions_up(library):
    x, stream = sample(1000), fd.Stream(1)
    y, noise = library.gaussian_dropout(x, keep_prob=1, rng=stream)
    assert_identical(y, x)
    assert np.all(noise.to_array() == 1)
    assert stream.offset == 1000


def test_the_noise_is_the_same_for_every_dtype(library):
    x = np.ones(1000)
    wide, noise = library.gaussian_dropout(x, keep_prob=0.3, rng=4)
    narrow, _ = library.gaussian_dropout(x.astype(np.float32), keep_prob=0.3, rng=4)
    assert_identical(narrow, noise.to_array())
    assert np.array_equal(wide, narrow)


def test_the_noise_does_not_tell_what_dropout_keeps():
    """Both have one seed and position. Their correlation is within four standard deviations of 0."""
    size = 1_000_000
    noise = fd.gaussian_dropout(np.ones(size), keep_prob=0.5, rng=9)[0] - 1
    kept = fd.keep_mask(size, keep_prob=0.5, rng=9).to_array() - 0.5
    assert abs(np.mean(noise * kept)) < 4 * 0.5 / math.sqrt(size)


def test_the_gradient_is_the_noise(library):
    x, dy = sample(1000, "float64"), sample(1000, "float64", seed=1)
    _, noise = library.gaussian_dropout(x, keep_prob=0.6, rng=3)
    with np.errstate(all="ignore"):
        assert_identical(library.gaussian_dropout_backward(dy, noise), dy * noise.to_array())


# --- the normals ------------------------------------------------------------------------------


def test_radius_and_direction_are_accurate():
    """They are compared with float64, at the ends and at random. Half a unit in the last place is 6e-8."""
    ends = np.arange(5000, dtype=np.uint32)
    random = np.random.default_rng(1).integers(0, 2**32, 300_000, np.uint32)
    powers = (1 << np.arange(32, dtype=np.uint32))[:, None] + np.arange(-50, 50).astype(np.uint32)
    root = np.arange(-2000, 2000).astype(np.uint32) + np.uint32(2**32 / math.sqrt(2))
    word = np.concatenate([ends, ~ends, random, powers.ravel(), root])
    below_one = (2.0**32 - 0.5 - word) / 2**32
    exact = np.sqrt(-2 * np.where(word >> 31, np.log1p(-below_one), np.log((word + 0.5) / 2**32)))
    assert np.abs(normals.radius(word) / exact - 1).max() < 1.6e-7

    angle = (word << 2 | 2).view(np.int32) * (math.pi / 2**33)
    cosine = np.where(word >> 31, -1, 1) * np.cos(angle)
    exchanged = (word >> 30 & 1).astype(bool)
    expected = np.where(exchanged, (np.sin(angle), cosine), (cosine, np.sin(angle)))
    assert np.abs(np.array(normals.direction(word)) - expected).max() < 1.1e-7


def test_directions_come_in_opposite_pairs():
    """The mean is exactly 0, because for each word another gives the same with the other sign."""
    word = np.random.default_rng(2).integers(0, 2**32, 10_000, np.uint32)
    cosine, sine = normals.direction(word)
    opposite = word ^ np.uint32(0x80000000) ^ np.uint32(0x3FFFFFFF)  # the other half, and -x for x
    opposite_cosine, opposite_sine = normals.direction(opposite)
    assert np.array_equal(opposite_cosine, -cosine)
    assert np.array_equal(opposite_sine, -sine)


def test_the_tail_reaches_as_far_as_32_bits_do():
    largest = normals.radius(np.zeros(1, np.uint32))
    assert largest == np.float32(math.sqrt(2 * 33 * math.log(2)))


def kolmogorov_smirnov(values: np.ndarray) -> float:
    """Return sqrt(n) times the largest distance of the empirical distribution from the normal one."""
    values = np.sort(values.astype(np.float64))
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in values])
    n = len(values)
    grid = np.arange(n + 1) / n
    return math.sqrt(n) * max(np.max(cdf - grid[:-1]), np.max(grid[1:] - cdf))


def test_the_noise_is_normal():
    """One seed in about 10**7 gives a false alarm: P(K > 2.9) = 2 exp(-2 * 2.9**2). The seeds are fixed."""
    for seed in range(4):
        noise = fd.gaussian_dropout(np.ones(100_000), keep_prob=0.5, rng=seed)[0] - 1  # variance 1
        assert kolmogorov_smirnov(noise) < 2.9
    noise = noise.astype(np.float64)
    for lag in (1, 2, 4, 8, 16, 32, 64, 128):
        for power in (1, 2):  # of the pairs that share a radius, too: squares would show it
            a, b = (part**power - np.mean(part**power) for part in (noise[:-lag], noise[lag:]))
            spread = np.std(a) * np.std(b) / math.sqrt(len(a))
            assert abs(np.mean(a * b)) < 5 * spread, (lag, power)


def test_moments():
    """Each moment is within five standard deviations: a false alarm is one in about a million."""
    n, size = fd.gaussian_dropout(np.ones(2_000_000), keep_prob=0.5, rng=11)[0] - 1, 2_000_000
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(n**power) - mean) < 5 * math.sqrt(variance / size), power
    assert np.mean(np.abs(n) > 4) == pytest.approx(math.erfc(4 / math.sqrt(2)), rel=0.5)


# --- the record -------------------------------------------------------------------------------


def test_a_noise_is_a_few_numbers():
    y, noise = fd.gaussian_dropout(np.ones((300, 40), np.float32), keep_prob=0.25, rng=fd.Stream(7, 5))
    assert repr(noise) == "GaussianNoise(seed=7, offset=5, shape=(300, 40), keep_prob=0.25)"
    assert noise.scale == math.sqrt(3)
    assert (
        noise == fd.GaussianNoise(7, 5, (300, 40), keep_prob=0.25) != fd.GaussianNoise(7, 6, (300, 40), keep_prob=0.25)
    )
    again = pickle.loads(pickle.dumps(noise))
    assert again == noise
    assert_identical(again.to_array(), y)
    assert len(pickle.dumps(noise)) < 300


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ((-1, 0, 3, 0.5), ValueError, r"seed must be in \[0, 2\*\*128\), got -1"),
        ((1, 2**64 + 1, 3, 0.5), ValueError, r"offset must be in \[0, 2\*\*64\]"),
        ((1, 2**64 - 2, 3, 0.5), ValueError, r"offset must leave room for shape \(3,\) before 2\*\*64"),
        ((1, 0, (3, -1), 0.5), ValueError, "shape must have no negative length"),
        ((1, 0, 3, 0.0), ValueError, r"keep_prob must be in \[2\*\*-126, 1\] for Gaussian noise, got 0.0"),
        ((1, 0, 3, "half"), TypeError, "keep_prob must be a real number"),
        ((1, 0, (3, 2), 0.5, (4,)), ValueError, r"strides must have a number for each axis of \(3, 2\)"),
        ((1, 0, (3, 2), 0.5, (0, 1)), ValueError, "strides must give each element noise"),
        ((1, 2**64 - 9, (3, 2), 0.5, (4, 1)), ValueError, "offset must leave room for shape"),
    ],
)
def test_a_noise_that_cannot_be(values, error, message):
    with pytest.raises(error, match=message):
        fd.GaussianNoise(*values[:3], **dict(zip(("keep_prob", "strides"), values[3:])))
