"""Memory: what a call does where there is none left, and that calls leave none behind."""

from __future__ import annotations

import sys

import pytest

from support import printed_by

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and figures of Linux")


def test_a_call_without_memory_raises_and_loses_nothing():
    code = """
import resource
import numpy as np, fastdrop as fd
size = 1 << 28
x = np.zeros(size, np.float16)
stream = fd.Stream(1)
kept, _ = fd.relu_dropout(x[:1000], 0.5, rng=fd.Stream(1))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 26), resource.RLIM_INFINITY))
out = np.ones(1000, np.float16)
for call in (
    lambda: fd.relu_dropout(x, 0.5, rng=stream),
    lambda: fd.dropout(x, 0.5, rng=stream, return_mask=False),
    lambda: fd.keep_mask(1 << 33, 0.5, rng=stream),
    lambda: fd.relu_dropout_predict(x, 0.5),
):
    try:
        call()
    except MemoryError:
        assert stream.offset == 0
    else:
        raise AssertionError("this much memory was not there")
y, mask = fd.relu_dropout(x[:1000], 0.5, rng=stream, out=out)
assert stream.offset == 1000 and np.array_equal(y, kept)
print("usable")
"""
    assert printed_by(code) == "usable"


def test_calls_leave_no_memory_behind():
    code = """
import resource
import numpy as np, fastdrop as fd
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
x = np.ones(64, np.float32)
y, stream = np.empty_like(x), fd.Stream(1)
def calls(count):
    for _ in range(count):
        _, mask = fd.relu_dropout(x, 0.5, rng=stream, out=y)
        fd.relu_dropout_backward(x, mask)
        fd.keep_mask(64, 0.5, rng=7)
        try:
            fd.dropout(x, 1.5)
        except ValueError:
            pass
calls(20_000)
before = resident()
calls(250_000)
print(resident() - before)
"""
    assert int(printed_by(code, timeout=120)) < 2**20, "a byte a call would be a quarter of it"
