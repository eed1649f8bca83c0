"""Fixtures that say which implementation a test runs on."""

from __future__ import annotations

import os

# Before NumPy is imported, here and in every process that a test starts: where the threads of its BLAS wait
# for each other on a machine with other work, a small network takes ten times the CPU time.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from collections.abc import Iterator
from types import ModuleType

import pytest

import fastdrop as fd
from fastdrop import cpu
from support import ROOT

# These read a checkout's pages and run its examples and benchmarks; beside a wheel there are none.
OF_A_CHECKOUT = ["test_benchmarks.py", "test_build.py", "test_docs.py", "test_examples.py", "test_names.py"]
collect_ignore = [] if (ROOT / "docs").is_dir() else OF_A_CHECKOUT


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--elements", type=int, default=1 << 22, help="of a sequence in tests/statistics")
    parser.addoption("--statistics-seed", type=int, default=20240229, help="of the streams there")


@pytest.fixture(params=cpu.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine has, in use for one test."""
    before = cpu.active()
    cpu.activate(request.param)
    assert cpu.active() == request.param
    yield request.param
    assert cpu.active() == request.param, "a test has changed the kernel under test"
    cpu.activate(before)


@pytest.fixture(params=["reference", "fastdrop"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    """Whatever has the calls: the reference and the package.

    For what is settled above the kernels, and for what follows from their equality with the reference,
    which other tests hold on each of them.
    """
    return fd.reference if request.param == "reference" else fd


@pytest.fixture(params=["reference", *cpu.available()])
def implementation(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """As `library`, but the package on each instruction set."""
    if request.param == "reference":
        yield fd.reference
        return
    before = cpu.active()
    cpu.activate(request.param)
    assert cpu.active() == request.param
    yield fd
    cpu.activate(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever number of threads a test sets, the next finds the old one."""
    before = fd.get_num_threads()
    yield
    fd.set_num_threads(before)
