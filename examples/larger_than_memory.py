"""
Apply ReLU and dropout to an array that is larger than the memory this process may use, with Dask.

The array and the result are files, which zarr could hold as well (``da.from_zarr``, ``to_zarr``). The
operating system limits this process to a part of the array's size, so a step that needed the whole array
would raise a MemoryError. The program shows that by trying one. Run it with a number of MiB: ::

    python examples/larger_than_memory.py 1024
"""

import resource
import sys
import tempfile
from pathlib import Path

import dask
import dask.array as da
import numpy as np

import fastdrop as fd
import fastdrop.dask

KEEP_PROB, SEED, COLUMNS = 0.7, 7, 4096
MIB = 1 << 20


def allow(mib: int) -> None:
    """Let this process get `mib` MiB more memory than it has now. Files that it maps do not count."""
    status = Path("/proc/self/status").read_text()
    used = int(status.partition("VmData:")[2].split()[0]) // 1024
    resource.setrlimit(resource.RLIMIT_DATA, ((used + mib) * MIB, resource.RLIM_INFINITY))


def part_of_file(path: Path, block_info: dict | None = None) -> np.ndarray:
    """Return a chunk of an array on disk. (`da.from_array` of a memory map copies the whole array.)"""
    return np.load(path, mmap_mode="r")[tuple(slice(*edges) for edges in block_info[None]["array-location"])]


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    shape = (size * MIB // (4 * COLUMNS), COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        x = np.lib.format.open_memmap(Path(folder, "x.npy"), "w+", np.float32, shape)
        y = np.lib.format.open_memmap(Path(folder, "y.npy"), "w+", np.float32, shape)
        allow(size // 2)
        try:
            np.copy(x)
        except MemoryError:
            print(f"{size} MiB do not fit into the {size // 2} MiB that this process may get")

        numbers = da.random.default_rng(0).random(shape, np.float32, chunks=(256, COLUMNS)) - np.float32(0.5)
        with dask.config.set(scheduler="threads", num_workers=2):
            da.store(numbers, x, lock=False)
            x.flush()
            chunks = da.core.normalize_chunks((256, 1000), shape)
            lazy = da.map_blocks(part_of_file, Path(folder, "x.npy"), chunks=chunks, dtype=np.float32)
            lazy, _ = fastdrop.dask.relu_dropout(lazy, keep_prob=KEEP_PROB, rng=SEED)
            da.store(lazy, y, lock=False)

        for row in range(0, shape[0], 1000):  # any part equals that of one call on the whole array
            part = np.s_[row : row + 100, 500:2000]
            tile = fd.Tile(shape, (row, 500), SEED)
            expected, _ = fd.relu_dropout(x[part], keep_prob=KEEP_PROB, rng=tile)
            assert np.array_equal(y[part], expected)
        print(f"{lazy.npartitions} chunks, each equal to its part of one call on the whole array")


if __name__ == "__main__":
    main()
