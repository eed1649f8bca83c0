"""
Larger than memory, with Dask
=============================

An array on disk goes through ReLU and dropout chunk by chunk, and the result is that of one call on
the whole array: what a chunk draws depends on where it lies, and on nothing else.
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
# Two memory maps stand for files that no memory holds.
folder = tempfile.TemporaryDirectory()
x = np.lib.format.open_memmap(Path(folder.name, "x.npy"), "w+", np.float32, SHAPE)
x[:] = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
y = np.lib.format.open_memmap(Path(folder.name, "y.npy"), "w+", np.float32, SHAPE)

# %%
# The graph is made at once, and nothing is read before `store` asks for it, a few chunks at a time.
lazy, draws = fastdrop.dask.relu_dropout(da.from_array(x, chunks=(300, 700)), KEEP_PROB, rng=SEED)
da.store(lazy, y, lock=False)
print(f"{lazy.npartitions} chunks, {draws}")

# %%
# The bits are those of one call on the whole; and a part alone is a part of the whole.
whole, mask = fd.relu_dropout(x, KEEP_PROB, rng=SEED)
assert np.array_equal(y, whole)
part, _ = fd.relu_dropout(x[1000:1100, 500:600], KEEP_PROB, rng=fd.Tile(SHAPE, (1000, 500), SEED))
assert np.array_equal(part, y[1000:1100, 500:600])

# %%
# Backward reads the decisions off the output on disk, in whatever chunks.
dy = da.ones(SHAPE, chunks=(500, 500), dtype=np.float32)
dx = fastdrop.dask.relu_dropout_backward(dy, da.from_array(y, chunks=(300, 700)), draws)
assert np.array_equal(dx.compute(), fd.relu_dropout_backward(np.ones(SHAPE, np.float32), mask))

# %%
fig, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.imshow(y[:40, :60] > 0, cmap="Greys_r", interpolation="nearest")
axes.set(title="A corner of the array on disk: white passed", xticks=[], yticks=[])
folder.cleanup()
