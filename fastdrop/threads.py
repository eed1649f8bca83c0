"""How many threads: a matter of speed alone, results never depend on it."""

from __future__ import annotations

import os

from fastdrop.kernels import dispatch
from fastdrop.stream import integer

VARIABLE = "FASTDROP_NUM_THREADS"
MOST_THREADS = 2**15


def get_num_threads() -> int:
    """The number of threads that a large call uses.

    It is what `set_num_threads` or the environment variable ``FASTDROP_NUM_THREADS`` said, or
    else what OpenMP says, which knows ``OMP_NUM_THREADS``, the CPU affinity and
    ``threadpoolctl``. One in a forked child, and in a build without OpenMP.
    """
    return dispatch.get_num_threads()


def set_num_threads(n: int) -> None:
    """Let large calls use `n` threads.

    Parameters
    ----------
    n : int
        At least 1.
    """
    dispatch.set_num_threads(_checked("n", integer("n", n)))


def openmp() -> bool:
    """Whether this build has OpenMP; without it, calls run on one thread."""
    return dispatch.openmp


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


_from_environment()
# After fork() the threads of a GNU OpenMP team are gone, and the child would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=dispatch.run_serially)
