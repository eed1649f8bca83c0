"""Compile the kernels, once for each instruction set that the target machine may have."""

import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
from glob import glob
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

MACHINE = platform.machine().lower()
CORE, KERNEL_DIR = "fastdrop/core", "fastdrop/kernels"

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

# These are the last of a command, so they win. A product and a sum are rounded apart, on every machine
# alike. Without errno a square root is an instruction, with the same value. build_checks.h refuses
# whatever arithmetic or layout is still not the platform's.
CHECKS = str(Path(CORE, "build_checks.h").resolve())
if sys.platform == "win32":
    OPTIMISE = ["/O2", "/fp:precise", f"/FI{CHECKS}"]
else:
    OPTIMISE = ["-O3", "-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-include", CHECKS]
# Loops apart; clang cannot, and is not to say so.
GCC_ONLY = ["-fno-inline-functions-called-once", "-Wno-ignored-optimization-argument"]
APART = [] if sys.platform == "win32" else GCC_ONLY
INLINE = "__forceinline" if sys.platform == "win32" else "inline __attribute__((always_inline, unused))"


# Flags of CFLAGS, LDFLAGS, CC and so on that would change results, or the whole process: a library that
# is linked with -ffast-math turns subnormals off for it. The last two rows change the layout of
# Python's structures.
HOSTILE = re.compile(
    r"-Ofast|-fast|-ftz|-ffast-math|-funsafe-math-optimizations|-ffinite-math-only|-fassociative-math"
    r"|-freciprocal-math|-fno-signed-zeros|-fno-honor-(?:nans|infinities)|-fapprox-func|-mrecip(?:=.*)?"
    r"|-fsingle-precision-constant|-fexcess-precision=(?!standard).*|-ffp-contract=(?!off).*"
    r"|-ffp-model=(?!strict|precise).*|-fp-model=fast.*|-ffp-eval-method=(?!source).*|-fdenormal-fp-math.*"
    r"|-mfpmath=(?!sse$).*|-mpc(?:32|64|80)|-mdaz-ftz|-M(?:daz|flushz)|.*crt(?:fastmath|prec\d+)\.o"
    r"|-menable-(?:unsafe-fp-math|no-nans|no-infs)"
    r"|-fshort-(?:enums|wchar|double)|-fpack-struct(?:=.*)?|-malign-double|-mabi=ms|-mms-bitfields"
    r"|-mlong-double-.*|-m(?:96|128)bit-long-double"
)
BEFORE_A_FLAG = ("-Xclang", "-mllvm", "-Xlinker")


def without_hostile(command: list[str]) -> tuple[list[str], list[str]]:
    """A compiler's or linker's command without the flags that it must not have, and these flags."""
    kept: list[str] = []
    removed = []
    for word in command:
        if not HOSTILE.fullmatch(word):
            kept.append(word)
            continue
        if kept[-1] in BEFORE_A_FLAG:
            removed.append(kept.pop())
        removed.append(word)
    return kept, removed


# Run beside what was built: exits with 3 if loading it changes arithmetic in the process.
LOADED = """
import ctypes, sys
import numpy as np
def arithmetic(): return repr((sys.float_info.min / 2, np.longdouble(1) / 3))  # a mode may change == too
before = arithmetic()
for path in sys.argv[1:]:
    try:
        ctypes.CDLL(path)
    except OSError:
        continue  # built for another machine
    if arithmetic() != before:
        print(path)
        sys.exit(3)
"""


class CheckedBuild(build_ext):
    """Builds with flags that keep the arithmetic, and looks whether what was built does."""

    def build_extensions(self) -> None:
        removed: set[str] = set()
        for name in self.compiler.executables:
            if command := getattr(self.compiler, name, None):
                kept, hostile = without_hostile(command)
                setattr(self.compiler, name, kept)
                removed.update(hostile)
        if removed:
            flags = " ".join(sorted(removed))
            print(f"setup.py removed flags that would change results: {flags}", file=sys.stderr)
        super().build_extensions()
        paths = [os.path.abspath(self.get_ext_fullpath(extension.name)) for extension in self.extensions]
        loaded = subprocess.run([sys.executable, "-c", LOADED, *paths], capture_output=True, text=True)
        if loaded.returncode == 3:
            raise CompileError(
                f"{loaded.stdout.strip()} changes the arithmetic of every process that loads it: "
                "build without -ffast-math in the compiler's and linker's flags and configuration"
            )


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


