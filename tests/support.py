"""Several test modules share this: exact comparison, awkward arrays, known answers, other processes."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import fastdrop

ROOT = Path(__file__).parent.parent
PACKAGE = Path(fastdrop.__file__).parent
DATA = Path(__file__).parent / "data"
KNOWN_ANSWERS = DATA / "ars_kat_vectors.txt"
GOLDEN_STREAMS = DATA / "golden_streams.txt"

DTYPES = ("float32", "float64", "float16", "bfloat16")
MODES = ("inverted", "vanilla")
AROUND, CANARY = 192, 0xA5  # bytes on either side of a guarded array, and what is in them
# A line of a program after which threads are worth it for any array, however long they have slept.
AWAKE = "from fastdrop.core import dispatch; dispatch.set_thread_work(0)"
THREAD_WORK = 2500  # nanoseconds of work that a thread pays for, where a test does not set it
HANGING = 1200  # seconds after which another process is ended: it hangs, however busy the machine is

# --- comparison -------------------------------------------------------------------------------


def bit_patterns(array: np.ndarray) -> np.ndarray:
    """Return the elements as unsigned integers of native byte order, which == compares exactly, NaN too."""
    native = array.astype(array.dtype.newbyteorder("="))
    return native.view(f"u{array.itemsize}")


def assert_identical(actual: Any, expected: Any, what: str = "") -> None:
    """Assert that two arrays have the same dtype, shape and bits, or that two masks or two None are equal."""
    assert type(actual) is type(expected), what
    if isinstance(expected, np.ndarray):
        assert actual.dtype.newbyteorder("=") == expected.dtype.newbyteorder("="), what
        assert actual.shape == expected.shape, what
        differing = np.argwhere(bit_patterns(actual) != bit_patterns(expected))
        assert not len(differing), (
            f"{what}: {len(differing)} of {expected.size} elements differ, first at {tuple(differing[0])}: "
            f"{actual[tuple(differing[0])]!r}, not {expected[tuple(differing[0])]!r}"
        )
    else:
        assert actual == expected, what


# --- arrays -----------------------------------------------------------------------------------


def sample(size: int, dtype: Any = "float32", seed: int = 0) -> np.ndarray:
    """Return normal values. A third of them is zero or special: NaN, infinities, subnormals and so on."""
    generator = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    values = generator.standard_normal(size).astype(dtype)
    special = generator.choice(specials(dtype), size)
    return np.where(generator.random(size) < 1 / 3, special, values)


def specials(dtype: Any) -> np.ndarray:
    limits = ml_dtypes.finfo(dtype)
    positive = [0.0, limits.smallest_subnormal, limits.tiny / 2, limits.tiny, limits.max, np.inf]
    signed = [sign * float(value) for value in positive for sign in (1, -1)]
    return np.array([*signed, np.nan, -np.nan], dtype)


def at_address(array: np.ndarray, remainder: int) -> np.ndarray:
    """Return a copy of `array` that starts `remainder` bytes after a multiple of 64."""
    buffer = np.zeros(array.nbytes + 128, np.uint8)
    start = -buffer.ctypes.data % 64 + remainder
    placed = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return placed


class Place:
    """A place holds elements at a chosen address, between bytes that are known."""

    def __init__(self, content: np.ndarray, remainder: int) -> None:
        self.memory = np.full(content.nbytes + 2 * AROUND + 64, CANARY, np.uint8)
        start = -self.memory.ctypes.data % 64 + AROUND - 64 + remainder * content.itemsize % 64
        self.array = self.memory[start : start + content.nbytes].view(content.dtype)
        self.array[:] = content
        self.address = self.memory.ctypes.data + start
        self.start = start

    def intact(self) -> bool:
        before, after = self.memory[: self.start], self.memory[self.start + self.array.nbytes :]
        return bool((before == CANARY).all() and (after == CANARY).all())


# --- known answers ----------------------------------------------------------------------------


class KnownAnswer(NamedTuple):
    rounds: int
    counter: int
    key: int
    output: int


def known_answers() -> Iterator[KnownAnswer]:
    for line in content(KNOWN_ANSWERS):
        question, output = line.split("->")
        rounds, *words = question.split()
        yield KnownAnswer(int(rounds), number(words[:4]), number(words[4:]), number(output.split()))


class Golden(NamedTuple):
    seed: int
    offset: int
    keep_prob: float
    count: int
    bits: str


def golden_streams() -> Iterator[Golden]:
    for line in content(GOLDEN_STREAMS):
        question, bits = line.split(" -> ")
        seed, offset, keep_prob, count = question.split()
        yield Golden(int(seed, 16), int(offset), float.fromhex(keep_prob), int(count), bits)


def content(path: Path) -> list[str]:
    """Return the lines of `path` that are not comments."""
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def number(words: list[str]) -> int:
    """Return one integer from four hexadecimal 32-bit words, least significant first."""
    return sum(int(word, 16) << (32 * i) for i, word in enumerate(words))


def words(value: int) -> str:
    """Return the words that `number` makes `value` of."""
    return " ".join(f"{(value >> 32 * i) & 0xFFFFFFFF:08x}" for i in range(4))


# --- the package's files ----------------------------------------------------------------------


def setup_script(system: str = sysconfig.get_platform()) -> SimpleNamespace:
    """Return what setup.py defines for a system such as linux-x86_64, its extensions too; nothing is compiled."""
    if not (ROOT / "setup.py").exists():
        pytest.skip("setup.py is in a checkout alone")
    setuptools, build = pytest.importorskip("setuptools"), pytest.importorskip("Cython.Build")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(sysconfig, "get_platform", lambda: system)
        patch.setattr(build, "cythonize", lambda extensions, **options: extensions)
        patch.setattr(setuptools, "setup", lambda **about: None)
        return SimpleNamespace(**runpy.run_path("setup.py", run_name="__main__"))


def plain_package(folder: Path, init: str = "") -> Path:
    """Copy the package's modules of plain Python, with `init` as the text of ``fastdrop/__init__.py``."""
    package = folder / "fastdrop"
    for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("reference/*.py")]:
        copy = package / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(init if copy == package / "__init__.py" else path.read_text())
    return package


