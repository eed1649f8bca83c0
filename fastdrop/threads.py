"""How many threads: a matter of speed alone, results never depend on it."""

from __future__ import annotations

import math
import os
from pathlib import Path

from fastdrop.checks import integer
from fastdrop.core import dispatch

VARIABLE = "FASTDROP_NUM_THREADS"
MOST_THREADS = 2**15


def get_num_threads() -> int:
    """The number of threads that a large call uses.

    It is what `set_num_threads` or the environment variable ``FASTDROP_NUM_THREADS`` said, but at
    most four for each CPU, or eight. Otherwise it is what OpenMP says, which knows
    ``OMP_NUM_THREADS`` and ``threadpoolctl``, but at most the CPUs that this process may use by
    its affinity and by the quota of its control group (a container's limit). It is one in a
    forked child, and in a build without OpenMP.

    A call uses fewer threads where it has no work for them, or where the system cannot start them.
    """
    return dispatch.get_num_threads()


def set_num_threads(n: int) -> None:
    """Let large calls use `n` threads.

    Parameters
    ----------
    n : int
        At least 1. More than four for each CPU, and more than eight, are not used.
    """
    dispatch.set_num_threads(_checked("n", integer("n", n)))


def openmp() -> bool:
    """Whether this build has OpenMP; without it, calls run on one thread."""
    return dispatch.openmp


def cpus(root: Path = Path("/")) -> int:
    """The CPUs that this process may use, by affinity and by quota."""
    return math.ceil(min(affinity(), cpu_quota(root)))


def affinity() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path) -> float:
    """The CPUs' worth of time that control groups grant, infinite where there is no quota.

    As joblib's loky does (loky/backend/context.py, `_cpu_count_cgroup`), and also for a process in a group
    below the root: each group on the way up has a quota. `root` is where the file system begins.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):  # another system than Linux, or a file that is no text
        return math.inf
    least = math.inf
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")  # none where it is version 2
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for mount in (controllers, "cpu") if controllers else ("", "unified"):
            for folder in (group, *group.parents):
                least = min(least, quota_in(root / "sys/fs/cgroup" / mount / folder))
    return least


def quota_in(folder: Path) -> float:
    """The quota of one group: version 2 has it in one file, version 1 in two."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = (int(word) for name in names for word in (folder / name).read_text().split())
        except (OSError, ValueError):  # no such file, or "max", or nothing that the kernel writes
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf


def _checked(name: str, count: int) -> int:
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"{name} must be in [1, {MOST_THREADS}], got {count}")
    return count


def _from_environment() -> None:
    value = os.environ.get(VARIABLE)
    if value:
        if not value.strip().isdecimal():
            raise ValueError(f"{VARIABLE} must be a number of threads, got {value!r}")
        dispatch.set_num_threads(_checked(VARIABLE, int(value)))


def _set_limits() -> None:
    count = cpus()
    dispatch.set_thread_limits(count, max(8, 4 * count))


_set_limits()
_from_environment()
