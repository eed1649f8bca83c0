"""The number of threads. It affects speed alone; results never depend on it."""

from __future__ import annotations

import math
import os
from pathlib import Path

from fastdrop.checks import integer
from fastdrop.core import dispatch
from fastdrop.settings import from_environment

VARIABLE = "FASTDROP_NUM_THREADS"
MOST_THREADS = 2**15


def get_num_threads() -> int:
    """Return the number of threads that a large call uses.

    `set_num_threads` or the environment variable ``FASTDROP_NUM_THREADS`` sets it, up to four threads
    per CPU or eight. Otherwise OpenMP decides, which follows ``OMP_NUM_THREADS`` and
    ``threadpoolctl``, up to the number of CPUs that this process may use: by its affinity, and by the
    quota of its control group (the limit of a container). It is one in a forked child, and in a build
    without OpenMP.

    A call uses fewer threads if it has less work, or if the system cannot start them. It runs alone for up
    to 1.6 seconds after a call whose threads had to wait for a processor, because others are busy.

    Returns
    -------
    int

    See Also
    --------
    set_num_threads : Set it.

    Examples
    --------
    >>> import fastdrop as fd
    >>> fd.get_num_threads() >= 1
    True
    """
    return dispatch.get_num_threads()


def set_num_threads(n: int) -> None:
    """Let large calls use `n` threads.

    Results do not depend on it.

    Parameters
    ----------
    n : int
        The number of threads, in ``[1, 2**15]``. At most four per CPU, or eight, are used.

    Raises
    ------
    TypeError
        If `n` is not an int.
    ValueError
        If `n` is out of range.

    See Also
    --------
    get_num_threads : The number that is in use.

    Examples
    --------
    >>> import fastdrop as fd
    >>> fd.set_num_threads(fd.get_num_threads())
    """
    dispatch.set_num_threads(_checked("n", integer("n", n)))


def openmp() -> bool:
    """Whether this build has OpenMP. Without it, calls run on one thread."""
    return dispatch.openmp


def cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs that this process may use, by affinity and by quota."""
    return math.ceil(min(affinity(), cpu_quota(root)))


def affinity() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path) -> float:
    """Return the CPU time per second that the control groups grant; infinite without a quota.

    The rule is that of joblib's loky (loky/backend/context.py, `_cpu_count_cgroup`), extended to a
    process in a group below the root, where each group up to the root can have a quota. `root` is
    the root of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):  # not Linux, or not a text file
        return math.inf
    least = math.inf
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")  # version 2 names none
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for mount in (controllers, "cpu") if controllers else ("", "unified"):
            for folder in (group, *group.parents):
                least = min(least, quota_in(root / "sys/fs/cgroup" / mount / folder))
    return least


def quota_in(folder: Path) -> float:
    """Return the quota of one group, which version 2 keeps in one file and version 1 in two."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = (int(word) for name in names for word in (folder / name).read_text().split())
        except (OSError, ValueError):  # no such file, or "max", or something unknown
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf


def _checked(name: str, count: int) -> int:
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"{name} must be in [1, {MOST_THREADS}], got {count}")
    return count


def _set_from_environment() -> None:
    value = os.environ.get(VARIABLE)
    if value:
        if not value.strip().isdecimal():
            raise ValueError(f"{VARIABLE} must be a number of threads, got {value!r}")
        dispatch.set_num_threads(_checked(VARIABLE, int(value)))


def _set_limits() -> None:
    count = cpus()
    dispatch.set_thread_limits(count, max(8, 4 * count))


_set_limits()
with from_environment():
    _set_from_environment()
