"""Any number of threads in a call gives what one thread gives, and no two of them access the same memory.

The first is tested here. The second is tested by `make sanitize ARGS=openmp`, which runs these calls under
the thread sanitizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastdrop as fd
from support import assert_identical, sample

ROWS, COLUMNS = 8, 65537  # a piece of a strided array is large enough for threads, and ends anywhere

pytestmark = pytest.mark.usefixtures("threads")


def with_gaps(x: np.ndarray) -> np.ndarray:
    room = np.empty((x.shape[0], 2 * x.shape[1]), x.dtype)
    room[:, ::2] = x
    return room[:, ::2]


def mask_for(x: np.ndarray) -> fd.Mask:
    return fd.keep_mask(x.shape, keep_prob=0.9, rng=2)


def bias_for(x: np.ndarray) -> np.ndarray:
    """Return a row without NaN: which of two NaNs a sum is, is not defined."""
    return np.where(np.isnan(x[0]), 1, x[0]).astype(x.dtype)


TILE = fd.Tile((COLUMNS + 9, COLUMNS + 9), (3, 5), seed=1)

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": np.ascontiguousarray,
    "tall": lambda x: x.reshape(COLUMNS, ROWS),
    "Fortran": np.asfortranarray,
    "gaps": with_gaps,
    "reversed": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "swapped bytes": lambda x: x.astype(x.dtype.newbyteorder()),
}

CALLS: dict[str, Callable[[np.ndarray], Any]] = {
    "relu_dropout": lambda x: fd.relu_dropout(x, keep_prob=0.9, bias=bias_for(x), rng=fd.Stream(1, 77)),
    "dropout": lambda x: fd.dropout(x, keep_prob=0.5, rng=1),
    "alpha dropout": lambda x: fd.alpha_dropout(x, keep_prob=0.7, rng=1),
    "residual": lambda x: fd.dropout_add(x, x, keep_prob=0.3, rng=1),
    "in place": lambda x: fd.dropout(x, keep_prob=0.5, rng=3, out=x),
    "rows together": lambda x: fd.relu_dropout(x, keep_prob=0.5, rng=1, broadcast_dims=0),
    "columns together": lambda x: fd.relu_dropout(x, keep_prob=0.5, rng=1, broadcast_dims=1),
    "tile": lambda x: fd.relu_dropout(x, keep_prob=0.9, rng=TILE),
    "none kept": lambda x: fd.relu_dropout(x, keep_prob=0, rng=1),
    "backward": lambda x: fd.dropout_backward(x, mask_for(x)),
    "backward from the output": lambda x: fd.relu_dropout_backward(x, x, keep_prob=0.9, mode="vanilla"),
    "bias_grad": lambda x: fd.dropout_backward(x, mask_for(x), bias_grad=True),
    "predict": lambda x: fd.relu_dropout_predict(x, keep_prob=0.9, bias=bias_for(x), mode="vanilla"),
    "gaussian_dropout": lambda x: fd.gaussian_dropout(x, keep_prob=0.9, rng=1)[0],
    "Gaussian tile": lambda x: fd.gaussian_dropout(x, keep_prob=0.9, rng=TILE)[0],
    "keep_mask": lambda x: fd.keep_mask(x.shape, keep_prob=0.3, rng=fd.Stream(5, 5)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_number_of_threads_gives_what_one_gives(isa, layout):
    """Each call runs on 2 to 7 threads, on another number for each layout."""
    make, turn = LAYOUTS[layout], list(LAYOUTS).index(layout)
    x = sample(ROWS * COLUMNS, seed=6).reshape(ROWS, COLUMNS)
    for index, (name, call) in enumerate(CALLS.items()):
        fd.set_num_threads(1)
        expected = call(make(x.copy()))
        count = 2 + (index + turn) % 6
        fd.set_num_threads(count)
        actual = call(make(x.copy()))
        for one, other in zip(parts(actual), parts(expected), strict=True):
            assert_identical(one, other, f"{name}, {count} threads")


def parts(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)