# --- other processes --------------------------------------------------------------------------

# How the names of the variables begin that change what the package does, or what pytest does in a process of its own.
OURS = ("FASTDROP_", "OMP_", "PYTEST_XDIST_")


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run `command` and return what it prints, as text unless ``text=False``.

    It may take as long as it needs. One limit for all commands ends those that hang for ever.
    """
    return subprocess.run(command, **{"capture_output": True, "text": True, "timeout": HANGING} | options)


def output_of(command: Sequence[str | Path], **options: Any) -> Any:
    """Return what `command` prints. It has to succeed."""
    process = run(command, **options)
    assert process.returncode == 0, (process.stdout, process.stderr)
    return process.stdout


def python(code: str | Path, *arguments: str) -> list[str]:
    """Return the command that runs `code`, a text or a file, in another interpreter."""
    return [sys.executable, *(["-c", code] if isinstance(code, str) else [str(code)]), *arguments]


def environment(**variables: str) -> dict[str, str]:
    """Return an environment with this package on the path, and with only `variables` of `OURS`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return inherited | {"PYTHONPATH": str(PACKAGE.parent)} | variables


def run_python(
    code: str | Path, *arguments: str, prefix: tuple[str, ...] = (), cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `code` in another interpreter, whose environment has `variables`."""
    command = [*prefix, *python(code, *arguments)]
    return run(command, cwd=cwd or Path(__file__).parent, env=environment(**variables))


def printed_by(code: str | Path, *arguments: str, **options: Any) -> str:
    """Return what `code` prints in another interpreter. It has to succeed."""
    process = run_python(code, *arguments, **options)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()
