"""The examples run, and show what they promise."""

from __future__ import annotations

import os
import runpy
import sys

import numpy as np
import pytest

from support import ROOT, printed_by

pytest.importorskip("sklearn", reason="scikit-learn is in the extra demo")
UNCERTAINTY = ROOT / "examples" / "plot_uncertainty.py"  # a test of its own looks at what it prints
GALLERY = sorted(set((ROOT / "examples").glob("plot_*.py")) - {UNCERTAINTY})
EXAMPLE = ROOT / "examples" / "mlp_digits.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


def printed(example: str, *arguments: str) -> list[str]:
    return printed_by(ROOT / "examples" / example, *arguments, PYTHONPATH=str(ROOT)).splitlines()


def test_it_learns_to_read_digits():
    last = printed("mlp_digits.py")[-1]
    assert float(last.partition(": ")[2].partition("%")[0]) > 95, last


def test_its_gradients_are_those_of_its_loss(example):
    """They equal central differences in float64. The layers are set back, so every loss has one mask."""
    rng = np.random.default_rng(0)
    layers = [example["ReLUDropout"](keep_prob=0.5, rng=seed) for seed in (1, 2)]
    parameters = [parameter.astype(np.float64) for parameter in example["initial_parameters"](rng)]
    network = example["Network"](parameters, layers)
    x, labels = rng.random((8, 64)), rng.integers(10, size=8)

    def loss() -> float:
        for layer in layers:
            layer.rng.offset = 0
        return -np.log(network.probabilities(x)[np.arange(8), labels]).mean()

    loss()
    for layer in layers:
        layer.rng.offset = 0
    gradients = network.gradients(x, labels)
    for parameter, gradient in zip(parameters, gradients):
        steepest = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        value, step = parameter[steepest], 1e-6
        parameter[steepest] = value + step
        above = loss()
        parameter[steepest] = value - step
        below = loss()
        parameter[steepest] = value
        assert (above - below) / (2 * step) == pytest.approx(gradient[steepest], rel=1e-5)


def test_uncertainty_grows_with_the_distance_from_the_data(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra demo")
    lines = printed(UNCERTAINTY.name, str(tmp_path / "plot.png"))
    spread = [float(line.rpartition(": ")[2]) for line in lines if "from the data" in line]
    assert len(spread) == 5
    assert spread == sorted(spread)
    assert spread[-1] > 2 * spread[0]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_dropconnect_learns_to_read_digits():
    last = printed("dropconnect.py")[-1]
    assert float(last.partition(": ")[2].partition("%")[0]) > 90, last


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_what_an_example_of_the_gallery_asserts_holds(path, tmp_path):
    for name, module in (("Dask", "dask.array"), ("PyTorch", "torch")):
        if f"import {module}" in path.read_text():
            pytest.importorskip(module, reason=f"{name} is an optional dependency")
    places = os.pathsep.join([str(ROOT), str(ROOT / "examples")])
    # Speed does not matter for the program that one of them compiles.
    options = {"MPLBACKEND": "agg", "CFLAGS": "-O0", "FASTDROP_NUM_THREADS": "1"}
    printed_by(path, cwd=tmp_path, PYTHONPATH=places, **options)


def test_numba_calls_the_kernels():
    pytest.importorskip("numba", reason="Numba is an optional dependency")
    assert "100 rows, each equal to that of the Python call" in "\n".join(printed("numba_loop.py"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the example asks Linux to limit its memory")
def test_dask_computes_what_does_not_fit_into_memory():
    pytest.importorskip("dask.array", reason="Dask is an optional dependency")
    lines = printed("larger_than_memory.py", "256")
    assert lines[0] == "256 MiB do not fit into the 128 MiB that this process may get"
    assert lines[1].endswith("each equal to its part of one call on the whole array")
