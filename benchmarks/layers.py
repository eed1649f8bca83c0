"""Time what a layer of a network adds to its matrix products, in plain NumPy and with this package.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.layers [--markdown FILE]

The layers have few rows, as in training. float32, keep_prob 0.9, one thread, `out=` everywhere. NumPy adds the rows
of a gradient by a matrix product, so the variable keeps it on one thread too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastdrop as fd
from benchmarks.report import markdown, publish, short
from benchmarks.targets import as_line
from fastdrop.commands.bench import timing
from fastdrop.progress import progress

LAYERS = ((32, 64), (32, 256), (128, 256), (64, 1024), (256, 1024))  # rows, units
KEEP_PROB, ROUNDS = 0.9, 31
WHAT = ("bias, ReLU, dropout", "bias, dropout, residual", "gradient, and that of the bias")
COLUMNS = ["rows x units", "copy", *(f"{what}: {who}" for what in WHAT for who in ("fastdrop", "NumPy"))]
Calls = dict[str, Callable[[], Any]]


def ours(rows: int, units: int) -> Calls:
    """Return our calls. Each forward call returns a mask."""
    x, residual, dy, bias, out = arrays(rows, units)
    stream = fd.Stream(1)
    mask = fd.relu_dropout(x, keep_prob=KEEP_PROB, rng=stream)[1]
    return {
        WHAT[0]: lambda: fd.relu_dropout(x, keep_prob=KEEP_PROB, bias=bias, rng=stream, out=out),
        WHAT[1]: lambda: fd.dropout_add(x, residual, keep_prob=KEEP_PROB, bias=bias, rng=stream, out=out),
        WHAT[2]: lambda: fd.relu_dropout_backward(dy, mask, bias_grad=True, out=out),
    }


def numpys(rows: int, units: int) -> Calls:
    """Return the best NumPy code: its fastest generator, no temporary arrays, and the factors of a gradient at hand."""
    x, residual, dy, bias, out = arrays(rows, units)
    random, ones = np.random.Generator(np.random.SFC64(1)).random, np.ones(rows, np.float32)
    p, scale = np.float32(KEEP_PROB), np.float32(1 / KEEP_PROB)
    u, kept = np.empty_like(x), np.empty(x.shape, np.bool_)
    factors, db = (x > 0) * scale, np.empty_like(bias)

    def drop() -> None:
        random(out=u, dtype=np.float32)
        np.less(u, p, out=kept)
        np.multiply(out, scale, out=out)
        np.multiply(out, kept, out=out)

    def relu_dropout() -> None:
        np.add(x, bias, out=out)
        np.maximum(out, 0, out=out)
        drop()

    def dropout_add() -> None:
        np.add(x, bias, out=out)
        drop()
        np.add(out, residual, out=out)

    def backward() -> None:
        np.multiply(dy, factors, out=out)
        np.matmul(ones, out, out=db)

    return dict(zip(WHAT, (relu_dropout, dropout_add, backward)))


def arrays(rows: int, units: int) -> list[Any]:
    """Return x, a residual, dy, a bias and a result."""
    random = np.random.default_rng(0)
    lengths = [(rows, units)] * 3 + [(units,), (rows, units)]
    return [random.standard_normal(shape, np.float32) for shape in lengths]


def row(rows: int, units: int) -> list[str]:
    """Return the medians of a layer in microseconds, all from the same rounds."""
    copy = np.empty((2, rows, units), np.float32)
    trials = {"copy": timing.Trial(lambda: np.copyto(copy[0], copy[1]))}
    for who, calls in (("fastdrop", ours(rows, units)), ("NumPy", numpys(rows, units))):
        trials |= {f"{what}: {who}": timing.Trial(call) for what, call in calls.items()}
    comparison = timing.alternate(trials, rounds=ROUNDS)
    return [f"{rows} x {units}", *(short(comparison.time(name).median * 1e6) for name in COLUMNS[1:])]


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.layers", description=__doc__.partition("\n")[0])
    parser.add_argument("--markdown", type=Path, help="append the table to this file")
    chosen = parser.parse_args()
    fd.set_num_threads(1)
    machine, lines = timing.machine(), [COLUMNS]
    with progress("timing layers", len(LAYERS)) as advance:
        for rows, units in LAYERS:
            lines.append(row(rows, units))
            advance()
    about = f"Microseconds per call, medians of {ROUNDS} rounds. {as_line(machine)}"
    publish(f"{about}\n\n{markdown(lines)}", chosen.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
