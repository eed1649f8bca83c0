"""Every length 0..300 at every address of an element within 64 bytes: nothing beside the result changes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import fastdrop as fd
from support import sample

LENGTHS = range(301)
AROUND = 64  # bytes beside the result that have to stay as they are
CANARY = 0xA5


def placed(memory: np.ndarray, remainder: int, length: int, dtype: np.dtype) -> np.ndarray:
    """`length` elements of `memory` that begin `remainder` bytes after a multiple of 64."""
    start = -memory.ctypes.data % 64 + AROUND + remainder
    return memory[start : start + length * dtype.itemsize].view(dtype)


def untouched(memory: np.ndarray, array: np.ndarray) -> bool:
    """Whether all of `memory` but `array` still has the canary."""
    start = array.ctypes.data - memory.ctypes.data
    return bool((memory[:start] == CANARY).all() and (memory[start + array.nbytes :] == CANARY).all())


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ml_dtypes.bfloat16])
def test_every_length_at_every_alignment(isa, dtype):
    """Prefixes of one stream: a length's result begins every longer one's."""
    dtype = np.dtype(dtype)
    whole = sample(LENGTHS[-1], dtype, seed=6)
    expected, expected_mask = fd.reference.relu_dropout(whole, 0.7, rng=fd.Stream(1, 3))
    kept = expected_mask.to_array()
    source, target = (np.empty(LENGTHS[-1] * dtype.itemsize + 4 * AROUND, np.uint8) for _ in range(2))
    tried = 0
    for length in LENGTHS:
        wanted = expected[:length].tobytes(), np.packbits(kept[:length], bitorder="little").tobytes()
        for remainder in range(0, 64, dtype.itemsize):
            target[:] = CANARY
            x = placed(source, 64 - dtype.itemsize - remainder, length, dtype)
            out = placed(target, remainder, length, dtype)
            x[:] = whole[:length]
            _, mask = fd.relu_dropout(x, 0.7, rng=fd.Stream(1, 3), out=out)
            assert (out.tobytes(), mask.bits.tobytes()) == wanted, (length, remainder)
            assert untouched(target, out), (length, remainder)
            assert x.tobytes() == whole[:length].tobytes(), (length, remainder)
            tried += 1
    assert tried == len(LENGTHS) * 64 // dtype.itemsize
