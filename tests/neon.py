"""The tests of the kernels on the AArch64 ones, by an AArch64 Python under an emulator.

    python tests/neon.py [PYTEST ARGUMENTS]

Needs a Debian with gcc-aarch64-linux-gnu and qemu-user, and a network: Debian's Python for arm64 and the
wheels of NumPy, ml_dtypes, pytest and hypothesis are unpacked in a temporary folder, for which no
privilege is needed. The package is copied and cross-compiled there; nothing else changes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutate import copy_tree, run

COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64"
TOOLS = ("apt-get", "dpkg-deb", COMPILER, EMULATOR)
PACKAGES = ("python3", "libpython3-dev", "libstdc++6", "libgomp1")
WHEELS = ("numpy>=2.0", "ml-dtypes>=0.5", "pytest>=8", "hypothesis>=6.100")
TESTS = ("vocabulary", "kernels", "variants", "gaussian", "whole_calls", "alignments")
CHOSEN = "neon or of_today"  # of whole_calls only the new cases: the reference is slow under the emulator
SETUP = """
import platform, runpy
platform.machine = lambda: "aarch64"
runpy.run_path("setup.py", run_name="__main__")
"""


def main(arguments: list[str]) -> int:
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        print(f"NOT RUN: {', '.join(missing)} missing (Debian: gcc-aarch64-linux-gnu, qemu-user)")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        python = system(Path(folder, "system"))
        site = wheels(Path(folder, "site"), version(python))
        tree = build(copy_tree(Path(folder, "fastdrop")), Path(folder, "system"), site)
        command = [
            *(*python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN),
            *(f"tests/test_{name}.py" for name in TESTS),
            *arguments,
        ]
        environment = {
            "PYTHONPATH": f"{tree}:{site}",
            "FASTDROP_ISA": "neon",
            "PATH": "",  # no compiler and no program of this machine
        }
        return subprocess.run(command, cwd=tree, env=environment).returncode


def system(root: Path) -> list[str]:
    """Debian's Python with what it needs, unpacked in `root`; returns the command that starts it."""
    state = Path(f"{root}-apt")
    for name in ("lists/partial", "cache/archives/partial", "log"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()  # nothing is installed, so everything is fetched
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Log": state / "log",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True)
    fetch = ["install", "--no-install-recommends", "--download-only", "-y"]
    subprocess.run([*apt, *fetch, *PACKAGES], check=True)
    for package in sorted((state / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    return [str(shutil.which(EMULATOR)), "-cpu", "max", "-L", str(root), str(root / "usr/bin/python3")]


def version(python: list[str]) -> str:
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([*python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def wheels(folder: Path, python_version: str) -> Path:
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--target", folder, "--only-binary=:all:",
         "--implementation=cp", f"--python-version={python_version}", *platforms, *WHEELS], check=True,
    )  # fmt: skip
    return folder


def build(tree: Path, root: Path, site: Path) -> Path:
    """The package cross-compiled in place by this machine's setuptools and Cython."""
    headers = [*root.glob("usr/include/python3.*"), root / "usr/include", site / "numpy/_core/include"]
    environment = {
        "CC": COMPILER,
        "CFLAGS": " ".join(f"-I{header}" for header in headers),
        "LDSHARED": f"{COMPILER} -shared",
        "SETUPTOOLS_EXT_SUFFIX": ".so",
    }
    run(tree, "-c", SETUP, "--quiet", "build_ext", "--inplace", **environment).check_returncode()
    return tree


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
