"""Results follow the logical C order, whatever the memory layout is."""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import checks, cpu, reference
from fastdrop.core import dispatch
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
    """Return a field of a packed record, which is neither aligned nor at a multiple of the item's size."""
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
    """Return what every call that reads elements gives for `x`."""
    return {
        "relu_dropout": library.relu_dropout(x, keep_prob=KEEP_PROB, rng=1),
        "dropout": library.dropout(x, keep_prob=KEEP_PROB, rng=1),
        "relu_dropout_backward": library.relu_dropout_backward(x, mask),
        "relu_dropout_backward from the output": library.relu_dropout_backward(
            x, y, keep_prob=KEEP_PROB, mode="inverted"
        ),
        "dropout_backward": library.dropout_backward(x, mask),
        "relu_dropout_predict": library.relu_dropout_predict(x, keep_prob=KEEP_PROB, mode="vanilla"),
        "dropout_predict": library.dropout_predict(x, keep_prob=KEEP_PROB, mode="vanilla"),
    }


@functools.cache
def expected_of(dtype: str) -> dict[str, object]:
    x = cube(dtype)
    y, mask = reference.relu_dropout(x, keep_prob=KEEP_PROB, rng=1)
    return all_calls(reference, x, mask, y)


def assert_all_identical(actual: dict[str, object], expected: dict[str, object]) -> None:
    for name, wanted in expected.items():
        if isinstance(wanted, tuple):
            assert_identical(actual[name][0], wanted[0], name)
            assert actual[name][1] == wanted[1], name
        else:
            assert_identical(actual[name], wanted, name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_nothing(library, layout):
    for dtype in DTYPES:
        x = cube(dtype)
        y, mask = reference.relu_dropout(x, keep_prob=KEEP_PROB, rng=1)
        laid_out, saved = LAYOUTS[layout](x), LAYOUTS[layout](y)
        assert np.array_equal(bit_patterns(laid_out), bit_patterns(x))
        before = laid_out.tobytes()
        assert_all_identical(all_calls(library, laid_out, mask, saved), expected_of(dtype))
        assert laid_out.tobytes() == before


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"read-only"}))
def test_a_result_can_have_any_layout_and_be_the_input(library, layout):
    expected, expected_mask = reference.relu_dropout(cube(), keep_prob=KEEP_PROB, rng=1)
    for x in (cube(), LAYOUTS[layout](cube())):
        out = LAYOUTS[layout](np.full_like(x, 9)) if x.flags.c_contiguous else x
        y, mask = library.relu_dropout(x, keep_prob=KEEP_PROB, rng=1, out=out)
        assert y is out
        assert_identical(y, expected)
        assert mask == expected_mask


# --- sources ----------------------------------------------------------------------------------


def test_memory_maps_can_be_read_and_written(library, tmp_path):
    cube().tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", np.float32, "r", shape=SHAPE)
    out = np.memmap(tmp_path / "y", np.float32, "w+", shape=SHAPE)
    y, mask = library.relu_dropout(x, keep_prob=KEEP_PROB, rng=1, out=out)
    expected, expected_mask = reference.relu_dropout(cube(), keep_prob=KEEP_PROB, rng=1)
    assert y is out
    assert mask == expected_mask
    out.flush()
    assert_identical(np.fromfile(tmp_path / "y", np.float32), expected.ravel())


def test_sequences_and_scalars_are_float64(library):
    y, mask = library.relu_dropout([[1.0, -2.0], [3.0, 4.0]], keep_prob=1.0)
    assert_identical(y, np.array([[1.0, 0.0], [3.0, 4.0]]))
    assert mask.shape == (2, 2)
    assert_identical(library.dropout_predict(2.5, keep_prob=0.5, mode="vanilla"), np.array(1.25))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scalar_of_numpy_is_an_array_without_axes(library, dtype):
    for x in (np.array(2.5, dtype), np.dtype(dtype).type(2.5)):
        y, mask = library.relu_dropout(x, keep_prob=0.5, rng=1)
        expected, expected_mask = reference.relu_dropout(np.array(2.5, dtype), keep_prob=0.5, rng=1)
        assert_identical(y, expected)
        assert mask == expected_mask


def test_more_axes_than_numpys_flat_has(library):
    x = sample(10).reshape((1,) * 40 + (2, 5))
    assert_all_identical(
        {"dropout": library.dropout(x, keep_prob=KEEP_PROB, bias=x[(0,) * 40 + (0,)], broadcast_dims=-2, rng=1)},
        {"dropout": reference.dropout(x, keep_prob=KEEP_PROB, bias=x[(0,) * 40 + (0,)], broadcast_dims=-2, rng=1)},
    )


