"""Compile the package, and the kernels once per instruction set that the target machine may have."""

import hashlib
import multiprocessing
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from glob import glob
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError
from setuptools.modified import newer_group

CORE, KERNEL_DIR = "fastdrop/core", "fastdrop/kernels"
WINDOWS = sysconfig.get_platform().startswith("win-")  # with MSVC; MinGW is gcc


def target() -> str:
    """Return the architecture that is compiled for, which need not be that of this machine."""
    system = sysconfig.get_platform()
    flags = os.environ.get("ARCHFLAGS", "") if system.startswith("macosx") else ""  # cibuildwheel sets them
    chosen = set(re.findall(r"-arch\s+(\S+)", flags))
    name = chosen.pop() if len(chosen) == 1 else system.rpartition("-")[2]
    if name == "universal2":  # a file with wide instructions has one architecture: that of this machine
        name = platform.machine()
        os.environ["ARCHFLAGS"] = f"-arch {name}"
        os.environ["_PYTHON_HOST_PLATFORM"] = system.replace("universal2", name)
    return name.lower()


def clang_cl() -> str | None:
    """Return where clang-cl is: clang with MSVC's options, alone or as a component of Visual Studio."""
    folder = r"VC\Tools\Llvm" + (r"\ARM64\bin" if MACHINE == "arm64" else r"\x64\bin")
    installed = [os.environ.get(name, "") for name in ("ProgramFiles", "ProgramFiles(x86)")]
    places = [
        os.environ.get("PATH", os.defpath),
        *(str(Path(root, "LLVM", "bin")) for root in installed),
        *(found for root in installed for found in glob(rf"{root}\Microsoft Visual Studio\*\*\{folder}")),
    ]
    return shutil.which("clang-cl", path=os.pathsep.join(places))


MACHINE = target()
CLANG_CL = clang_cl() if WINDOWS else None

# Only the kernels may have wide instructions. Everything else is compiled for the baseline.
KERNELS = {"generic": []}
if WINDOWS and not CLANG_CL:
    pass  # the wide kernels need gcc or clang; MSVC builds only the generic kernel, with the same bits
elif MACHINE in ("x86_64", "amd64"):
    KERNELS |= {
        "avx2": ["-mavx2", "-mf16c", "-maes"],
        "avx2_vaes": ["-mavx2", "-mf16c", "-maes", "-mvaes"],
        "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-maes", "-mvaes"],
    }
elif MACHINE in ("aarch64", "arm64"):
    KERNELS |= {"neon": ["-march=armv8-a+crypto"]}

# These flags come last in a command, so they win. A product and a sum are rounded separately on every
# machine. Without errno a square root is one instruction, with the same value. build_checks.h refuses
# any arithmetic or structure layout that is still not the platform's.
CHECKS = str(Path(CORE, "build_checks.h").resolve())
if WINDOWS:
    ARITHMETIC, QUIET, FAST, QUICK = ["/fp:precise", f"/FI{CHECKS}"], [], ["/O2"], ["/O2"]
else:
    ARITHMETIC = ["-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-include", CHECKS]
    QUIET = ["-Wno-unused-function"]  # Cython defines more helpers than a module calls
    FAST, QUICK = ["-O3"], ["-O2"]  # -O3 compiles a third longer, and only the kernels gain from it
# gcc inlines functions that are called once into one huge function, and then stops optimising it. clang
# has no such flag, so its warning is silenced.
GCC_ONLY = ["-fno-inline-functions-called-once", "-Wno-ignored-optimization-argument"]
APART = [] if WINDOWS else GCC_ONLY
INLINE = "__forceinline" if WINDOWS else "inline __attribute__((always_inline, unused))"
# clang-cl takes clang's flags behind this word. It contracts products and sums unless the last flag forbids it.
AS_CLANG = "/clang:"
TRIPLES = {"amd64": "x86_64-pc-windows-msvc", "arm64": "aarch64-pc-windows-msvc"}


