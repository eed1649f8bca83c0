"""
A custom loop in Cython
=======================

A call from Python takes half a microsecond before it touches an element. If your program has many
short rows, write the loop in Cython: ``cimport fastdrop`` gives it the kernels as plain C functions
on pointers, which do not need the GIL.

The package ``examples/cython_package`` has such a loop. This example builds it as a user would,
compares it with the Python call, and times both on rows of 8 to 2,048 elements.
"""

# %%
# Build it
# --------
# All of it is in ``rows.pyx``: it checks the shapes once, then calls ``fastdrop.forward`` once per row.

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

import fastdrop as fd

package = Path(fd.__file__).parent.parent / "examples" / "cython_package"
folder = shutil.copytree(package, Path(tempfile.mkdtemp()) / "rows")
build = [sys.executable, "setup.py", "build_ext", "--inplace"]
subprocess.run(build, cwd=folder, check=True, capture_output=True)
sys.path.insert(0, str(folder))
import rows  # noqa: E402

print((package / "rows.pyx").read_text())

# %%
# The same bits
# -------------
# Each row starts in the stream where the row before it ended. So the loop gives exactly what one call
# on the whole array gives, bit for bit.

x = np.random.default_rng(0).standard_normal((1000, 300), dtype=np.float32)
y = np.empty_like(x)
rows.relu_dropout_rows(x, y, 0.9, seed=42)

whole, _ = fd.relu_dropout(x, keep_prob=0.9, rng=fd.Stream(42))
assert np.array_equal(y, whole)

# %%
# What it saves
# -------------
# The times are medians of several rounds over 2**18 elements, for a Python call per row and for the loop.


def python_rows(x, y, stream):
    for row, result in zip(x, y):
        fd.relu_dropout(row, keep_prob=0.9, rng=stream, out=result, return_mask=False)


def cython_rows(x, y, stream):
    rows.relu_dropout_rows(x, y, 0.9, stream.seed, stream.reserve(x.size))


def nanoseconds(loop, length):
    """Return the time per element, for rows of `length` elements."""
    x = np.ones((2**18 // length, length), np.float32)
    y = np.empty_like(x)
    stream = fd.Stream(1)
    times = []
    for _ in range(7):
        start = perf_counter()
        loop(x, y, stream)
        times.append(perf_counter() - start)
    return np.median(times) / x.size * 1e9


lengths = 2 ** np.arange(3, 12)
python = [nanoseconds(python_rows, length) for length in lengths]
cython = [nanoseconds(cython_rows, length) for length in lengths]

figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
axes.loglog(lengths, python, "o-", label="a Python call per row")
axes.loglog(lengths, cython, "o-", label="a loop in Cython")
axes.set(xlabel="elements per row", ylabel="ns per element", title="ReLU + dropout, row by row")
axes.set_xticks(lengths, [f"{length:,}" for length in lengths], minor=False)
axes.legend(frameon=False)
plt.show()

for length, slow, fast in zip(lengths, python, cython):
    print(f"{length:5,} elements per row: {slow:6.2f} ns per element from Python, {fast:5.2f} in the loop")