def tag(files: list[str]) -> str:
    """What stands for the content of `files`: two modules with one tag were compiled from the same."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]


# What compiled modules must agree on: kernels and dispatch on SHARED_BY_KERNELS, all others on each
# other's C structures too. A module says which it was compiled from, and is refused beside others.
SHARED_BY_KERNELS = [f"{KERNEL_DIR}/sweep.h"]
SHARED = [*SHARED_BY_KERNELS, *glob("fastdrop/**/*.pxd", recursive=True), "fastdrop/include/fastdrop.h"]
TAGS = {
    "FASTDROP_KERNEL_TAG": f'"fastdrop.kernel {tag(SHARED_BY_KERNELS)}"',
    "FASTDROP_BUILD_TAG": f'"{tag(SHARED)}"',
}
HEADERS = [*glob(f"{CORE}/*.h"), *glob(f"{KERNEL_DIR}/*.h")]
INCLUDED = [*glob(f"{KERNEL_DIR}/*.pxi"), *glob(f"{KERNEL_DIR}/*.h"), *glob(f"{KERNEL_DIR}/simd/*.h")]


def compiled_into(name: str) -> list[str]:
    """The files that a module is compiled from beside its own."""
    if name.removeprefix("kernels.") in KERNELS:
        return [*INCLUDED, f"{KERNEL_DIR}/sweep.pxd", CHECKS]
    own = {
        "core.call": [f"{CORE}/{part}.pxi" for part in ("arrays", "gate", "source")],
        "core.dispatch": [f"{CORE}/columns.pxi"],
        "core.layout": [f"{KERNEL_DIR}/bits.pxi"],
    }
    return [*SHARED, *HEADERS, *own.get(name, [])]


def extension(name: str, flags: list[str] = (), link: list[str] = (), **macros: str) -> Extension:
    path = "fastdrop/" + name.replace(".", "/")
    return Extension(
        f"fastdrop.{name}",
        [f"{path}.py" if Path(f"{path}.py").exists() else f"{path}.pyx"],
        include_dirs=[CORE, KERNEL_DIR, "fastdrop/include", np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *(TAGS | macros).items()],
        extra_compile_args=[*OPTIMISE, *flags],
        extra_link_args=list(link),
        depends=["setup.py", *compiled_into(name)],
    )


class WithExample(build_py):
    """The demo command's program goes into an installed package; a checkout has it beside the package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "fastdrop", "examples")
            folder.mkdir(parents=True, exist_ok=True)
            self.copy_file("examples/mlp_digits.py", str(folder))


def made_before_setup(extension: Extension) -> bool:
    """Whether its C may be of other directives than these."""
    in_c = Path(extension.sources[0]).with_suffix(".c")
    return in_c.exists() and in_c.stat().st_mtime < Path("setup.py").stat().st_mtime


threads = openmp()
extensions = [
    # These are plain Python, compiled only to make a call on a small array quicker.
    *(extension(name) for name in ("checks", "formulas", "mask", "noise", "stream")),
    *(extension(name) for name in ("core.call", "core.layout", "core.strided")),
    extension("functional"),
    extension("capi"),
    extension("torch.fast"),    # it imports PyTorch when it is imported, and compiles without it
    extension("core.dispatch", threads, threads, FASTDROP_KERNELS=f'"{" ".join(KERNELS)}"'),
    *(extension(f"kernels.{isa}", [*flags, *APART], CYTHON_INLINE=INLINE) for isa, flags in KERNELS.items()),
]

setup(
    cmdclass={"build_ext": CheckedBuild, "build_py": WithExample},
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
        force=any(made_before_setup(extension) for extension in extensions),
    ),
)
