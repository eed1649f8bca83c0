"""The examples run, and show what they say."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

import numpy as np
import pytest

from support import ROOT, printed_by

pytest.importorskip("sklearn", reason="scikit-learn is in the extra demo")
GALLERY = sorted((ROOT / "examples").glob("plot_*.py"))
EXAMPLE = ROOT / "examples" / "mlp_digits.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


def test_it_learns_to_read_digits():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # this package, installed or not
    command = [sys.executable, str(EXAMPLE)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert ran.returncode == 0, ran.stderr
    last = ran.stdout.splitlines()[-1]
    assert float(last.partition(": ")[2].partition("%")[0]) > 95, last


def test_its_gradients_are_those_of_its_loss(example):
    """Central differences in float64, with the layers set back so that every loss has one mask."""
    rng = np.random.default_rng(0)
    layers = [example["ReLUDropout"](0.5, rng=seed) for seed in (1, 2)]
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


def printed(example: str, *arguments: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_uncertainty_grows_with_the_distance_from_the_data(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra demo")
    lines = printed("plot_uncertainty.py", str(tmp_path / "plot.png"))
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
    if "import dask" in path.read_text():
        pytest.importorskip("dask.array", reason="Dask is an optional dependency")
    places = os.pathsep.join([str(ROOT), str(ROOT / "examples")])
    environment = os.environ | {"PYTHONPATH": places, "MPLBACKEND": "agg"}
    command = [sys.executable, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_numba_calls_the_kernels():
    program = ROOT / "examples" / "numba_loop.py"
    pytest.importorskip("numba", reason="Numba is an optional dependency")
    assert "100 rows, each as the Python call makes it" in printed_by(program, timeout=120)
