"""Compile the vector vocabularies for Windows and macOS with the flags of setup.py, and run those that can run here.

    python tests/cross.py

This needs an x86-64 Debian with clang, libwine-dev, wine64 and gcc-mingw-w64-x86-64, and the package ziglang. For
Windows, clang-cl compiles with the headers of Wine. Under Wine, the programs for x86-64 have to print what plain
loops print. For macOS, zig compiles and nothing runs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from test_vocabulary import MACHINE, VOCABULARY, questions, text_of

from fastdrop import cpu
from support import DATA, output_of, setup_script

SYSTEMS = ("win-amd64", "win-arm64", "macosx-10.13-x86_64", "macosx-11.0-arm64")
RUNS = "win-amd64"
HEADERS = [Path("/usr/include/wine/wine", name) for name in ("msvcrt", "windows")]
LINKER = "x86_64-w64-mingw32-gcc"
TOOLS = ("clang", LINKER, "wine")
CLANG_CL = ("clang", "--driver-mode=cl", "-nologo", "-W4", "-WX", "-GS-", *(f"-imsvc{path}" for path in HEADERS))
ZIG = (sys.executable, "-m", "ziglang", "cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
ZIG_TARGETS = {"x86_64": "x86_64-macos", "arm64": "aarch64-macos"}
ZIG_FLAGS = {"-march=armv8-a+crypto": "-mcpu=generic+aes"}  # zig has names of its own
MINGW_NAMES = "-Wl,--defsym,__chkstk=___chkstk_ms,--defsym,_fltused=0"  # what MSVC's library calls them


def main() -> int:
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    missing += [str(path) for path in HEADERS if not path.is_dir()]
    missing += [] if importlib.util.find_spec("ziglang") else ["ziglang"]
    if missing:
        print(f"NOT RUN: {', '.join(missing)} missing (Debian: clang, libwine-dev, wine64, gcc-mingw-w64-x86-64)")
        return 1
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Wine's server ends later
        plain = text_of("generic", MACHINE, Path(folder), "-DFASTDROP_PLAIN")
        passed = [passes(system, *kernel, Path(folder), plain) for system in SYSTEMS for kernel in kernels(system)]
    return 0 if all(passed) else 1


def kernels(system: str) -> list[tuple[str, list[str]]]:
    """Return the name and the flags of every kernel of a system. On Windows, clang-cl is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda name, path=None: name)
        extensions = setup_script(system).extensions
    names = [(extension.name.removeprefix("fastdrop.kernels."), extension) for extension in extensions]
    return [(name, extension.extra_compile_args) for name, extension in names if name in cpu.KERNELS]


def passes(system: str, name: str, flags: list[str], folder: Path, plain: str) -> bool:
    """Compile the driver on a vocabulary, run it where that is possible, and tell whether all went well."""
    try:
        compiled = driver(system, name, flags, folder)
        if runs := system == RUNS and name in cpu.available():
            assert under_wine(compiled, folder) == plain, "it does not print what plain loops print"
    except AssertionError as error:
        print(f"{system} {name}: FAILED\n{error}", flush=True)
        return False
    print(f"{system} {name}: {'equal to plain loops' if runs else 'compiled'}", flush=True)
    return True


def driver(system: str, name: str, flags: list[str], folder: Path) -> Path:
    """Compile the driver, and return the object file."""
    compiled = folder / "driver.o"
    source = [f'-DVOCABULARY_HEADER="simd/{name}.h"', f"-I{VOCABULARY.parent}", "-c", str(DATA / "vocabulary_driver.c")]
    if system.startswith("win-"):
        output_of([*CLANG_CL, *flags, *source, f"-Fo{compiled}"])
    else:
        target = ZIG_TARGETS[system.rpartition("-")[2]]
        output_of([*ZIG, "-target", target, *(ZIG_FLAGS.get(flag, flag) for flag in flags), *source, "-o", compiled])
    return compiled


def under_wine(compiled: Path, folder: Path) -> str:
    """Link the driver, and return what it prints."""
    program = folder / "driver.exe"
    output_of([LINKER, compiled, MINGW_NAMES, "-lucrt", "-o", program])
    own = {"WINEPREFIX": str(folder / "wine"), "WINEDEBUG": "-all"}
    return output_of(["wine", program], input=questions(), env={**os.environ, **own})


if __name__ == "__main__":
    sys.exit(main())
