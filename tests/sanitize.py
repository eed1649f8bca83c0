"""The tests of the kernels on builds of other kinds: sanitizers, valgrind, clang, AVX-512 emulated.

    python tests/sanitize.py [NAME ...] [PYTEST ARGUMENTS]

Without a name, all of BUILDS. The package is copied and built apart, so the checkout stays as it is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from xml.etree import ElementTree

from mutate import copy_tree, run

from support import DATA

TESTS = ("kernels", "variants", "arrays", "mask", "whole_calls")
MALLOC = {"PYTHONMALLOC": "malloc"}  # every object is the system's, and watched
ONE_THREAD = {"FASTDROP_NUM_THREADS": "1"}  # GNU OpenMP's own barriers look like races
CHECKED = "-DFASTDROP_ASSERT -g1"  # what the code says of itself is checked as it runs
REPORTS = "valgrind.%p.xml"


class Build(NamedTuple):
    flags: str = ""
    compiler: str = "gcc"
    edits: tuple[tuple[str, str, str], ...] = ()  # file, text, what stands there instead
    libraries: tuple[str, ...] = ()  # preloaded
    source: str = ""  # in tests/data: compiled and preloaded too
    command: tuple[str, ...] = ()  # runs the interpreter
    environment: Mapping[str, str] = MappingProxyType({})
    tests: tuple[str, ...] = TESTS
    chosen: str = ""  # by pytest -k


BUILDS = {
    "address": Build(
        flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-sanitize=shift-base "
        + CHECKED,
        libraries=("libasan.so", "libubsan.so"),
        # The interpreter leaves memory to the system at its end.
        environment=MALLOC | {"ASAN_OPTIONS": "detect_leaks=0"},
    ),
    "thread": Build(
        flags=f"-fsanitize=thread {CHECKED}",
        libraries=("libtsan.so",),
        command=("setarch", "-R"),  # gcc 12's finds no room in a randomised address space
        environment=ONE_THREAD | {"TSAN_OPTIONS": "exitcode=66"},
        tests=("concurrency",),
        chosen="test_calls_of_every_kind or test_threads_with or test_threads_on",
    ),
    "openmp": Build(  # the threads of one call
        flags=f"-fsanitize=thread {CHECKED}",
        libraries=("libtsan.so",),
        source="openmp_on_pthreads.c",
        command=("setarch", "-R"),
        environment={"TSAN_OPTIONS": "exitcode=66"},
        tests=("races",),
    ),
    "valgrind": Build(
        flags=CHECKED,
        command=("valgrind", "--error-limit=no", "--xml=yes", f"--xml-file={REPORTS}"),
        environment=MALLOC | ONE_THREAD,
        tests=("kernels",),
        chosen="test_every_length or test_lengths_near",
    ),
    "clang": Build(flags="-Wall -Wextra", compiler="clang", tests=(*TESTS, "normal", "gaussian")),
    "emulated": Build(  # AVX-512 and VAES where the CPU has AVX2
        flags="-Wno-psabi",
        edits=(
            ("setup.py", '"-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"', '"-mavx2", "-mf16c"'),
            ("setup.py", '"-mvaes"', '"-include", "tests/data/emulated_avx512.h"'),
            ("fastdrop/core/cpu_features.h", "(vaes && !strcmp", "(avx2 && !strcmp"),
            ("fastdrop/core/cpu_features.h", "(avx512 && !strcmp", "(avx2 && !strcmp"),
        ),
        tests=(*TESTS, "gaussian"),
    ),
}


def main(arguments: list[str]) -> int:
    chosen = [name for name in arguments if name in BUILDS]
    options = [argument for argument in arguments if argument not in BUILDS]
    failed = [name for name in chosen or BUILDS if not passes(name, BUILDS[name], options)]
    print(f"failed: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


def passes(name: str, build: Build, options: list[str]) -> bool:
    tools = {build.compiler, *build.command[:1]}
    if missing := {tool for tool in tools if not shutil.which(tool)}:
        print(f"{name}: NOT RUN, {', '.join(sorted(missing))} missing", flush=True)
        return False
    with tempfile.TemporaryDirectory() as folder:
        tree = compiled(copy_tree(Path(folder, "fastdrop")), build)
        libraries = [library(build.compiler, file) for file in build.libraries]
        if build.source:
            libraries.append(shared_library(build, Path(folder)))
        preload = ":".join(libraries)
        command = [
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--capture=no"),  # else reports are lost
            *(f"tests/test_{test}.py" for test in build.tests),
            *(("-k", build.chosen) if build.chosen else ()),
        ]
        starter = (*build.command, *(("env", f"LD_PRELOAD={preload}") if preload else ()))
        tests = run(tree, *command, *options, starter=starter, **build.environment)
        errors = [error for report in tree.glob(REPORTS.replace("%p", "*")) for error in ours(report)]
        errors += sorted(set(re.findall("^SUMMARY: .*", tests.stdout + tests.stderr, re.MULTILINE)))
    said = tests.stdout[-2000:], tests.stderr[-8000:], *errors[:20]
    print(f"{name}: exit {tests.returncode}", *said, flush=True)
    return tests.returncode == 0 and not errors


def compiled(tree: Path, build: Build) -> Path:
    for name, text, instead in build.edits:
        content = (tree / name).read_text()
        if text not in content:
            raise SystemExit(f"{text!r} must stand in {name}")
        (tree / name).write_text(content.replace(text, instead))
    environment = {"CC": build.compiler, "CFLAGS": build.flags, "LDFLAGS": build.flags}
    made = run(tree, "setup.py", "--quiet", "build_ext", "--inplace", **environment)
    if made.returncode:
        raise SystemExit(made.stderr)
    return tree


def library(compiler: str, name: str) -> str:
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def shared_library(build: Build, folder: Path) -> str:
    """The path of the library that a build's source makes."""
    path = folder / f"{build.source}.so"
    command = [build.compiler, *build.flags.split(), "-fPIC", "-shared", DATA / build.source, "-o", path]
    subprocess.run(command, check=True)
    return str(path)


def ours(report: Path) -> list[str]:
    """Valgrind's errors with the package anywhere on the stack; the interpreter and NumPy have others.

    Leaks do not count, which it looks for in XML in any case: the interpreter leaves memory at its end.
    """
    package = str(report.parent.resolve() / "fastdrop")
    try:
        root = ElementTree.parse(report).getroot()
    except ElementTree.ParseError:
        return []  # of a child that became another program, and left its report unfinished
    return [
        ElementTree.tostring(error, encoding="unicode")
        for error in root.iter("error")
        if not (error.findtext("kind") or "").startswith("Leak_")
        and any((frame.findtext("obj") or "").startswith(package) for frame in error.iter("frame"))
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