# Flags in CFLAGS, LDFLAGS, CC and so on that would change results, or the whole process: a library that
# is linked with -ffast-math turns off subnormals for the process. The flags of the two rows after these
# change the layout of Python's structures. Those of the last row let any module have the instructions of
# the CPU that compiles it, so that a wheel that pip keeps ends the process on another one. Nothing is
# slower without them, because the kernels are chosen at import.
HOSTILE = re.compile(
    r"-Ofast|-fast|-ftz|-ffast-math|-funsafe-math-optimizations|-ffinite-math-only|-fassociative-math"
    r"|-freciprocal-math|-fno-signed-zeros|-fno-honor-(?:nans|infinities)|-fapprox-func|-mrecip(?:=.*)?"
    r"|-fsingle-precision-constant|-fexcess-precision=(?!standard).*|-ffp-contract=(?!off).*"
    r"|-ffp-model=(?!strict|precise).*|-fp-model=fast.*|-ffp-eval-method=(?!source).*|-fdenormal-fp-math.*"
    r"|-mfpmath=(?!sse$).*|-mpc(?:32|64|80)|-mdaz-ftz|-M(?:daz|flushz)|.*crt(?:fastmath|prec\d+)\.o"
    r"|-menable-(?:unsafe-fp-math|no-nans|no-infs)"
    r"|-funsigned-(?:char|bitfields)|-fno-signed-char|-fshort-(?:enums|wchar|double)|-fpack-struct(?:=.*)?|-malign-double|-mabi=ms|-mms-bitfields"
    r"|-mlong-double-.*|-m(?:96|128)bit-long-double"
    r"|-m(?:arch|cpu)=native|-xHost"
)
BEFORE_A_FLAG = ("-Xclang", "-mllvm", "-Xlinker")


def without_hostile(command: list[str]) -> tuple[list[str], list[str]]:
    """Split the command of a compiler or linker into the words that may stay and the hostile flags.

    The plain `-g` of Python's own configuration is removed too, without a message. Debug information took
    a third of the compile time and 85 % of the wheel. Pass `-g1` or more in CFLAGS to have it.
    """
    kept: list[str] = []
    removed = []
    for word in command:
        if word == "-g":
            continue
        if not HOSTILE.fullmatch(word):
            kept.append(word)
            continue
        if kept[-1] in BEFORE_A_FLAG:
            removed.append(kept.pop())
        removed.append(word)
    return kept, removed


# This program loads what was built. It exits with 3 if that changes the arithmetic of the process.
LOADED = """
import ctypes, sys
import numpy as np
def arithmetic(): return repr((sys.float_info.min / 2, np.longdouble(1) / 3))  # a mode may change == too
before = arithmetic()
for path in sys.argv[1:]:
    try:
        ctypes.CDLL(path)
    except OSError:
        continue  # it was built for another machine
    if arithmetic() != before:
        print(path)
        sys.exit(3)
"""


class CheckedBuild(build_ext):
    """Build without flags that change the arithmetic, and check the result."""

    def build_extensions(self) -> None:
        removed: set[str] = set()
        for name in self.compiler.executables:
            if command := getattr(self.compiler, name, None):
                kept, hostile = without_hostile(command)
                setattr(self.compiler, name, kept)
                removed.update(hostile)
        if removed:
            flags = " ".join(sorted(removed))
            print(f"setup.py removed flags that change results, or fit this CPU alone: {flags}", file=sys.stderr)
        self.built = 0
        self.build_in_turn()
        paths = [os.path.abspath(self.get_ext_fullpath(extension.name)) for extension in self.extensions]
        loaded = subprocess.run([sys.executable, "-c", LOADED, *paths], capture_output=True, text=True)
        if loaded.returncode == 3:
            raise CompileError(
                f"{loaded.stdout.strip()} changes the arithmetic of every process that loads it: "
                "build without -ffast-math in the compiler's and linker's flags and configuration"
            )
        if not threads:
            print("The compiler has no OpenMP, so large calls will run on one thread.", file=sys.stderr)

    def build_in_turn(self) -> None:
        """Build the kernels with clang-cl, where it is found, and everything else with the platform's compiler."""
        if CLANG_CL is None:
            super().build_extensions()
            return
        if not self.compiler.initialized:
            self.compiler.initialize()
        every, own = self.extensions, self.compiler.cc
        kernels = [extension for extension in every if extension.name in BY_CLANG]
        for self.compiler.cc, self.extensions in (
            (CLANG_CL, kernels),
            (own, [extension for extension in every if extension not in kernels]),
        ):
            super().build_extensions()
        self.extensions = every

    def build_extension(self, extension: Extension) -> None:
        """Build a module, and say so, because all of them take a minute or more."""
        path = Path(self.get_ext_fullpath(extension.name))
        beside_source = Path(*extension.name.split(".")).with_name(path.name)
        before = path.stat().st_mtime_ns if path.exists() else 0
        if self.editable_mode and not newer_group([*extension.sources, *extension.depends], str(beside_source)):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(beside_source), str(path))  # an editable install compiles nothing twice
        else:
            super().build_extension(extension)
        self.built += 1
        if path.stat().st_mtime_ns != before:
            print(f"compiled {extension.name} ({self.built} of {len(self.extensions)})", file=sys.stderr, flush=True)


