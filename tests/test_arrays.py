"""Memory layouts: results follow the logical C order, whatever lies beneath."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import fastdrop as fd
from fastdrop import checks, reference
from support import DTYPES, assert_identical, at_address, bit_patterns, sample

KEEP_PROB = 0.7
SHAPE = (6, 7, 50)


def cube(dtype: str = "float32") -> np.ndarray:
    return sample(6 * 7 * 50, dtype, seed=3).reshape(SHAPE)


def swapped(x: np.ndarray) -> np.ndarray:
    return x.astype(x.dtype.newbyteorder())


def gapped(x: np.ndarray) -> np.ndarray:
    wide = np.full((*x.shape[:-1], 3 * x.shape[-1]), np.nan, x.dtype)
    wide[..., 1::3] = x
    return wide[..., 1::3]


def reversed_in_memory(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1]


def packed_record(x: np.ndarray) -> np.ndarray:
    """A field of a packed record: neither aligned nor at a multiple of the item's size."""
    records = np.zeros(x.shape, [("flag", np.uint8), ("value", x.dtype), ("more", np.uint16)])
    records["value"] = x
    return records["value"]


def read_only(x: np.ndarray) -> np.ndarray:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def transposed(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "transposed": transposed,
    "gaps": gapped,
    "reversed": reversed_in_memory,
    "other byte order": swapped,
    "other byte order, gaps": lambda x: gapped(swapped(x)),
    "packed record": packed_record,
    "read-only": read_only,
    "unaligned": lambda x: at_address(x, 1),
    "half a line on": lambda x: at_address(x, 32 + x.itemsize),
    "nested lists' array": lambda x: np.array(x.tolist(), x.dtype),
}


def all_calls(library, x: np.ndarray, mask: fd.Mask, y: np.ndarray) -> dict[str, object]:
    """Every call that reads elements, and what it gives for `x`."""
    return {
        "relu_dropout": library.relu_dropout(x, KEEP_PROB, rng=1),
        "dropout": library.dropout(x, KEEP_PROB, rng=1),
        "relu_dropout_backward": library.relu_dropout_backward(x, mask),
        "relu_dropout_backward from the output": library.relu_dropout_backward(
            x, y, keep_prob=KEEP_PROB, mode="inverted"
        ),
        "dropout_backward": library.dropout_backward(x, mask),
        "relu_dropout_predict": library.relu_dropout_predict(x, KEEP_PROB, mode="vanilla"),
        "dropout_predict": library.dropout_predict(x, KEEP_PROB, mode="vanilla"),
    }


@functools.cache
def expected_of(dtype: str) -> dict[str, object]:
    x = cube(dtype)
    y, mask = reference.relu_dropout(x, KEEP_PROB, rng=1)
    return all_calls(reference, x, mask, y)


def assert_all_identical(actual: dict[str, object], expected: dict[str, object]) -> None:
    for name, wanted in expected.items():
        if isinstance(wanted, tuple):
            assert_identical(actual[name][0], wanted[0], name)
            assert actual[name][1] == wanted[1], name
        else:
            assert_identical(actual[name], wanted, name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_nothing(implementation, layout):
    for dtype in DTYPES:
        x = cube(dtype)
        y, mask = reference.relu_dropout(x, KEEP_PROB, rng=1)
        laid_out, saved = LAYOUTS[layout](x), LAYOUTS[layout](y)
        assert np.array_equal(bit_patterns(laid_out), bit_patterns(x))
        before = laid_out.tobytes()
        assert_all_identical(all_calls(implementation, laid_out, mask, saved), expected_of(dtype))
        assert laid_out.tobytes() == before


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"read-only"}))
def test_a_result_can_have_any_layout(library, layout):
    x = cube()
    expected, expected_mask = reference.relu_dropout(x, KEEP_PROB, rng=1)
    out = LAYOUTS[layout](np.full_like(x, 9))
    y, mask = library.relu_dropout(x, KEEP_PROB, rng=1, out=out)
    assert y is out
    assert_identical(y, expected)
    assert mask == expected_mask
    assert library.relu_dropout_backward(x, mask, out=out) is out
    assert_identical(out, reference.relu_dropout_backward(x, mask))


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"read-only"}))
def test_in_place(library, layout):
    for name in ("relu_dropout", "dropout"):
        x = LAYOUTS[layout](cube())
        expected, expected_mask = getattr(reference, name)(cube(), KEEP_PROB, rng=1)
        y, mask = getattr(library, name)(x, KEEP_PROB, rng=1, out=x)
        assert y is x
        assert_identical(y, expected)
        assert mask == expected_mask
        assert_identical(
            library.relu_dropout_backward(x, mask, out=x), reference.relu_dropout_backward(expected, mask)
        )


