"""The tests of the kernels under gcc's sanitizers of addresses and of undefined behaviour.

    python tests/sanitize.py [PYTEST ARGUMENTS]

The package is copied and built apart, so the checkout stays as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mutate import copy_tree, run

FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-sanitize=shift-base -g1"
TESTS = [f"tests/test_{name}.py" for name in ("kernels", "variants", "arrays", "mask", "properties")]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder, "fastdrop"))
        run(
            tree, "setup.py", "--quiet", "build_ext", "--inplace", CFLAGS=FLAGS, LDFLAGS=FLAGS
        ).check_returncode()
        sanitizers = {
            "LD_PRELOAD": ":".join(library(name) for name in ("libasan.so", "libubsan.so")),
            "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter leaves memory to the system at its end
            "PYTHONMALLOC": "malloc",
        }
        tests = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *arguments, **sanitizers)
    print(tests.stdout[-2000:], tests.stderr[-8000:])
    return tests.returncode


def library(name: str) -> str:
    compiler = os.environ.get("CC", "gcc").split()
    found = subprocess.run(
        [*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