# --- what is on this machine ------------------------------------------------------------------

COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
COMPILING = {"build", "build_ext", "install", "develop", "bdist_wheel", "editable_wheel"}
DESCRIBING = {"egg_info", "dist_info", "sdist"}  # what pip asks first, and the source distribution, need no C files


def compiled(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compile and link a program; raise an OSError if there is no compiler."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "program.c")
        source.write_text(program)
        own = [word for name in ("CPPFLAGS", "CFLAGS", "LDFLAGS") for word in shlex.split(os.environ.get(name, ""))]
        command = [*COMPILER, *own, *flags, str(source), "-o", str(Path(folder, "program"))]
        return subprocess.run(command, capture_output=True, text=True, errors="replace")


def missing() -> str:
    """Say what has to be installed before anything can be compiled; nothing if that is all there."""
    if WINDOWS:
        return ""  # setuptools looks for MSVC, and says so
    try:
        tried = compiled("#include <Python.h>\nint main(void) { return 0; }\n", f"-I{sysconfig.get_path('include')}")
    except OSError:
        return (
            f"A C compiler was not found ({COMPILER[0]}): install one (Debian and Ubuntu: apt install gcc libc6-dev; "
            "Fedora: dnf install gcc; macOS: xcode-select --install), or name yours in CC."
        )
    if re.search(r"Python\.h\W+(?:No such file|file not found)", tried.stderr):
        return (
            f"The headers of Python {sysconfig.get_python_version()} were not found: install them (Debian and Ubuntu: "
            "apt install python3-dev; Fedora: dnf install python3-devel)."
        )
    if tried.returncode:
        advice = "look at CC, CFLAGS and LDFLAGS"
        if re.search(r"\.h\W+(?:No such file|file not found)", tried.stderr):
            advice = "install the C library's headers (Debian and Ubuntu: apt install libc6-dev)"
        return f"The C compiler ({COMPILER[0]}) cannot build a program: {advice}. It says:\n{tried.stderr.strip()}"
    return ""


def openmp() -> list[str]:
    """Return the flag for OpenMP if the compiler has it. Without OpenMP everything runs on one thread."""
    if WINDOWS:
        return ["/openmp"]
    try:
        tried = compiled("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n", "-fopenmp")
    except OSError:
        return []
    return [] if tried.returncode else ["-fopenmp"]


def cython_processes() -> int:
    """Return how many processes may run Cython; 0 if it has to run in this one, one module after another."""
    if sys.platform != "linux":
        return 0
    try:
        multiprocessing.Lock()
    except (ImportError, OSError):  # there are no semaphores, or /dev/shm is not writable, as in some sandboxes
        return 0
    return os.cpu_count() or 1


def tag(files: list[str]) -> str:
    """Return a tag of the contents of `files`. Modules with equal tags were compiled from the same files."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]


# The files that compiled modules must agree on: the kernels and dispatch on SHARED_BY_KERNELS, all other
# modules also on each other's C structures. Each module carries a tag of these files, and is refused
# beside a module with another tag.
SHARED_BY_KERNELS = [f"{KERNEL_DIR}/sweep.h"]
SHARED = [*SHARED_BY_KERNELS, *glob("fastdrop/**/*.pxd", recursive=True), "fastdrop/include/fastdrop.h"]
TAGS = {
    "FASTDROP_KERNEL_TAG": f'"fastdrop.kernel {tag(SHARED_BY_KERNELS)}"',
    "FASTDROP_BUILD_TAG": f'"{tag(SHARED)}"',
}
HEADERS = [*glob(f"{CORE}/*.h"), *glob(f"{KERNEL_DIR}/*.h")]
INCLUDED = [*glob(f"{KERNEL_DIR}/*.pxi"), *glob(f"{KERNEL_DIR}/*.h"), *glob(f"{KERNEL_DIR}/simd/*.h")]


def compiled_into(name: str) -> list[str]:
    """Return the files that a module is compiled from, other than its own."""
    if name.removeprefix("kernels.") in KERNELS:
        return [*INCLUDED, f"{KERNEL_DIR}/sweep.pxd", CHECKS]
    own = {
        "core.call": [f"{CORE}/{part}.pxi" for part in ("arrays", "explain", "gate", "source")],
        "core.dispatch": [f"{CORE}/columns.pxi"],
        "core.layout": [f"{KERNEL_DIR}/bits.pxi"],
        "jax.handlers": [*glob("fastdrop/jax/*.pxi"), "fastdrop/jax/atomic.h"],
    }
    return [*SHARED, *HEADERS, *own.get(name, [])]


def extension(name: str, flags: list[str] = QUICK, link: list[str] = (), **macros: str) -> Extension:
    path = "fastdrop/" + name.replace(".", "/")
    return Extension(
        f"fastdrop.{name}",
        [f"{path}.py" if Path(f"{path}.py").exists() else f"{path}.pyx"],
        include_dirs=[CORE, KERNEL_DIR, "fastdrop/include", np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *(TAGS | macros).items()],
        extra_compile_args=[*ARITHMETIC, *QUIET, *flags],
        extra_link_args=list(link),
        depends=["setup.py", *compiled_into(name)],
    )


class WithExample(build_py):
    """Copy the program of the demo command into the package. A checkout has it beside the package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "fastdrop", "examples")
            folder.mkdir(parents=True, exist_ok=True)
            self.copy_file("examples/mlp_digits.py", str(folder))


