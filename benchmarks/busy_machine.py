"""Measure calls on one and on several threads while other processes keep processors busy.

    python -m benchmarks.busy_machine [--busy 1] [--elements 262144 ...] [--seconds 5] [--between 0]

The numbers of threads take turns. A region of OpenMP ends with its last thread, and that thread may have to wait for a
processor, so the high percentiles matter here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np

import fastdrop as fd

TURNS = 4


def times(elements: int, threads: int, seconds: float, between: float) -> list[float]:
    """Return the microseconds that each call took. So many seconds of other work lie between two calls."""
    fd.set_num_threads(threads)
    x = np.random.default_rng(0).standard_normal(elements, dtype=np.float32)
    y, stream, found = np.empty_like(x), fd.Stream(1), []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        fd.relu_dropout(x, keep_prob=0.9, rng=stream, out=y)
        ended = time.perf_counter()
        found.append(1e6 * (ended - begun))
        while time.perf_counter() < ended + between:
            pass
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy_machine", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--busy", type=int, default=1, help="the number of other processes, each busy on one processor")
    parser.add_argument("--elements", type=int, nargs="+", default=[2**18], help="sizes of the array")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each number of threads is measured")
    parser.add_argument("--between", type=float, default=0, help="microseconds of other work between two calls")
    chosen = parser.parse_args()
    most = fd.threads.cpus()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(chosen.busy)]
    try:
        print(f"{chosen.busy} other processes on {most} CPUs; microseconds per call")
        print("| elements | threads | median | mean | 99th percentile | 99.9th | longest |\n" + "| ---: " * 7 + "|")
        for elements in chosen.elements:
            found: dict[int, list[float]] = {1: [], most: []}
            for _ in range(TURNS):
                for threads, so_far in found.items():
                    so_far += times(elements, threads, chosen.seconds / TURNS, 1e-6 * chosen.between)
            for threads, us in found.items():
                row = [np.median(us), np.mean(us), *np.percentile(us, [99, 99.9]), max(us)]
                print(f"| {elements} | {threads} | {' | '.join(f'{number:.0f}' for number in row)} |")
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
