"""At every length 0..300 and every address of an element within 64 bytes, only the result changes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import fastdrop as fd
from support import Place, sample

LENGTHS = range(301)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ml_dtypes.bfloat16])
def test_every_length_at_every_alignment(isa, dtype):
    """The inputs are prefixes of one array, so the result of a length begins every longer result."""
    dtype = np.dtype(dtype)
    whole = sample(LENGTHS[-1], dtype, seed=6)
    expected, expected_mask = fd.reference.relu_dropout(whole, keep_prob=0.7, rng=fd.Stream(1, 3))
    kept = expected_mask.to_array()
    last = 64 // dtype.itemsize - 1
    tried = 0
    for length in LENGTHS:
        wanted = expected[:length].tobytes(), np.packbits(kept[:length], bitorder="little").tobytes()
        for remainder in range(last + 1):
            x, out = Place(whole[:length], last - remainder), Place(np.empty(length, dtype), remainder)
            _, mask = fd.relu_dropout(x.array, keep_prob=0.7, rng=fd.Stream(1, 3), out=out.array)
            assert (out.array.tobytes(), mask.bits.tobytes()) == wanted, (length, remainder)
            assert out.intact(), (length, remainder)
            assert x.array.tobytes() == whole[:length].tobytes(), (length, remainder)
            tried += 1
    assert tried == len(LENGTHS) * 64 // dtype.itemsize
