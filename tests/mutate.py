"""Faults injected into the kernels, one at a time: which test finds each?

    python tests/mutate.py [PYTEST ARGUMENTS]

The package is copied and built apart, so the checkout stays as it is. The exit code is 1 where a
fault is not found.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from support import ROOT

TESTS = [
    f"tests/test_{name}.py" for name in ("random123", "kernels", "whole_calls", "variants", "guard_pages")
]


class Fault(NamedTuple):
    what: str
    file: str
    text: str
    wrong: str


FAULTS = [
    Fault(
        "one wrong bit of a block that was tied", "bernoulli.pxi", "|= ties[2 * i]\n", "|= ties[2 * i] ^ 1\n"
    ),
    Fault("the next plane", "bernoulli.pxi", "blocks_set(0, plane))", "blocks_set(0, plane + 1))"),
    Fault("the first round of another plane", "bernoulli.pxi", "= words[1]", "= words[0]"),
    Fault("a threshold one too large", "bernoulli.pxi", "= threshold\n", "= threshold + 1\n"),
    Fault(
        "the halves of the seed swapped",
        "entry.pxi",
        "task.seed[0], task.seed[1]",
        "task.seed[1], task.seed[0]",
    ),
    Fault("a block carried over lost", "entry.pxi", "carry_last_block(now, ahead)", "pass"),
    Fault("six rounds", "ars.pxi", "ROUNDS = 7 ", "ROUNDS = 6 "),
    Fault("the golden ratio in its last digit", "ars.pxi", "0x9E3779B97F4A7C15", "0x9E3779B97F4A7C14"),
    Fault(
        "a lost tail",
        "apply.pxi",
        "apply_part(dtype, form, task, first + body, last - first - body, keep, body)",
        "pass",
    ),
    Fault(
        "the words of a mask at odd bits swapped",
        "bits.pxi",
        "(high << (64 - shift))",
        "(low << (64 - shift))",
    ),
    Fault("bits before a part of a byte lost", "bits.pxi", "end[0] = bits[first >> 3]", "end[0] = 0"),
    Fault("the jump between rows lost", "entry.pxi", "first // task.row * task.jump", "0"),
    Fault("planes that stop at the 32nd", "bernoulli.pxi", "plane < 64", "plane < 32"),
]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder, "fastdrop"))
        missed = [fault.what for fault in FAULTS if not found(tree, fault, arguments)]
    print(
        f"{len(FAULTS) - len(missed)} of {len(FAULTS)} found"
        + "".join(f"\nmissed: {what}" for what in missed)
    )
    return 1 if missed else 0


def found(tree: Path, fault: Fault, arguments: list[str]) -> bool:
    """Whether the tests fail with the fault in the kernels."""
    path = tree / "fastdrop" / "kernels" / fault.file
    right = path.read_text()
    if right.count(fault.text) != 1:
        raise SystemExit(f"{fault.what}: {fault.text!r} must stand once in {fault.file}")
    path.write_text(right.replace(fault.text, fault.wrong))
    try:
        run(tree, "setup.py", "--quiet", "build_ext", "--inplace").check_returncode()
        tests = run(tree, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS, *arguments)
    finally:
        path.write_text(right)
    finder = re.search(r"^(?:FAILED|ERROR) (\S+)", tests.stdout, re.MULTILINE)
    print(f"{fault.what}: {finder[1] if finder else 'NOT FOUND'}", flush=True)
    return finder is not None


def copy_tree(tree: Path) -> Path:
    """The checkout, to be built anew."""
    left_out = shutil.ignore_patterns(".git", ".venv", "_build", "__pycache__", "*.so")
    shutil.copytree(ROOT, tree, ignore=left_out)
    return tree


def run(
    tree: Path, *command: str, starter: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(tree)} | environment
    return subprocess.run(
        [*starter, sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
