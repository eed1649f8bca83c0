"""Compile the kernels, once for each instruction set that the target machine may have."""

import os
import platform
import subprocess
import sys
import tempfile
from glob import glob
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

MACHINE = platform.machine().lower()
KERNEL_DIR = "fastdrop/kernels"

# Wide instructions only here: everything else is compiled for the baseline.
KERNELS = {"generic": []}
if sys.platform == "win32":
    pass  # the wide kernels are written for gcc and clang; MSVC has the generic one, with the same bits
elif MACHINE in ("x86_64", "amd64"):
    KERNELS |= {
        "avx2": ["-mavx2", "-mf16c", "-maes"],
        "avx2_vaes": ["-mavx2", "-mf16c", "-maes", "-mvaes"],
        "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-maes", "-mvaes"],
    }
elif MACHINE in ("aarch64", "arm64"):
    KERNELS |= {"neon": ["-march=armv8-a+crypto"]}

# Never -ffast-math: a product and a sum are rounded apart, on every machine alike. Without errno a
# square root is an instruction, with the same value.
OPTIMISE = ["/O2"] if sys.platform == "win32" else ["-O3", "-ffp-contract=off", "-fno-math-errno"]
# Loops apart; clang cannot, and is not to say so.
GCC_ONLY = ["-fno-inline-functions-called-once", "-Wno-ignored-optimization-argument"]
APART = [] if sys.platform == "win32" else GCC_ONLY
INLINE = "__forceinline" if sys.platform == "win32" else "inline __attribute__((always_inline, unused))"


def openmp() -> list[str]:
    """The flag for OpenMP, if the compiler has it; without it everything runs on one thread."""
    flag = "/openmp" if sys.platform == "win32" else "-fopenmp"
    if sys.platform == "win32":
        return [flag]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "openmp.c")
        source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
        command = [*os.environ.get("CC", "cc").split(), flag, str(source), "-o", str(Path(folder, "openmp"))]
        try:
            found = subprocess.run(command, capture_output=True).returncode == 0
        except OSError:
            found = False
    return [flag] if found else []


def extension(name: str, flags: list[str] = (), link: list[str] = (), **macros: str) -> Extension:
    path = "fastdrop/" + name.replace(".", "/")
    return Extension(
        f"fastdrop.{name}",
        [f"{path}.py" if Path(f"{path}.py").exists() else f"{path}.pyx"],
        include_dirs=[KERNEL_DIR, "fastdrop/include", np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *macros.items()],
        extra_compile_args=[*OPTIMISE, *flags],
        extra_link_args=list(link),
        depends=[
            *glob("fastdrop/*.pxd"),
            *glob(f"{KERNEL_DIR}/*.p[xy][di]"),
            *glob(f"{KERNEL_DIR}/**/*.h", recursive=True),
        ],
    )


class WithExample(build_py):
    """The demo command's program goes into an installed package; a checkout has it beside the package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "fastdrop", "examples")
            folder.mkdir(parents=True, exist_ok=True)
            self.copy_file("examples/mlp_digits.py", str(folder))


threads = openmp()
extensions = [
    # Plain Python, compiled only to make a call on a small array quicker.
    *(extension(name) for name in ("arguments", "mask", "noise", "stream")),
    *(extension(name) for name in ("engine", "layout", "strided")),
    extension("functional"),
    extension("gaussian"),
    extension("capi"),
    extension("kernels.dispatch", threads, threads, FASTDROP_KERNELS=f'"{" ".join(KERNELS)}"'),
    *(extension(f"kernels.{isa}", [*flags, *APART], CYTHON_INLINE=INLINE) for isa, flags in KERNELS.items()),
]

setup(
    cmdclass={"build_py": WithExample},
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "cdivision": True,
            "annotation_typing": False,
            "auto_pickle": False,  # values are made again through their own check alone
            "freethreading_compatible": True,
        },
        nthreads=os.cpu_count() if sys.platform == "linux" else 0,
    )
)
