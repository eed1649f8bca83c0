"""A call without enough memory changes nothing, and calls leave no memory behind."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import numpy as np
import pytest

import fastdrop as fd
from support import DATA, ROOT, assert_identical, printed_by, run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and figures of Linux")


def test_a_call_without_memory_raises_and_loses_nothing():
    code = """
import resource
import numpy as np, fastdrop as fd
size = 1 << 30
x = np.zeros(size, np.float16)  # pages that nothing writes to take no memory
ends = np.r_[:9, -9:0]
x[ends] = 1
stream = fd.Stream(1)
kept, _ = fd.relu_dropout(x[:1000], keep_prob=0.5, rng=fd.Stream(1))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 26), resource.RLIM_INFINITY))
out = np.ones(1000, np.float16)
for call in (
    lambda: fd.relu_dropout(x, keep_prob=0.5, rng=stream),
    lambda: fd.relu_dropout(x, keep_prob=0.5, rng=stream, out=x),  # no room for the mask
    lambda: fd.dropout(x, keep_prob=0.5, rng=stream, return_mask=False),
    lambda: fd.keep_mask(1 << 33, keep_prob=0.5, rng=stream),
    lambda: fd.relu_dropout_predict(x, keep_prob=0.5),
):
    try:
        call()
    except MemoryError:
        assert stream.offset == 0 and (x[ends] == 1).all()
    else:
        raise AssertionError("this much memory was not there")
y, mask = fd.relu_dropout(x[:1000], keep_prob=0.5, rng=stream, out=out)
assert stream.offset == 1000 and np.array_equal(y, kept)
print("usable")
"""
    assert printed_by(code) == "usable"


def why_no_failing_malloc() -> str | None:
    if not shutil.which("gcc"):
        return "no gcc"
    if platform.libc_ver()[0] != "glibc":
        return "the allocator's own names are glibc's"
    return "another library is preloaded" if os.environ.get("LD_PRELOAD") else None


@pytest.mark.skipif(why_no_failing_malloc() is not None, reason=str(why_no_failing_malloc()))
def test_whichever_allocation_fails_a_call_loses_nothing(tmp_path):
    library = tmp_path / "failing_malloc.so"
    source = DATA / "failing_malloc.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
    process = run_python(
        ROOT / "tests" / "without_memory.py", str(library),
        LD_PRELOAD=str(library), PYTHONMALLOC="malloc",
    )  # fmt: skip
    last = process.stderr[-300:].rpartition("\r")[2]
    assert process.returncode == 0, f"{process.stdout[-2000:]}\nended by {process.returncode} at: {last}"
    assert process.stdout.endswith(" 0 wrong\n"), process.stdout[-4000:]


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
        _, mask = fd.relu_dropout(x, keep_prob=0.5, rng=stream, out=y)
        fd.relu_dropout_backward(x, mask)
        fd.keep_mask(64, keep_prob=0.5, rng=7)
        try:
            fd.dropout(x, keep_prob=1.5)
        except ValueError:
            pass
calls(20_000)
before = resident()
calls(250_000)
print(resident() - before)
"""
    assert int(printed_by(code)) < 2**20, "a byte a call would be a quarter of it"


BOUNDARY, BEYOND = 2**32, 5003


def after(start: int) -> fd.Stream:
    return fd.Stream(3, 77 + start)


def test_a_mask_of_more_elements_than_32_bits_count():
    """On either side of the boundary and at the end, the mask is that of the reference at these positions."""
    mask = fd.keep_mask(BOUNDARY + BEYOND, keep_prob=0.7, rng=after(0))
    for start in (0, 2**31 - 4096, BOUNDARY - 4096, BOUNDARY):
        count = min(8192, BOUNDARY + BEYOND - start)
        expected = fd.reference.keep_mask(count, keep_prob=0.7, rng=after(start)).bits
        assert_identical(mask.bits[start // 8 :][: len(expected)], expected, f"from {start}")


@pytest.mark.large
def test_arrays_of_more_elements_than_32_bits_count():
    """Forward and backward calls in place on 8 GiB of float16 equal the reference around each boundary."""
    size = BOUNDARY + BEYOND
    places = [slice(start, start + BEYOND) for start in (0, 2**31 - 999, BOUNDARY - 999, size - BEYOND)]
    x = np.zeros(size, np.float16)
    for place in places:
        x[place] = np.linspace(-1, 1, BEYOND, dtype=np.float16)
    before = [x[place].copy() for place in places]
    y, mask = fd.relu_dropout(x, keep_prob=0.7, rng=after(0), out=x)
    results = [y[place].copy() for place in places]
    fd.relu_dropout_backward(y, mask, out=y)
    for place, piece, result in zip(places, before, results, strict=True):
        expected, decisions = fd.reference.relu_dropout(piece, keep_prob=0.7, rng=after(place.start))
        assert_identical(result, expected, f"forward, {place}")
        expected = fd.reference.relu_dropout_backward(expected, decisions)
        assert_identical(y[place], expected, f"backward, {place}")
