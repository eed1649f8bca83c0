"""Run keras_layers.py, and then Keras's own tests of dropout layers with ours in the place of Keras's.

    KERAS_BACKEND=torch python tests/adapters/keras_own_tests.py [option of pytest for Keras's tests ...]

One process does both, because the import of Keras and its backend takes longer than most tests. It prints
how many of Keras's tests passed, and how often the kernels were called meanwhile. The packages of some
versions of Keras have no tests in them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import keras
import pytest

import fastdrop.keras as ours
from fastdrop.keras import layers

FILES = ("dropout", "spatial_dropout", "gaussian_dropout", "alpha_dropout")


class Counter:
    """Counts the tests that passed and the calls that reached the kernels."""

    def __init__(self) -> None:
        self.passed, self.calls, self.apply = 0, 0, layers.BACKEND.apply

    def pytest_runtest_logreport(self, report) -> None:
        self.passed += report.when == "call" and report.passed

    def __call__(self, *arguments):
        self.calls += 1
        return self.apply(*arguments)


def main() -> int:
    here = Path(__file__)
    status = pytest.main(["-q", "-p", "no:cacheprovider", str(here.with_name("keras_layers.py"))])
    return int(status) or own_tests()


def own_tests() -> int:
    homes = [sys.modules["keras.src.layers"], keras.layers]
    for name in ours.__all__:
        for home in homes:
            if hasattr(home, name):
                setattr(home, name, getattr(ours, name))
    counter = Counter()
    layers.BACKEND.apply = counter
    folder = Path(sys.modules["keras.src.layers"].__file__).parent / "regularization"
    files = [str(file) for name in FILES if (file := folder / f"{name}_test.py").exists()]
    if not files:
        print(f"Keras {keras.__version__} comes without its tests")
        return 0
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-c", os.devnull, *files, *sys.argv[1:]], plugins=[counter])
    print(f"{counter.passed} of Keras's own tests passed, with {counter.calls} calls of the kernels")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
