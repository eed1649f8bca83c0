"""The instruction set: the best one that the CPU and the build have is chosen at import."""

from __future__ import annotations

import importlib
import os
import platform

from fastdrop.core import dispatch
from fastdrop.settings import from_environment

KERNELS = ("avx512", "avx2_vaes", "avx2", "neon", "generic")  # best first
NEEDS = {  # by architecture: what the CPU and the operating system have to support for a kernel
    "x86_64": {
        "avx512": "AVX-512 F, BW, DQ and VL, and AES on vectors (VAES)",
        "avx2_vaes": "AVX2, F16C, and AES on vectors (VAES)",
        "avx2": "AVX2, F16C and AES",
    },
    "aarch64": {"neon": "AES"},
}
NAMES = {"amd64": "x86_64", "arm64": "aarch64"}  # what other systems call these architectures
FORCED = "FASTDROP_ISA"
STREAMING = "FASTDROP_STREAMING_BYTES"


def available() -> tuple[str, ...]:
    """Return the instruction sets that this CPU supports and this build contains, best first."""
    return tuple(name for name in KERNELS if name in dispatch.built and dispatch.supports(name))


def missing() -> dict[str, str]:
    """Return why each other instruction set of this architecture cannot be used here."""
    machine = platform.machine().lower()
    needs = NEEDS.get(NAMES.get(machine, machine), {})
    return {
        name: f"this CPU does not support {need}"
        if name in dispatch.built
        else "it was not built, because its compiler has to be gcc, clang or clang-cl"
        for name, need in needs.items()
        if name not in available()
    }


def active() -> str:
    """Return the instruction set that calls use."""
    return dispatch.active()


def activate(name: str) -> None:
    """Use the kernels of an instruction set for all calls from now on.

    Parameters
    ----------
    name : str
        One of `available`.

    Raises
    ------
    ValueError
        If `name` is not available.
    ImportError
        If its module cannot be loaded. No other instruction set is used instead.
    """
    _activate("name", name)


def _activate(what: str, name: str) -> None:
    if name not in available():
        raise ValueError(
            f"{what} must name an instruction set that is available here, {', '.join(available())}; got {name!r}"
        )
    dispatch.set_kernel(importlib.import_module(f"fastdrop.kernels.{name}").kernel)


def last_level_cache() -> int:
    """Return the size of the largest cache in bytes, or 32 MiB where the system does not say."""
    for level in ("SC_LEVEL4_CACHE_SIZE", "SC_LEVEL3_CACHE_SIZE", "SC_LEVEL2_CACHE_SIZE"):
        try:
            size = os.sysconf(level)
        except (AttributeError, OSError, ValueError):
            continue
        if size > 0:
            return size
    return 32 * 2**20


def _streaming_bytes() -> int:
    """Return the result size, in bytes, from which on stores bypass the cache.

    Half of the cache is for the input, so such a result would not be found there afterwards. The
    environment variable is for experiments.
    """
    value = os.environ.get(STREAMING)
    if not value:
        return last_level_cache() // 2
    if not value.isdecimal():
        raise ValueError(f"{STREAMING} must be a number of bytes, got {value!r}")
    return min(int(value), 2**62)


with from_environment():
    _activate(FORCED, os.environ.get(FORCED) or available()[0])
    dispatch.set_streaming_bytes(_streaming_bytes())
