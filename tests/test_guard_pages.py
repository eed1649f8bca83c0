"""No byte is read or written outside of the arrays, because the pages beside them cannot be accessed.

A kernel that strays ends its process by a segmentation fault.
"""

from __future__ import annotations

import sys

import pytest

from support import printed_by

CODE = """
import ctypes, mmap
import numpy as np
import fastdrop as fd
from fastdrop import cpu
from fastdrop.core import dispatch

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
maps = []

def guarded(array, at_end):
    '''A copy that ends where a forbidden page begins, or begins where one ends.'''
    inner = -(-max(array.nbytes, 1) // PAGE) * PAGE
    memory = mmap.mmap(-1, inner + 2 * PAGE)
    maps.append(memory)
    buffer = np.frombuffer(memory, np.uint8)
    start = PAGE + (inner - array.nbytes if at_end else 0)
    copy = buffer[start : start + array.nbytes].view(array.dtype)
    copy[...] = array
    for page in (buffer.ctypes.data, buffer.ctypes.data + PAGE + inner):
        assert libc.mprotect(ctypes.c_void_p(page), PAGE, 0) == 0
    return copy

def calls(length, dtype, at_end):
    x = guarded(np.linspace(-1, 1, length, dtype=dtype), at_end)
    out = guarded(np.zeros(length, dtype), at_end)
    known = {"keep_prob": 0.7, "mode": "inverted"}
    for position in (0, 1, 127):
        stream = fd.Stream(1, position)
        _, mask = fd.relu_dropout(x, keep_prob=0.7, rng=stream, out=out)
        fd.dropout(x, keep_prob=0.7, rng=stream, out=out, return_mask=False)
        fd.gaussian_dropout(x, keep_prob=0.7, rng=stream, out=out)
    bits = fd.Mask(guarded(mask.bits, at_end), mask.shape, keep_prob=0.7)
    fd.relu_dropout_backward(x, bits, out=out)
    fd.relu_dropout_backward(x, out, out=out, **known)
    fd.relu_dropout_predict(x, keep_prob=0.7, mode="vanilla", out=out)
    fd.dropout(x, keep_prob=0.7, rng=1, out=x)
    return 1

def everything():
    made = 0
    for length in (*range(0, 140), 255, 257, 300, 1023, 1025, 8191, 8193, 20_000):
        for dtype in (np.float32, np.float64):
            for at_end in (True, False):
                made += calls(length, dtype, at_end)
    return made

made = everything()
dispatch.set_streaming_bytes(0)
print(cpu.active(), made + everything())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's mprotect")
def test_no_access_outside_of_the_arrays(isa):
    assert printed_by(CODE, FASTDROP_ISA=isa) == f"{isa} {2 * 148 * 4}"
