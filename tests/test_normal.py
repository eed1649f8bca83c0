"""normal.h, compiled by itself for every machine there is a compiler for, against the reference."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import pytest
from test_vocabulary import HEADERS, MACHINE, VOCABULARY, flags_of, tools

from fastdrop import cpu
from fastdrop.reference import normals
from support import DATA, output_of


def words() -> np.ndarray:
    """Both ends, powers of two and their neighbours, and words at random, in groups of 32."""
    powers = (1 << np.arange(32, dtype=np.uint32))[:, None] + np.arange(-16, 16).astype(np.uint32)
    ends = np.arange(2**12, dtype=np.uint32)
    random = np.random.default_rng(5).integers(0, 2**32, 2**18, np.uint32)
    return np.concatenate([powers.ravel(), ends, ~ends, random]).reshape(-1, 2, 16)


@functools.cache
def expected() -> bytes:
    first, second = words()[:, 0].copy(), words()[:, 1].copy()
    radius, coordinates = normals.radius(first), normals.direction(second)
    return (np.float32(1) + np.stack([radius * coordinate for coordinate in coordinates], axis=1)).tobytes()


def assert_normals_of(compiler, emulator, flags, program):
    source = str(DATA / "normal_driver.c")
    command = [compiler, "-std=gnu11", "-static", *flags, f"-I{VOCABULARY.parent}", source, "-lm"]
    command += ["-o", str(program), "-Wall", "-Wextra", "-Werror"]
    output_of(command)
    normals = output_of([*emulator, program], input=words().tobytes(), text=False)
    assert normals == expected()


@pytest.mark.parametrize(("name", "machine"), [("generic", MACHINE), *HEADERS.items()])
def test_normals_with_the_flags_of_every_kernel(name, machine, tmp_path):
    compiler, emulator = tools(machine)
    flags = flags_of(name, machine)
    assert "-ffp-contract=off" in flags
    if not emulator and name not in cpu.available():
        pytest.skip(f"this CPU does not have {name}")
    assert_normals_of(compiler, emulator, flags, tmp_path / name)


@pytest.mark.skipif(MACHINE != "x86_64", reason="the flags are for x86-64")
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flags", ["-O0", "-O1", "-O3", "-O3 -mavx2 -mfma", "-O2 -fno-tree-vectorize"])
def test_compiler_and_optimisation_change_nothing(compiler, flags, tmp_path):
    if not shutil.which(compiler) or ("-mavx2" in flags and "avx2" not in cpu.available()):
        pytest.skip(f"no {compiler}, or no AVX2")
    if compiler == "clang":
        flags = flags.replace("-fno-tree-vectorize", "-fno-vectorize")
    assert_normals_of(compiler, [], [*flags.split(), "-ffp-contract=off"], tmp_path / "normals")


def test_accuracy_over_a_grid_of_words(tmp_path):
    """A million words, evenly spaced; normal_grid.c tells how to try all of them."""
    compiler = shutil.which("gcc") or pytest.skip("no gcc")
    program = str(tmp_path / "grid")
    flags = ["-O2", "-ffp-contract=off", "-fno-math-errno", f"-I{VOCABULARY.parent}", "-Wall", "-Wextra"]
    output_of([compiler, *flags, str(DATA / "normal_grid.c"), "-lm", "-o", program])
    printed = output_of([program, "4099"])
    radius_error, largest, direction_error, mean, second, fourth = map(float, printed.split())
    assert radius_error < 1.6e-7
    assert direction_error < 1.1e-7
    assert largest == pytest.approx(6.76370573)
    # A sum over a grid is nearer to the integral than one over as many random numbers.
    assert abs(mean) < 1e-5
    assert abs(second) < 1e-4
    assert abs(fourth) < 1e-3