# --- how arrays reach a kernel ----------------------------------------------------------------


def rows_with_gaps(x: np.ndarray) -> np.ndarray:
    wide = np.full((*x.shape[:-1], x.shape[-1] + 9), np.nan, x.dtype)
    wide[..., 5:-4] = x
    return wide[..., 5:-4]


def rows_backwards(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x[::-1])[::-1]


def swapped_and_transposed(x: np.ndarray) -> np.ndarray:
    return np.asfortranarray(swapped(x))


# Beside each layout and shape are the elements of a piece that a call makes room for. Without pieces, the kernel takes
# the rows as they are.
HANDED_OVER = [
    (rows_with_gaps, (40, 127), 40 * 127),
    (rows_with_gaps, (40, 128), 0),
    (rows_with_gaps, (33, 1001), 0),
    (rows_with_gaps, (3, 9000), 0),
    (rows_with_gaps, (7, 5, 200), 0),
    (rows_backwards, (130, 200), 0),
    (lambda x: x, (130, 200), 0),
    (np.asfortranarray, (15, 70), 15 * 70),
    (np.asfortranarray, (50, 1000), 1 << 14),
    (np.asfortranarray, (48, 2500), 16 * 2500),
    (np.asfortranarray, (20, 5003), 1 << 16),
    (transposed, (20, 30, 40), 1 << 14),
    (swapped_and_transposed, (37, 1001), 1 << 14),
]


@pytest.mark.thread_unsafe
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("lay", "shape", "piece"), HANDED_OVER)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_kernel_takes_rows_and_pieces(isa, lay, shape, piece, streaming):
    fd.set_num_threads(1)
    dispatch.set_streaming_bytes(0 if streaming else 1 << 40)
    try:
        for dtype in DTYPES:
            x = np.random.default_rng(1).standard_normal(shape, np.float32).astype(dtype)
            check_handing_over(x, lay, piece)
    finally:
        dispatch.set_streaming_bytes(cpu._streaming_bytes())


def check_handing_over(x: np.ndarray, lay: Callable[[np.ndarray], np.ndarray], piece: int) -> None:
    y, mask = reference.relu_dropout(x, keep_prob=KEEP_PROB, rng=fd.Stream(1, 77))
    dx, dbias = reference.relu_dropout_backward(x, mask, bias_grad=True)
    for out in (np.zeros_like(x), lay(np.zeros_like(x))):
        out = out.astype(lay(x).dtype) if lay is swapped_and_transposed and out.flags.c_contiguous else out
        kept, drawn = fd.relu_dropout(lay(x), keep_prob=KEEP_PROB, rng=fd.Stream(1, 77), out=out)
        assert_identical(kept.astype(x.dtype), y)
        assert drawn == mask
        back, sums = fd.relu_dropout_backward(lay(x), mask, bias_grad=True, out=out)
        assert_identical(back.astype(x.dtype), dx)
        assert_identical(sums, dbias)
        room = most_memory(functools.partial(fd.relu_dropout_backward, lay(x), mask, out=out))
        assert 0 <= room - 4 * piece * x.itemsize < 2000  # there is room for x, y, saved elements and a residual


def most_memory(call: Callable[[], object]) -> int:
    """Return the bytes that a call has allocated at the same time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rows", [1, 3, 64, 65, 131])
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 40, 1000, 4096, 4097, 9000])
def test_the_order_of_a_columns_sum_is_that_of_its_rows(isa, rows, columns):
    """Numbers of very different size show in which order they were added."""
    generator = np.random.default_rng(rows * columns)
    numbers = generator.standard_normal((rows, columns)) * 10.0 ** generator.integers(0, 30, (rows, columns))
    for dtype in ("float32", "float64"):
        dy = numbers.astype(dtype)
        mask = fd.keep_mask(dy.shape, keep_prob=0.9, rng=1)
        for array in (dy, np.asfortranarray(dy), rows_with_gaps(dy)):
            assert_identical(
                fd.dropout_backward(array, mask, bias_grad=True)[1],
                reference.dropout_backward(dy, mask, bias_grad=True)[1],
            )


# --- dtypes -----------------------------------------------------------------------------------


def test_a_dtype_is_known_by_its_number():
    """Where a long double has 8 bytes, it equals float64, but kernels do not know its number."""

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
    y, _ = library.dropout(x, keep_prob=KEEP_PROB, rng=1)
    assert_identical(y, reference.dropout(cube(), keep_prob=KEEP_PROB, rng=1)[0])
    assert y.dtype.metadata is None
    assert library.dropout(cube(), keep_prob=KEEP_PROB, rng=1, out=x)[0] is x
    assert_identical(x, y)
