"""
A custom loop in Cython
=======================

A call from Python costs half a microsecond before it touches an element. Where a program goes through
many short rows, the loop belongs below Python: ``cimport fastdrop`` gives it the kernels as plain C
functions on pointers, which need no GIL.

The package ``examples/cython_package`` holds such a loop. What follows builds it as its users would,
holds it to the Python call, and times both on rows of 8 to 2,048 elements.
"""

# %%
# Build it
# --------
# The whole of it is ``rows.pyx``: check the shapes once, then one call of ``fastdrop.forward`` a row.

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
# Row after row takes its decisions from the stream where the row before it ended, so the loop gives
# what one call on the whole array gives, to the last bit.

x = np.random.default_rng(0).standard_normal((1000, 300), dtype=np.float32)
y = np.empty_like(x)
rows.relu_dropout_rows(x, y, 0.9, seed=42)

whole, _ = fd.relu_dropout(x, 0.9, rng=fd.Stream(42))
assert np.array_equal(y, whole)

# %%
# What it saves
# -------------
# The median of several rounds, each over 2**18 elements: a Python call a row, and the loop.


def python_rows(x, y, stream):
    for row, result in zip(x, y):
        fd.relu_dropout(row, 0.9, rng=stream, out=result, return_mask=False)


def cython_rows(x, y, stream):
    rows.relu_dropout_rows(x, y, 0.9, stream.seed, stream.reserve(x.size))


def nanoseconds(loop, length):
    """An element, in rows of `length`."""
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
axes.loglog(lengths, python, "o-", label="a Python call a row")
axes.loglog(lengths, cython, "o-", label="a loop in Cython")
axes.set(xlabel="elements a row", ylabel="ns an element", title="ReLU + dropout, row by row")
axes.set_xticks(lengths, [f"{length:,}" for length in lengths], minor=False)
axes.legend(frameon=False)
plt.show()

for length, slow, fast in zip(lengths, python, cython):
    print(f"{length:5,} elements a row: {slow:6.2f} ns an element from Python, {fast:5.2f} in the loop")
