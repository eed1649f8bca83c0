"""No result depends on the floating-point mode of the calling thread, and a call restores it."""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import fastdrop as fd
from fastdrop.core import dispatch
from support import DTYPES, THREAD_WORK, assert_identical, specials

# One word of C's fenv_t holds the rounding and the treatment of subnormals. These are its place and values.
WORDS = {
    "x86_64": (28, {"flushed": 0x9FC0, "up": 0x5F80, "down": 0x3F80, "to zero": 0x7F80, "all": 0xFFC0}),
    "aarch64": (0, {"flushed": 1 << 24, "up": 1 << 22, "down": 2 << 22, "to zero": 3 << 22}),
}
PLACE, MODES = WORDS.get(platform.machine(), (0, {}))
SUBNORMAL = np.float32(1e-40)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or not MODES, reason="fenv_t is known on Linux alone"),
    pytest.mark.usefixtures("threads"),
]


def mode_word() -> int:
    environment = ctypes.create_string_buffer(256)
    ctypes.CDLL("libm.so.6").fegetenv(environment)
    word: int = struct.unpack_from("<I", environment, PLACE)[0]
    return word & ~0x3F  # the rest are flags


@contextmanager
def mode(word: int) -> Iterator[None]:
    """Let this thread compute in a mode for a while."""
    libm = ctypes.CDLL("libm.so.6")
    before, changed = ctypes.create_string_buffer(256), ctypes.create_string_buffer(256)
    libm.fegetenv(before)
    libm.fegetenv(changed)
    struct.pack_into("<I", changed, PLACE, word)
    libm.fesetenv(changed)
    try:
        yield
    finally:
        libm.fesetenv(before)


def all_results(x: np.ndarray, dy: np.ndarray) -> list[object]:
    """Return the results of every kind of call, with probabilities whose scale is rounded."""
    bias, keep_prob = x[0], 0.3
    y, mask = fd.relu_dropout(x, keep_prob=keep_prob, bias=bias, rng=1)
    added, shared = fd.dropout_add(x, dy, keep_prob=keep_prob, rng=2, broadcast_dims=0)
    alpha, kept = fd.alpha_dropout(x, keep_prob=keep_prob, rng=3)
    blurred, noise = fd.gaussian_dropout(x, keep_prob=keep_prob, rng=4)
    return [
        y, mask, added, shared, alpha, kept, blurred, noise,
        *fd.relu_dropout_backward(dy, mask, bias_grad=True),
        fd.relu_dropout_backward(dy, y, keep_prob=keep_prob, mode="inverted"),
        fd.alpha_dropout_backward(dy, kept),
        fd.gaussian_dropout_backward(dy, noise),
        fd.relu_dropout_predict(x, keep_prob=keep_prob, mode="vanilla", bias=bias),
        fd.dropout(x.T, keep_prob=keep_prob, rng=5)[0],
        fd.keep_mask(1000, keep_prob=1 / 3, rng=6),
        fd.keep_mask(1000, keep_prob=SUBNORMAL, rng=7),
    ]  # fmt: skip


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_it(isa, dtype, name):
    rng = np.random.default_rng(5)
    x, dy = (rng.choice(specials(dtype), (300, 40)) for _ in range(2))
    x[::2] = rng.standard_normal((150, 40)).astype(dtype)
    dy = np.where(np.isfinite(dy), dy, np.ones_like(dy))  # which of two NaNs a sum is nobody promises
    x = np.where(np.isfinite(x), x, np.ones_like(x))
    expected = all_results(x, dy)
    dispatch.set_thread_work(0)
    try:
        for threads in (1, 3):
            fd.set_num_threads(threads)
            with mode(MODES[name]):
                found, after = all_results(x, dy), mode_word()
            assert after == MODES[name], "the mode of the thread was not given back"
            for result, wanted in zip(found, expected, strict=True):
                assert_identical(result, wanted, f"{name}, {threads} threads")
    finally:
        dispatch.set_thread_work(THREAD_WORK)


@pytest.mark.parametrize("name", MODES)
def test_a_call_that_raises_gives_it_back_too(name):
    with mode(MODES[name]):
        with pytest.raises(TypeError):
            fd.dropout([1, 2], keep_prob=0.5)
        with pytest.raises(ValueError, match="shape"):
            fd.keep_mask(-1, keep_prob=0.5)
        after = mode_word()
    assert after == MODES[name]
