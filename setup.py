"""Compile the kernels, once for each instruction set that the target machine may have."""

import os
import platform
import sys

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

MSVC = sys.platform == "win32" and "gcc" not in os.environ.get("CC", "")
MACHINE = platform.machine().lower()

# Wide instructions only here: everything else is compiled for the baseline.
KERNELS = {"generic": []}
if MACHINE in ("x86_64", "amd64"):
    KERNELS |= {
        "avx2": ["-mavx2", "-maes"],
        "avx2_vaes": ["-mavx2", "-maes", "-mvaes"],
        "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-maes", "-mvaes"],
    }
elif MACHINE in ("aarch64", "arm64"):
    KERNELS |= {"neon": ["-march=armv8-a+crypto"]}

OPTIMISE = ["-O3", "-ffp-contract=off"]
INLINE = "inline __attribute__((always_inline, unused))"

extensions = [
    Extension(
        f"fastdrop.kernels.{name}",
        [f"fastdrop/kernels/{name}.pyx"],
        include_dirs=["fastdrop/kernels"],
        define_macros=[("CYTHON_INLINE", INLINE)],
        extra_compile_args=OPTIMISE + flags,
    )
    for name, flags in KERNELS.items()
]

setup(ext_modules=cythonize(extensions, compiler_directives={"language_level": 3, "cdivision": True}))
