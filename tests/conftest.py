"""Fixtures choose the implementation that a test runs on."""

from __future__ import annotations

import os

# This has to come before NumPy is imported, here and in every process that a test starts. Where threads of
# its BLAS wait for each other on a machine with other work, a small network takes ten times the CPU time.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ.setdefault("KERAS_BACKEND", "jax")  # of these processes; test_keras.py tries each backend in its own

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

import fastdrop as fd
from fastdrop import cpu
from fastdrop.core import dispatch
from support import ROOT, THREAD_WORK

# These read a checkout's pages and sources, and run its examples and benchmarks. A wheel has none of them.
CHECKOUT = ("benchmarks", "build", "docs", "examples", "house", "names", "normal")
OF_A_CHECKOUT = [f"test_{name}.py" for name in CHECKOUT]
collect_ignore = [] if (ROOT / "docs").is_dir() else OF_A_CHECKOUT


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--elements", type=int, default=1 << 22, help="of a sequence in tests/statistics")
    parser.addoption("--statistics-seed", type=int, default=20240229, help="of the streams there")


@contextmanager
def activated(name: str) -> Iterator[None]:
    before = cpu.active()
    cpu.activate(name)
    assert cpu.active() == name
    yield
    assert cpu.active() == name, "a test has changed the kernel under test"
    cpu.activate(before)


@pytest.fixture(params=cpu.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine has, in use for one test."""
    with activated(request.param):
        yield request.param


@pytest.fixture(params=["reference", "fastdrop"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    """The reference and the package.

    A test takes this where the kernel does not matter: for what is decided above the kernels, and for what
    follows from their equality with the reference, which other tests check on each kernel.
    """
    return fd.reference if request.param == "reference" else fd


@pytest.fixture(params=["reference", *cpu.available()])
def implementation(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The reference, and the package on each instruction set."""
    if request.param == "reference":
        yield fd.reference
    else:
        with activated(request.param):
            yield fd


@pytest.fixture
def threads() -> Iterator[None]:
    """Let threads be worth it for any array, and restore their number after a test that sets it."""
    before = fd.get_num_threads()
    dispatch.set_thread_work(0)
    yield
    dispatch.set_thread_work(THREAD_WORK)
    fd.set_num_threads(before)
