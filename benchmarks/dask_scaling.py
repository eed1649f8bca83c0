"""ReLU and dropout of a Dask array: what a chunk costs, and what a second core brings.

    python -m benchmarks.dask_scaling
"""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np

import fastdrop as fd
import fastdrop.dask as fdask
from benchmarks import sizes
from fastdrop.commands import show_table, timing

SIZE = 2**24  # elements of float32: 64 MiB
CHUNKS = (2**14, 2**16, 2**18, 2**20, 2**22)


def contender(chunk: int, workers: int, dropout: bool) -> timing.Contender:
    """Into memory that is there: with dropout, or a copy, which is what the schedule alone costs."""
    x, y = np.ones(SIZE, np.float32), np.empty(SIZE, np.float32)
    lazy = da.from_array(x, chunks=chunk)
    lazy = fdask.relu_dropout(lazy, 0.9, rng=0)[0] if dropout else lazy.map_blocks(np.copy)
    store = da.store(lazy, y, lock=False, compute=False)
    scheduler = {"scheduler": "threads", "num_workers": workers}
    return timing.Contender(lambda: dask.compute(store, **scheduler))


def main() -> None:
    fd.set_num_threads(1)
    rows = []
    for chunk in CHUNKS:
        names = {"one": (1, True), "two": (2, True), "copy, one": (1, False), "copy, two": (2, False)}
        contenders = {name: contender(chunk, *which) for name, which in names.items()}
        result = timing.alternate(contenders, rounds=5 if chunk < 2**18 else 11)
        a_chunk = result.time("one") * (1e6 * chunk / SIZE)
        gain, copy_gain = result.ratio("one", "two"), result.ratio("copy, one", "copy, two")
        over_a_copy = result.ratio("one", "copy, one")
        spreads = (a_chunk, over_a_copy, gain, copy_gain)
        rows.append([sizes.label(chunk), str(SIZE // chunk), *map(str, spreads)])
    columns = ["elements a chunk", "chunks", "us a chunk, one worker", "x a copy", "two workers", "a copy's"]
    show_table("relu_dropout of 16 Mi float32 by Dask's threads", columns, rows)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("dask").items()))


if __name__ == "__main__":
    main()
