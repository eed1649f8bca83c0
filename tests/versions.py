"""Run the adapters' tests with other versions of their frameworks than the environment has.

    python tests/versions.py [NAME ...]

Each version lies in a folder of its own, which comes before the environment's packages. So a version is
installed once, and the environment stays as it is. The last line for each says what pytest said.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv" / "versions"  # of the environment that `make` makes


class Version(NamedTuple):
    requirements: tuple[str, ...]
    tests: str  # a pattern of files in tests/adapters
    options: tuple[str, ...] = ()  # of pytest


# The oldest version that an extra allows, and the newest that has been tried.
VERSIONS = {
    "torch-oldest": Version(("torch==2.4.1",), "test_torch*.py"),
    "torch-newest": Version(("torch==2.14.1",), "test_torch*.py"),
    "thinc-oldest": Version(("thinc==8.3.0",), "test_thinc.py"),
    "thinc-newest": Version(("thinc==9.1.1",), "test_thinc.py"),
    # On PyTorch alone: an old Keras cannot train with a new JAX. The environment has the newest Keras.
    "keras-oldest": Version(("keras==3.0.5",), "test_keras.py", ("-k", "torch")),
}


def install(name: str) -> Path | None:
    """Install a version, unless it is there, and return its folder; None if there is no way to it."""
    folder = FOLDER / name
    done = folder / "done"
    if not done.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(folder)]
        if subprocess.run([*pip, *VERSIONS[name].requirements]).returncode:
            return None
        done.touch()
    return folder


def run(name: str) -> int:
    """Run the tests with a version, and return pytest's exit code. It is 0 for a version that is not to be had."""
    folder = install(name)
    if folder is None:
        print(f"{name}: going on without {' '.join(VERSIONS[name].requirements)}", flush=True)
        return 0
    files = sorted((ROOT / "tests" / "adapters").glob(VERSIONS[name].tests))
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *VERSIONS[name].options, *map(str, files)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    result = subprocess.run(pytest, cwd=ROOT, env=environment, text=True, capture_output=True)
    lines = (result.stdout + result.stderr).splitlines()
    if result.returncode:
        print(*lines, sep="\n")
    print(f"{name}: {''.join(result.stdout.splitlines()[-1:])}", flush=True)
    return result.returncode


def main() -> int:
    return max([run(name) for name in sys.argv[1:] or VERSIONS])


if __name__ == "__main__":
    sys.exit(main())
