"""Every kernel equals the reference, bit for bit.

A case is one call with its arguments. There are far too many combinations, so all lengths are tested, and
for each of them the other choices are drawn by a fixed pseudo-random sequence. One test checks that every
pair of choices occurs. The results of the reference are computed once for all kernels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import reference
from fastdrop.core import dispatch
from fastdrop.reference import decisions
from support import DTYPES, MODES, assert_identical, at_address, bit_patterns, sample

OPERATIONS = (
    "relu_dropout",
    "relu_dropout without a mask",
    "relu_dropout_backward from the mask",
    "relu_dropout_backward from the output",
    "relu_dropout_predict",
    "dropout",
    "dropout without a mask",
    "dropout_backward",
    "dropout_predict",
    "keep_mask",
)
KEEP_PROBS = (
    *(0.0, 5e-324, 2.0**-64, 1e-9, 2.0**-32, 2.0**-11),
    *(0.1, 0.25, 0.5, 0.75, 0.9, 1 - 2.0**-32, 1 - 2.0**-53, 1.0),
    *(1 / 256, 77 / 256, 255 / 256, 0.3179, 0.6180339887498949),
)
OFFSETS = (0, 1, 31, 127, 128, 2**32 - 5, 2**63 + 3, 2**64 - 10_000)
ADDRESSES = (0, 4, 8, 16, 32, 60, 1, 3)  # bytes after a multiple of 64; odd ones hold no element aligned
PLACES = ("a new array", "out=", "in place")
SEEDS = (0, 42, 2**64 - 1, 0xFEEDFACE_DEADBEEF_01234567_89ABCDEF)

EVERY_LENGTH = range(301)
NEAR_BLOCKS = sorted({m + d for m in (384, 512, 1024, 2048, 3072, 8192, 9216) for d in (-1, 0, 1, 63, 65)})
CASES_A_LENGTH = 4


class Case(NamedTuple):
    length: int
    operation: str
    dtype: str
    mode: str
    keep_prob: float
    offset: int
    address: int
    out_address: int
    place: str
    seed: int


CHOICES = (OPERATIONS, DTYPES, MODES, KEEP_PROBS, OFFSETS, ADDRESSES, ADDRESSES, PLACES, SEEDS)


def cases() -> list[Case]:
    generator = np.random.default_rng(2014)  # fixed: every run has the same cases
    lengths = [*EVERY_LENGTH, *NEAR_BLOCKS] * CASES_A_LENGTH
    columns = [[choices[i] for i in generator.integers(0, len(choices), len(lengths))] for choices in CHOICES]
    return [Case(*row) for row in zip(lengths, *columns, strict=True)]


CASES = cases()


def called(library: Any, case: Case) -> tuple[Any, ...]:
    """Return all that a call returns, on arrays at the addresses of the case."""
    name, _, variant = case.operation.partition(" ")
    call = getattr(library, name)
    stream = fd.Stream(case.seed, case.offset)
    if name == "keep_mask":
        return call(case.length, keep_prob=case.keep_prob, rng=stream), stream.offset
    x = at_address(sample(case.length, case.dtype, seed=case.length), case.address)
    fresh = at_address(np.full_like(x, 9), case.out_address)
    out = {"a new array": None, "out=": fresh, "in place": x}[case.place]
    if name.endswith("_predict"):
        y = call(x, keep_prob=case.keep_prob, mode=case.mode, out=out)
    elif name.endswith("_backward"):
        y = call(x, **saved(case, variant), out=out)
    else:
        returned = call(
            x, keep_prob=case.keep_prob, mode=case.mode, rng=stream, out=out,
            return_mask=variant != "without a mask",
        )  # fmt: skip
        y, mask = (returned, None) if variant == "without a mask" else returned
        assert out is None or y is out
        return y, mask, stream.offset
    assert out is None or y is out
    return (y,)


def saved(case: Case, variant: str) -> dict[str, Any]:
    """Return what a backward call reads. Half of it is zero or dropped, and some is NaN and so on."""
    if variant == "from the output":
        y = at_address(sample(case.length, case.dtype, seed=case.length + 1), case.out_address)
        return {"saved": y, "keep_prob": case.keep_prob, "mode": case.mode}
    flags = np.random.default_rng(case.length).random(case.length) < 0.5
    mask = fd.Mask.from_array(flags, keep_prob=case.keep_prob, mode=case.mode)
    return {"saved" if variant else "mask": mask}


@functools.cache
def expected(case: Case) -> tuple[Any, ...]:
    return called(reference, case)


def assert_equal_to_reference(case: Case) -> None:
    anywhere = case._replace(address=0, out_address=0, place="a new array")
    for actual, wanted in zip(called(fd, case), expected(anywhere), strict=True):
        assert_identical(actual, wanted, str(case))


def test_every_pair_of_choices_meets():
    for (i, first), (j, second) in itertools.combinations(enumerate(CHOICES, start=1), 2):
        met = {(case[i], case[j]) for case in CASES}
        missing = set(itertools.product(first, second)) - met
        assert not missing, f"{sorted(map(str, missing))} in columns {i} and {j}"


def test_every_length(isa):
    for case in CASES:
        if case.length in EVERY_LENGTH:
            assert_equal_to_reference(case)


def test_lengths_near_multiples_of_a_block_and_of_a_group(isa):
    for case in CASES:
        if case.length in NEAR_BLOCKS:
            assert_equal_to_reference(case)


@functools.cache
def start_of_a_stream(keep_prob: float) -> np.ndarray:
    return reference.keep_mask(512, keep_prob=keep_prob, rng=5).to_array()


@pytest.mark.parametrize("operation", ["keep_mask", "relu_dropout", "dropout"])
def test_every_offset_in_a_block(isa, operation):
    """Calls at 128 offsets, each across three blocks, give parts of one stream."""
    x = sample(512)
    for keep_prob, offset in itertools.product(KEEP_PROBS, range(128)):
        whole = start_of_a_stream(keep_prob)
        stream, part = fd.Stream(5, offset), x[offset : offset + 300]
        if operation == "keep_mask":
            mask, passed = fd.keep_mask(300, keep_prob=keep_prob, rng=stream), whole[offset : offset + 300]
        else:
            mask = getattr(fd, operation)(part, keep_prob=keep_prob, rng=stream)[1]
            passed = whole[offset : offset + 300] & (~(part <= 0) if operation == "relu_dropout" else True)
        assert np.array_equal(mask.to_array(), passed), (keep_prob, offset)


# Of the numbers of blocks that are drawn together, the low 16 bits may differ.
BLOCKS_IN_COMMON = 2**16


@functools.cache
def around_a_multiple(keep_prob: float, offset: int) -> np.ndarray:
    return reference.keep_mask(12_000, keep_prob=keep_prob, rng=fd.Stream(6, offset)).to_array()


@pytest.mark.parametrize("multiple", [1, 2**20])
@pytest.mark.parametrize("keep_prob", [0.25, 0.375, 0.9])
def test_blocks_whose_numbers_have_few_bits_in_common(isa, keep_prob, multiple):
    """Calls go past a multiple of 2**16 blocks, and rows of a tile lie on both sides of one."""
    boundary = 128 * BLOCKS_IN_COMMON * multiple
    for before in (5000, 4096 + 128, 128, 1):
        stream = fd.Stream(6, boundary - before)
        mask = fd.keep_mask(12_000, keep_prob=keep_prob, rng=stream)
        assert np.array_equal(mask.to_array(), around_a_multiple(keep_prob, boundary - before)), before
    tile = fd.Tile((20, 128 * BLOCKS_IN_COMMON), (0, 77), seed=6, offset=boundary)
    rows = fd.keep_mask((20, 300), keep_prob=keep_prob, rng=tile)
    for n, row in enumerate(rows.to_array()):
        alone = fd.Tile((20, 128 * BLOCKS_IN_COMMON), (n, 77), seed=6, offset=boundary)
        assert np.array_equal(row, fd.keep_mask((1, 300), keep_prob=keep_prob, rng=alone).to_array()[0]), n


@functools.cache
def uniforms(seed: int, count: int) -> list[int]:
    """Return U of the first `count` elements, as integers."""
    blocks = np.arange(-(-count // decisions.BLOCK), dtype=np.uint64)
    total = np.zeros(len(blocks) * decisions.BLOCK, np.uint64)
    for j in range(64):
        bits = np.unpackbits(decisions.plane(seed, blocks, j), bitorder="little")
        total |= bits.astype(np.uint64) << np.uint64(63 - j)
    return [int(value) for value in total[:count]]


def significant_bits(value: int) -> int:
    return (value // (value & -value)).bit_length()


@pytest.mark.parametrize("seed", [1, 2**64 + 3])
def test_an_element_whose_uniform_is_the_threshold_is_dropped(implementation, seed):
    """The uniforms of a stream that a float64 holds exactly are ties down to the last plane."""
    count = 30_000
    tied = [(n, u) for n, u in enumerate(uniforms(seed, count)) if u and significant_bits(u) <= 53]
    assert len(tied) > 50
    assert any(u % 2 for _, u in tied), "no threshold whose last bit is set"
    for n, u in tied if implementation is fd else tied[::8]:  # the reference takes its time for each
        keep_prob = u / 2**64
        dropped = implementation.keep_mask(1, keep_prob=keep_prob, rng=fd.Stream(seed, n))
        above = max(np.nextafter(keep_prob, 1.0), (u + 1) / 2**64)
        kept = implementation.keep_mask(1, keep_prob=above, rng=fd.Stream(seed, n))
        assert (dropped.to_array().item(), kept.to_array().item()) == (False, True), (n, hex(u))


@pytest.fixture
def bypassing() -> Iterator[None]:
    """Let results of any size bypass the cache, as only large ones do otherwise."""
    dispatch.set_streaming_bytes(0)
    yield
    dispatch.set_streaming_bytes(fd.cpu._streaming_bytes())


@pytest.mark.usefixtures("bypassing")
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_that_bypass_the_cache(isa, dtype):
    """Such stores are aligned, so the elements before the first cache line are a case of their own."""
    stretches = ((0, 1025), (1, 2047), (127, 5000), (2**32 - 5, 8192), (64, 20_003))
    operations = ("relu_dropout", "dropout", "dropout_backward", "relu_dropout_predict")
    addresses = (0, 4, 8, 16, 20, 32, 60, 63, 1)
    for (offset, length), operation, address in itertools.product(stretches, operations, addresses):
        where = Case(length, operation, dtype, "inverted", 0.8, offset, 4, address, "out=", 3)
        assert_equal_to_reference(where)
        assert_equal_to_reference(where._replace(address=address, place="in place"))


# --- special values ---------------------------------------------------------------------------

# The reference and one kernel are enough here: the tests above compare all kernels, on such values too.

SPECIAL = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-310, 1.0, -1.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dropped_element_is_plus_zero_whatever_it_was(library, dtype):
    x = np.repeat(SPECIAL, 64).astype(dtype)
    for keep_prob, call in itertools.product((0.0, 0.3, 1.0), (library.relu_dropout, library.dropout)):
        y, mask = call(x, keep_prob=keep_prob, rng=1)
        assert np.all(bit_patterns(y[~mask.to_array()]) == 0)
        dx = library.relu_dropout_backward(x, mask)
        assert np.all(bit_patterns(dx[~mask.to_array()]) == 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_of_special_values(library, dtype):
    x = SPECIAL.astype(dtype)
    y = library.relu_dropout_predict(x, keep_prob=0.5)
    assert np.isnan(y[:2]).all()
    assert y[2] == np.inf
    with np.errstate(invalid="ignore"):
        negative = x <= 0
    assert np.all(bit_patterns(y[negative]) == 0)
    kept, mask = library.relu_dropout(x, keep_prob=1.0)
    assert_identical(kept, y)
    assert np.array_equal(mask.to_array(), ~negative)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_is_rounded_once(library, dtype):
    """The scale is dtype(1 / keep_prob). Elements are multiplied in the dtype, short ones in float32."""
    x = np.abs(np.random.default_rng(0).standard_normal(5000)).astype(dtype)
    for keep_prob in (0.1, 0.3, 0.7, 0.9, 1 - 2.0**-53):
        y, mask = library.relu_dropout(x, keep_prob=keep_prob, rng=1)
        arithmetic = np.float64 if dtype == "float64" else np.float32
        expected = np.where(mask.to_array(), x.astype(arithmetic) * arithmetic(1 / keep_prob), 0)
        assert_identical(y, expected.astype(dtype))
        vanilla, _ = library.relu_dropout(x, keep_prob=keep_prob, rng=1, mode="vanilla")
        assert_identical(vanilla, np.where(mask.to_array(), x, np.dtype(dtype).type(0)))
        predicted = library.relu_dropout_predict(x, keep_prob=keep_prob, mode="vanilla")
        assert_identical(predicted, (x.astype(arithmetic) * arithmetic(keep_prob)).astype(dtype))
        assert_identical(library.relu_dropout_predict(x, keep_prob=keep_prob), x)
