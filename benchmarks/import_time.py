"""Time how much longer `import fastdrop` takes than `import numpy`, in new interpreters by turns.

    python benchmarks/import_time.py [ROUNDS]

It shows wall time and processor time, because other programs disturb processor time less.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

PROGRAMS = ("import numpy", "import numpy, fastdrop")


def seconds(program: str) -> tuple[float, float]:
    """Return the wall time and the processor time of an interpreter that runs `program`."""
    before, start = of_processor(), time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - start, of_processor() - before


def of_processor() -> float:
    """Return the processor time of all interpreters so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(rounds: int) -> None:
    pairs = [[seconds(program) for program in PROGRAMS] for _ in range(rounds)]
    for kind, name in enumerate(("wall time", "processor time")):
        without, with_it = ([pair[program][kind] * 1e3 for pair in pairs] for program in (0, 1))
        more = statistics.median(b - a for a, b in zip(without, with_it))
        print(
            f"{name} in ms: {min(without):.1f} without, {min(with_it):.1f} with it (best of {rounds}); "
            f"difference {min(with_it) - min(without):.1f}, median of the differences {more:.1f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