def made_before_setup(extension: Extension) -> bool:
    """Tell whether the C file of an extension is older than setup.py, which has the directives."""
    in_c = Path(extension.sources[0]).with_suffix(".c")
    return in_c.exists() and in_c.stat().st_mtime < Path("setup.py").stat().st_mtime


def in_c(extensions: list[Extension]) -> list[Extension]:
    """Return the extensions with their C files, which Cython writes where they are out of date."""
    return cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "cdivision": True,
            "annotation_typing": False,
            "auto_pickle": False,  # values are recreated only through their own check
            "freethreading_compatible": True,
        },
        nthreads=cython_processes(),
        force=any(made_before_setup(extension) for extension in extensions),
    )


def kernel(isa: str, flags: list[str]) -> Extension:
    """Return the module of an instruction set."""
    if CLANG_CL is None:
        return extension(f"kernels.{isa}", [*FAST, *flags, *APART], CYTHON_INLINE=INLINE)
    own = [f"{AS_CLANG}{flag}" for flag in ("-O3", *flags, "-fno-math-errno", "-ffp-contract=off")]
    return extension(f"kernels.{isa}", [f"--target={TRIPLES[MACHINE]}", *FAST, *own], CYTHON_INLINE=INLINE)


compiles = bool(COMPILING.intersection(sys.argv))
describes = not compiles and bool(DESCRIBING.intersection(sys.argv))
if compiles and (sentence := missing()):
    sys.exit(sentence)

BY_CLANG = {f"fastdrop.kernels.{isa}" for isa in KERNELS}
threads = openmp()
extensions = [
    # These are plain Python, compiled only to make a call on a small array quicker.
    *(extension(name) for name in ("checks", "formulas", "mask", "noise", "stream")),
    extension("core.call"),
    *(extension(name, FAST, CYTHON_INLINE=INLINE) for name in ("core.layout", "core.strided")),
    extension("functional"),
    extension("capi"),
    extension("torch.fast"),    # it imports PyTorch when it is imported, and compiles without it
    extension("jax.handlers"),  # it compiles without JAX, and does not import it
    extension("core.dispatch", [*FAST, *threads], threads, FASTDROP_KERNELS=f'"{" ".join(KERNELS)}"'),
    *(kernel(isa, flags) for isa, flags in KERNELS.items()),
]

setup(
    cmdclass={"build_ext": CheckedBuild, "build_py": WithExample},
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=extensions if describes else in_c(extensions),
)
