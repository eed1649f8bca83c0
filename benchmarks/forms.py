"""Time every form of dropout, dtype and instruction set, with a copy and PyTorch's own operator.

    python -m benchmarks.forms [--markdown FILE] [--size N]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastdrop as fd
from benchmarks import sizes
from benchmarks.report import markdown, publish
from benchmarks.targets import as_line
from fastdrop import cpu
from fastdrop.commands.bench import timing
from fastdrop.progress import progress

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None  # type: ignore[assignment]
try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

ROW = 1024  # elements per row
KEEP_PROB = 0.9
DTYPES = [np.dtype("float32"), np.dtype("float64"), np.dtype("float16")]
if ml_dtypes is not None:
    DTYPES.append(np.dtype(ml_dtypes.bfloat16))
COLUMNS = ["form", "dtype", "ns per element, copy", "PyTorch / best", *cpu.available()]
Calls = dict[str, Callable[[], Any]]


def forms(dtype: np.dtype[Any], size: int) -> Calls:
    """Return our calls on warm arrays, with `out=`, a stream, and a mask if the form has one."""
    x, residual, dy = (sample(dtype, size, seed) for seed in range(3))
    y, bias, stream = aligned(dtype, x.shape), x[0].copy(), fd.Stream(1)
    mask = fd.relu_dropout(x, keep_prob=KEEP_PROB, rng=1)[1]
    _, noise = fd.gaussian_dropout(x, keep_prob=KEEP_PROB, rng=1)
    tile = fd.Tile((2 * len(x), 4 * ROW), (3, ROW), seed=1)
    known: dict[str, Any] = {"rng": stream, "out": y}
    return {
        "relu_dropout": lambda: fd.relu_dropout(x, keep_prob=KEEP_PROB, **known),
        "dropout": lambda: fd.dropout(x, keep_prob=KEEP_PROB, **known),
        "relu_dropout, bias": lambda: fd.relu_dropout(x, keep_prob=KEEP_PROB, bias=bias, **known),
        "dropout_add": lambda: fd.dropout_add(x, residual, keep_prob=KEEP_PROB, **known),
        "dropout_add, bias": lambda: fd.dropout_add(x, residual, keep_prob=KEEP_PROB, bias=bias, **known),
        "dropout, rows shared": lambda: fd.dropout(x, keep_prob=KEEP_PROB, broadcast_dims=1, **known),
        "dropout, rows shared, keep_prob 0.5": lambda: fd.dropout(
            x, keep_prob=0.5, broadcast_dims=1, **known
        ),
        "dropout, columns shared": lambda: fd.dropout(x, keep_prob=KEEP_PROB, broadcast_dims=0, **known),
        "alpha_dropout": lambda: fd.alpha_dropout(x, keep_prob=KEEP_PROB, **known),
        "gaussian_dropout": lambda: fd.gaussian_dropout(x, keep_prob=KEEP_PROB, **known),
        "relu_dropout, a tile": lambda: fd.relu_dropout(x, keep_prob=KEEP_PROB, rng=tile, out=y),
        "backward": lambda: fd.relu_dropout_backward(dy, mask, out=y),
        "backward, bias_grad": lambda: fd.relu_dropout_backward(dy, mask, bias_grad=True, out=y),
        "gaussian_dropout_backward": lambda: fd.gaussian_dropout_backward(dy, noise, out=y),
    }


def torch_calls(dtype: np.dtype[Any], size: int) -> Calls:
    """Return PyTorch's own calls for the same forms, without gradients, on one thread."""
    if torch is None:
        return {}
    torch.set_num_threads(1)
    kind = getattr(torch, dtype.name)
    x, residual = (torch.tensor(sample(np.dtype("float32"), size, seed)).to(kind) for seed in range(2))
    bias, rate = x[0].clone(), 1 - KEEP_PROB
    relu, drop = torch.nn.functional.relu, torch.nn.functional.dropout
    channels = x[:, :, None, None].transpose(1, 2)  # each row is one channel
    deviation = (rate / KEEP_PROB) ** 0.5
    calls: Calls = {
        "relu_dropout": lambda: drop(relu(x), rate, True),
        "dropout": lambda: drop(x, rate, True),
        "relu_dropout, bias": lambda: drop(relu(x + bias), rate, True),
        "dropout_add": lambda: residual + drop(x, rate, True),
        "dropout_add, bias": lambda: residual + drop(x + bias, rate, True),
        "dropout, rows shared": lambda: torch.nn.functional.dropout2d(channels, rate, True),
        "dropout, rows shared, keep_prob 0.5": lambda: torch.nn.functional.dropout2d(channels, 0.5, True),
        "alpha_dropout": lambda: torch.nn.functional.alpha_dropout(x, rate, True),
        "gaussian_dropout": lambda: x * (1 + deviation * torch.randn_like(x)),
    }
    return {name: without_gradient(call) for name, call in calls.items()}


def without_gradient(call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> None:
        with torch.inference_mode():
            call()

    return run


def sample(dtype: np.dtype[Any], size: int, seed: int) -> Any:
    x = aligned(dtype, (size // ROW, ROW))
    x[...] = np.random.default_rng(seed).standard_normal(x.shape, np.float32).astype(dtype)
    return x


def aligned(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Return an array that begins at a cache line, as PyTorch's arrays do."""
    count = int(np.prod(shape)) * dtype.itemsize
    buffer = np.zeros(count + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + count].view(dtype).reshape(shape)


def rows(size: int, rounds: int) -> list[list[str]]:
    """Return a row per form and dtype. The times of a row come from the same rounds."""
    table = []
    fd.set_num_threads(1)
    with progress("timing forms", len(DTYPES)) as advance:
        for dtype in DTYPES:
            ours, theirs = forms(dtype, size), torch_calls(dtype, size)
            source, target = sample(dtype, size, 9), aligned(dtype, (size // ROW, ROW))
            for form, call in ours.items():
                trials = {"copy": timing.Trial(lambda to=target, of=source: np.copyto(to, of))}
                for isa in cpu.available():
                    trials[isa] = timing.Trial(call, lambda isa=isa: cpu.activate(isa))
                if form in theirs:
                    trials["torch"] = timing.Trial(theirs[form])
                comparison = timing.alternate(trials, rounds=rounds)
                best = cpu.available()[0]
                versus = f"{comparison.ratio('torch', best).median:.3g} x" if form in theirs else ""
                times = [
                    f"{comparison.time(isa).median / size * 1e9:.3f} "
                    f"({comparison.ratio(isa, 'copy').median:.2f} x copy)"
                    for isa in cpu.available()
                ]
                copy = f"{comparison.time('copy').median / size * 1e9:.3f}"
                table.append([form, dtype.name, copy, versus, *times])
            advance()
    cpu.activate(cpu.available()[0])
    return table


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.forms", description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=2**18, help="number of elements (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds (default: %(default)s)")
    parser.add_argument("--markdown", type=Path, help="append the table to this file")
    arguments = parser.parse_args()
    table = markdown([COLUMNS, *rows(arguments.size, arguments.rounds)], "---")
    about = (
        f"{sizes.label(arguments.size)} elements, keep_prob {KEEP_PROB}, one thread, medians of "
        f"{arguments.rounds} rounds; times in ns per element.\n{as_line(timing.machine('torch'))}"
    )
    publish(f"{about}\n\n{table}", arguments.markdown)
    if ml_dtypes is None:
        print("\nbfloat16 was left out, because ml_dtypes is not installed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
