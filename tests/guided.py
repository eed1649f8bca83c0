"""Coverage-guided fuzzing of the kernels, each against the generic one: clang's libFuzzer, addresses checked.

    python tests/guided.py [--seconds N] [LIBFUZZER ARGUMENTS]

Also of passes that no call asks for: tests/data/fuzz_kernels.c makes them of bytes. What is found is left in
the working directory, in a file; its name as an argument tries it again.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from mutate import copy_tree
from sanitize import Build, compiled

from support import DATA

BUILD = Build(
    compiler="clang",
    flags="-g1 -fsanitize=fuzzer-no-link,address",
    edits=(("setup.py", '"-O3"', '"-O1"'),),  # with all that is watched, -O3 compiles for minutes
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    options, rest = parser.parse_known_args()
    if not shutil.which(BUILD.compiler) or platform.machine().lower() not in ("x86_64", "amd64"):
        print("NOT RUN: it needs clang (Debian: clang, libclang-rt-dev) and an x86-64 CPU")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        tree = compiled(copy_tree(Path(folder, "fastdrop")), BUILD)
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        limits = (f"-max_total_time={options.seconds}", "-max_len=512", "-len_control=0")
        command = [linked(tree), *limits, "-print_final_stats=1", *(rest or [corpus])]
        # The interpreter leaves memory to the system at its end.
        return subprocess.run(command, env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}).returncode


def linked(tree: Path) -> Path:
    program, libraries = tree / "fuzz_kernels", sysconfig.get_config_var("LIBDIR")
    subprocess.run(
        [
            *(BUILD.compiler, "-fsanitize=fuzzer,address", "-g1", "-O1", DATA / "fuzz_kernels.c"),
            *(f"-I{tree / 'fastdrop' / folder}" for folder in ("core", "kernels")),
            f"-I{sysconfig.get_paths()['include']}",
            *tree.glob("fastdrop/kernels/*.so"),
            *(f"-L{libraries}", f"-lpython{sysconfig.get_config_var('LDVERSION')}", "-lm", "-ldl"),
            *(f"-Wl,-rpath,{libraries}", "-o", program),
        ],
        check=True,
    )
    return program


if __name__ == "__main__":
    sys.exit(main())
