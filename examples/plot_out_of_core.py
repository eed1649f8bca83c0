"""
Larger than memory, with Dask
=============================

This example applies ReLU and dropout to an array on disk, one of Dask's chunks at a time. The result
is that of one call on the whole array, because what a chunk draws depends only on where it lies.
"""

import tempfile
from pathlib import Path

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np

import fastdrop as fd
import fastdrop.dask

SHAPE, KEEP_PROB, SEED = (2000, 1500), 0.7, 7

# %%
# Two memory maps stand for files that do not fit into memory.
folder = tempfile.TemporaryDirectory()
x = np.lib.format.open_memmap(Path(folder.name, "x.npy"), "w+", np.float32, SHAPE)
x[:] = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
y = np.lib.format.open_memmap(Path(folder.name, "y.npy"), "w+", np.float32, SHAPE)

# %%
# Dask builds the graph at once. `store` then reads and computes a few chunks at a time.
lazy, draws = fastdrop.dask.relu_dropout(da.from_array(x, chunks=(300, 700)), keep_prob=KEEP_PROB, rng=SEED)
da.store(lazy, y, lock=False)
print(f"{lazy.npartitions} chunks, {draws}")

# %%
# The bits are those of one call on the whole array. A part computed alone equals that part of the whole.
whole, mask = fd.relu_dropout(x, keep_prob=KEEP_PROB, rng=SEED)
assert np.array_equal(y, whole)
part, _ = fd.relu_dropout(x[1000:1100, 500:600], keep_prob=KEEP_PROB, rng=fd.Tile(SHAPE, (1000, 500), SEED))
assert np.array_equal(part, y[1000:1100, 500:600])

# %%
# The backward call reads the decisions from the output on disk. Its chunks need not be the same.
dy = da.ones(SHAPE, chunks=(500, 500), dtype=np.float32)
dx = fastdrop.dask.relu_dropout_backward(dy, da.from_array(y, chunks=(300, 700)), draws)
assert np.array_equal(dx.compute(), fd.relu_dropout_backward(np.ones(SHAPE, np.float32), mask))

# %%
fig, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.imshow(y[:40, :60] > 0, cmap="Greys_r", interpolation="nearest")
axes.set(title="A corner of the array on disk: white elements passed", xticks=[], yticks=[])
folder.cleanup()