def test_results_are_new_native_arrays_in_c_order(library):
    for layout in LAYOUTS.values():
        y, _ = library.relu_dropout(layout(cube()), KEEP_PROB, rng=1)
        assert type(y) is np.ndarray
        assert y.dtype == np.float32
        assert y.dtype.isnative
        assert y.flags.c_contiguous
        assert y.flags.writeable


# --- broadcasting -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 50), (1, 7), (5, 1), (3, 0)])
def test_zero_strides_are_read_as_their_copy(library, shape):
    for x in (np.broadcast_to(np.float32(3.5), shape), np.broadcast_to(sample(shape[1]), shape)):
        for name in ("relu_dropout", "dropout"):
            y, mask = getattr(library, name)(x, KEEP_PROB, rng=2)
            expected, expected_mask = getattr(reference, name)(x.copy(), KEEP_PROB, rng=2)
            assert_identical(y, expected)
            assert mask == expected_mask
            assert_identical(
                library.dropout_backward(x, mask), reference.dropout_backward(x.copy(), expected_mask)
            )


def test_a_gradient_of_ones_that_is_one_number(library):
    """What `sum().backward()` hands down: a broadcast 1."""
    mask = library.keep_mask((300, 20), 0.5, rng=1)
    dx = library.dropout_backward(np.broadcast_to(np.float32(1), (300, 20)), mask)
    assert np.array_equal(dx, np.where(mask.to_array(), np.float32(2), np.float32(0)))


# --- overlap ----------------------------------------------------------------------------------

