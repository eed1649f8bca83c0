"""Time ReLU and dropout of a Dask array: the cost of a chunk, and the gain from a second core.

    python -m benchmarks.dask_scaling [--rounds N]

The first table uses Dask's threads and writes to memory that was allocated before. The second uses a
cluster of processes. There every worker creates its input and keeps only a sum of the result, so no
array is sent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import dask
import dask.array as da
import distributed
import numpy as np

import fastdrop as fd
import fastdrop.dask as fdask
from benchmarks import sizes
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing

SIZE = 2**24  # elements of float32: 64 MiB
THREADS_CHUNKS = (2**14, 2**16, 2**18, 2**20, 2**22)
PROCESSES_CHUNKS = (2**16, 2**18, 2**20, 2**22)

# Makes a call from elements per chunk, workers, and whether it is dropout or a copy.
Maker = Callable[[int, int, bool], timing.Trial]


def work(x: da.Array, dropout: bool) -> da.Array:
    """Return `x` with dropout, or a copy of it, which shows what the scheduler alone costs."""
    return fdask.relu_dropout(x, keep_prob=0.9, rng=0)[0] if dropout else x.map_blocks(np.copy)


def by_threads(chunk: int, workers: int, dropout: bool) -> timing.Trial:
    x, y = np.ones(SIZE, np.float32), np.empty(SIZE, np.float32)
    store = da.store(work(da.from_array(x, chunks=chunk), dropout), y, lock=False, compute=False)
    scheduler = {"scheduler": "threads", "num_workers": workers}
    return timing.Trial(lambda: dask.compute(store, **scheduler))


def by_processes(clients: dict[int, Any]) -> Maker:
    def trial(chunk: int, workers: int, dropout: bool) -> timing.Trial:
        total = work(da.ones(SIZE, chunks=chunk, dtype=np.float32), dropout).sum()
        return timing.Trial(lambda: clients[workers].compute(total).result())

    return trial


def cluster(workers: int) -> Any:
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    )


def table(title: str, maker: Maker, chunks: Sequence[int], rounds: int) -> None:
    rows = []
    for chunk in chunks:
        names = {"one": (1, True), "two": (2, True), "copy, one": (1, False), "copy, two": (2, False)}
        trials = {name: maker(chunk, *which) for name, which in names.items()}
        result = timing.alternate(trials, rounds=rounds)
        a_chunk = result.time("one") * (1e6 * chunk / SIZE)
        gain, copy_gain = result.ratio("one", "two"), result.ratio("copy, one", "copy, two")
        over_a_copy = result.ratio("one", "copy, one")
        spreads = (a_chunk, over_a_copy, gain, copy_gain)
        rows.append([sizes.label(chunk), str(SIZE // chunk), *map(str, spreads)])
    columns = [
        "elements per chunk", "chunks", "us per chunk, one worker", "x a copy", "gain from two workers",
        "gain of a copy",
    ]  # fmt: skip
    show_table(f"relu_dropout of 16 Mi float32 on {title}", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dask_scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    fd.set_num_threads(1)
    table("Dask's threads", by_threads, THREADS_CHUNKS, rounds)
    with (
        cluster(1) as one, cluster(2) as two,
        distributed.Client(one) as alone, distributed.Client(two) as both,
    ):  # fmt: skip
        for client in (alone, both):
            client.run(fd.set_num_threads, 1)
        table("processes", by_processes({1: alone, 2: both}), PROCESSES_CHUNKS, rounds)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("dask", "distributed").items()))


if __name__ == "__main__":
    main()
