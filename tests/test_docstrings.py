"""The examples in the docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest

import fastdrop as fd

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
NOT_EVERYWHERE = ("dask", "jax", "keras", "thinc", "torch")  # these need their frameworks, and have tests of their own
MODULES = [
    module.name
    for package in (fd, fd.core, fd.reference)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    if not module.ispkg and module.name.rpartition(".")[2] not in NOT_EVERYWHERE
]
CALLS = [name for name, value in vars(fd.reference).items() if name in dir(fd) and inspect.isfunction(value)]
KINDS = ["GaussianNoise", "Mask", "MonteCarlo", "Stream", "Tile"]
OTHERS = [*KINDS, "get_num_threads", "mc_predict", "set_num_threads"]
LAYERS = fd.layers.__all__
DTYPES = ("float32", "float64", "float16", "bfloat16")
DTYPED = [name for name in CALLS if name != "keep_mask"]


def examples(name: str, value: object) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder().find(value, name, globs={"fd": fd, "np": np})
    return [test for test in found if test.examples]


def run(tests: list[doctest.DocTest]) -> None:
    runner = doctest.DocTestRunner(optionflags=OPTIONS | doctest.REPORT_NDIFF)
    for test in tests:
        report: list[str] = []
        runner.run(test, out=report.append)
        assert not report, "".join(report)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_modules(name):
    run(examples(name, importlib.import_module(name)))


@pytest.mark.parametrize("name", [*CALLS, *OTHERS])
def test_every_public_name_is_documented(name):
    text = inspect.getdoc(getattr(fd, name))
    assert text
    assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", [*CALLS, *OTHERS])
def test_every_call_has_an_example_that_runs(name):
    tests = examples(name, getattr(fd, name))
    assert tests, f"{name} has no example"
    run(tests)


@pytest.mark.parametrize("name", [*CALLS, *KINDS, "mc_predict", *LAYERS])
def test_a_docstring_is_complete_by_itself(name):
    text = inspect.getdoc(getattr(fd.layers if name in LAYERS else fd, name))
    for section in ("See Also", "References", "Examples"):
        assert f"{section}\n{'-' * len(section)}\n" in text
    assert not re.search(r"[Aa]s (in|of|above) `?\w*Dropout", text)
    if name in (*DTYPED, *LAYERS):
        assert all(dtype in text for dtype in DTYPES)


def test_the_calls_are_all_here():
    assert len(CALLS) == 14