OVERLAPS = {
    "shifted forwards": lambda a: (a[:-3], a[3:]),
    "shifted backwards": lambda a: (a[3:], a[:-3]),
    "by one element": lambda a: (a[:-1], a[1:]),
    "reversed": lambda a: (a, a[::-1]),
    "half": lambda a: (a[: a.size // 2], a[a.size // 4 : a.size // 4 + a.size // 2]),
    "every other": lambda a: (a[: a.size // 2], a[0 : 2 * (a.size // 2) : 2]),
    "transposed": lambda a: (a[:900].reshape(30, 30), a[:900].reshape(30, 30).T),
}


@pytest.mark.parametrize("size", [1200, 40_000])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_overlapping_is_as_if_apart(library, overlap, size):
    def arrays():
        return OVERLAPS[overlap](sample(size, seed=4))

    x, _ = arrays()
    expected, expected_mask = reference.relu_dropout(x.copy(), KEEP_PROB, rng=1)
    x, out = arrays()
    y, mask = library.relu_dropout(x, KEEP_PROB, rng=1, out=out)
    assert y is out
    assert_identical(y, expected)
    assert mask == expected_mask

    for name in ("dropout_backward", "relu_dropout_backward"):
        dy, out = arrays()
        wanted = getattr(reference, name)(dy.copy(), mask)
        assert_identical(getattr(library, name)(dy, mask, out=out), wanted)

    x, out = arrays()
    wanted = reference.relu_dropout_predict(x.copy(), KEEP_PROB, mode="vanilla")
    assert_identical(library.relu_dropout_predict(x, KEEP_PROB, mode="vanilla", out=out), wanted)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_out_may_overlap_the_saved_output(library, overlap):
    y, out = OVERLAPS[overlap](sample(1200, seed=5))
    dy = sample(1200, seed=6)[: y.size].reshape(y.shape)
    wanted = reference.relu_dropout_backward(dy, y.copy(), keep_prob=0.5, mode="inverted")
    dx = library.relu_dropout_backward(dy, y, keep_prob=0.5, mode="inverted", out=out)
    assert dx is out
    assert_identical(dx, wanted)


def test_out_may_be_the_saved_output(library):
    y, dy = sample(1000, seed=5), sample(1000, seed=6)
    wanted = reference.relu_dropout_backward(dy, y.copy(), keep_prob=0.5, mode="inverted")
    assert_identical(library.relu_dropout_backward(dy, y, keep_prob=0.5, mode="inverted", out=y), wanted)


def test_out_may_be_the_bits_of_the_mask(library):
    """The mask's own bytes, seen as elements: absurd, and still as if they were apart."""
    buffer = np.zeros(6400, np.float32)
    bits = buffer.view(np.uint8)[100:900]
    bits[:] = 0b10110110
    mask = fd.Mask(bits, 6400, 0.5)
    dy = sample(6400, seed=7)
    wanted = reference.dropout_backward(dy, fd.Mask(bits.copy(), 6400, 0.5))
    assert_identical(library.dropout_backward(dy, mask, out=buffer), wanted)


# --- sources ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_read_only_memory_map(library, dtype, tmp_path):
    x = cube(dtype)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", dtype, "r", shape=SHAPE)
    y, mask = library.relu_dropout(mapped, KEEP_PROB, rng=1)
    expected, expected_mask = reference.relu_dropout(x, KEEP_PROB, rng=1)
    assert_identical(np.asarray(y), expected)
    assert mask == expected_mask


def test_a_memory_map_can_be_written(library, tmp_path):
    x = cube()
    mapped = np.memmap(tmp_path / "y", np.float32, "w+", shape=SHAPE)
    y, _ = library.relu_dropout(x, KEEP_PROB, rng=1, out=mapped)
    assert y is mapped
    mapped.flush()
    expected, _ = reference.relu_dropout(x, KEEP_PROB, rng=1)
    assert_identical(np.fromfile(tmp_path / "y", np.float32), expected.ravel())


def test_sequences_and_scalars_are_float64(library):
    y, mask = library.relu_dropout([[1.0, -2.0], [3.0, 4.0]], 1.0)
    assert_identical(y, np.array([[1.0, 0.0], [3.0, 4.0]]))
    assert mask.shape == (2, 2)
    assert_identical(library.dropout_predict(2.5, 0.5, mode="vanilla"), np.array(1.25))


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_dimensions(library, dtype):
    for x in (np.array(2.5, dtype), np.dtype(dtype).type(2.5)):
        for seed in range(4):
            y, mask = library.relu_dropout(x, 0.5, rng=seed)
            expected, expected_mask = reference.relu_dropout(x, 0.5, rng=seed)
            assert_identical(y, expected)
            assert mask == expected_mask
            assert_identical(library.dropout_backward(x, mask), reference.dropout_backward(x, mask))
    out = np.array(9, dtype)
    y, _ = library.dropout(np.array(2.5, dtype), 1.0, out=out)
    assert y is out
    assert out == 2.5


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_empty(library, shape, dtype):
    x = np.empty(shape, dtype)
    mask = library.keep_mask(shape, 0.5, rng=1)
    assert mask.nbytes == 0
    expected = all_calls(reference, x, mask, x)
    assert_all_identical(all_calls(library, x, mask, x), expected)
    assert library.relu_dropout(x, 0.5, out=x)[0] is x


def test_thirty_two_axes(library):
    x = sample(2**10).reshape((2, 1, 1) * 10 + (1, 1))
    assert_all_identical(
        {"dropout": library.dropout(x[..., ::-1], KEEP_PROB, rng=1)},
        {"dropout": reference.dropout(x, KEEP_PROB, rng=1)},
    )


def test_more_axes_than_numpys_flat_has(library):
    x = sample(10).reshape((1,) * 40 + (2, 5))
    assert_all_identical(
        {"dropout": library.dropout(x, KEEP_PROB, bias=x[(0,) * 40 + (0,)], broadcast_dims=-2, rng=1)},
        {"dropout": reference.dropout(x, KEEP_PROB, bias=x[(0,) * 40 + (0,)], broadcast_dims=-2, rng=1)},
    )


def test_windows_that_share_elements_can_be_read(library):
    x = as_strided(sample(1000), (900, 100), (4, 4), writeable=False)
    y, mask = library.relu_dropout(x, KEEP_PROB, rng=3)
    expected, expected_mask = reference.relu_dropout(x.copy(), KEEP_PROB, rng=3)
    assert_identical(y, expected)
    assert mask == expected_mask


# --- subclasses that lie ----------------------------------------------------------------------


class Liar(np.ndarray):
    """A subclass whose attributes, but not its memory, are what a call would accept."""

    dtype = property(lambda self: np.dtype(np.float32))
    shape = property(lambda self: (3, 4))
    strides = property(lambda self: (16, 4))
    ndim = property(lambda self: 2)
    size = property(lambda self: 12)
    flags = property(lambda self: np.empty((3, 4), np.float32).flags)


def frozen(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    ("truth", "error", "expected"),
    [
        (np.zeros((3, 4), np.float16), TypeError, "the input's dtype float32, got float16"),
        (np.zeros((3, 3), np.float32), ValueError, r"the input's shape \(3, 4\), got \(3, 3\)"),
        (np.zeros((), np.float32), ValueError, r"the input's shape \(3, 4\), got \(\)"),
        (frozen(np.zeros((3, 4), np.float32)), ValueError, "out must be writable"),
        (as_strided(np.zeros(6, np.float32), (3, 4), (4, 4)), ValueError, "out must have a place of its own"),
    ],
    ids=["dtype", "shape", "axes", "writable", "strides"],
)
def test_an_out_that_lies_is_refused(library, truth, error, expected):
    x, mask = np.ones((3, 4), np.float32), fd.keep_mask((3, 4), 0.5, rng=1)
    _, noise = fd.gaussian_dropout(x, 0.5, rng=1)
    out, stream = truth.view(Liar), fd.Stream(1)
    calls = [
        lambda: library.dropout(x, 0.5, rng=stream, out=out),
        lambda: library.gaussian_dropout(x, 0.5, rng=stream, out=out),
        lambda: library.dropout_predict(x, 0.5, out=out),
        lambda: library.dropout_backward(x, mask, out=out),
        lambda: library.gaussian_dropout_backward(x, noise, out=out),
    ]
    for call in calls:
        with pytest.raises(error, match=expected):
            call()
    assert not truth.any()
    assert stream.offset == 0


def test_an_input_that_lies_is_what_lies_in_memory(library):
    truth = sample(10, seed=8).reshape(2, 5)
    mask, bias, residual = (
        fd.keep_mask((2, 5), 0.5, rng=1),
        sample(5, seed=9),
        sample(10, seed=10).reshape(2, 5),
    )
    actual = library.dropout_add(truth.view(Liar), residual.view(Liar), 0.5, bias=bias.view(Liar), rng=1)
    expected = reference.dropout_add(truth, residual, 0.5, bias=bias, rng=1)
    assert_all_identical({"dropout_add": actual}, {"dropout_add": expected})
    actual = all_calls(library, truth.view(Liar), mask, residual.view(Liar))
    assert_all_identical(actual, all_calls(reference, truth, mask, residual))


def test_an_out_of_a_subclass_is_what_is_returned(library):
    class Kind(np.ndarray):
        pass

    x, mask = cube(), fd.keep_mask(SHAPE, 0.5, rng=1)
    _, noise = fd.gaussian_dropout(x, 0.5, rng=1)
    out = np.empty_like(x).view(Kind)
    assert library.dropout(x, 0.5, out=out)[0] is out
    assert library.dropout_add(x, x, 0.5, out=out)[0] is out
    assert library.gaussian_dropout(x, 0.5, out=out)[0] is out
    assert library.dropout_predict(x, 0.5, out=out) is out
    assert library.dropout_backward(x, mask, out=out) is out
    assert library.gaussian_dropout_backward(x, noise, out=out) is out
    dx, dbias = library.dropout_backward(x, mask, bias_grad=True, out=out)
    assert dx is out
    assert type(dbias) is np.ndarray


# --- dtypes -----------------------------------------------------------------------------------


def test_a_dtype_is_known_by_its_number():
    """Where a long double has 8 bytes, it equals float64, and kernels do not know its number."""

    class LongDouble:
        num, char, type = np.dtype(np.longdouble).num, "g", np.longdouble

        def __eq__(self, other):
            return other == np.float64

    assert not checks.is_supported(LongDouble())
    for dtype in DTYPES:
        assert checks.is_supported(np.dtype(dtype))
        assert checks.is_supported(np.dtype(dtype).newbyteorder())
    with pytest.raises(TypeError, match="got longdouble"):
        checks.elements("x", np.ones(3, np.longdouble))
    with pytest.raises(TypeError, match="out must have the input's dtype float64, got longdouble"):
        checks.result(np.ones(3, np.longdouble), np.ones(3))


def test_metadata_of_a_dtype_means_nothing(library):
    x = cube().astype(np.dtype(np.float32, metadata={"unit": "m"}))
    y, _ = library.dropout(x, KEEP_PROB, rng=1)
    assert_identical(y, reference.dropout(cube(), KEEP_PROB, rng=1)[0])
    assert y.dtype.metadata is None
    assert library.dropout(cube(), KEEP_PROB, rng=1, out=x)[0] is x
    assert_identical(x, y)
