"""Time dropout alone in PyTorch: its own, eager and compiled, and `fastdrop.torch`, on one thread.

    python -m benchmarks.torch_calls [--rounds N] [--cpu-time]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import fastdrop as fd
import fastdrop.torch as ft
from benchmarks import sizes
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing

P = 0.1
SIZES = (2**14, 2**18, 2**22)

Form = Callable[[Tensor], Tensor]


def dropout(x: Tensor) -> Tensor:
    return F.dropout(x, P)


def relu_and_dropout(x: Tensor) -> Tensor:
    return F.dropout(F.relu(x), P)


FORMS: dict[str, tuple[Form, Form]] = {
    "dropout": (dropout, lambda x: ft.dropout(x, P)),
    "ReLU and dropout": (relu_and_dropout, lambda x: ft.relu_dropout(x, P)),
}


def trial(form: Form, size: int, gradient: bool) -> timing.Trial:
    x, dy = torch.randn(size, requires_grad=gradient), torch.randn(size)
    if gradient:
        return timing.Trial(lambda: torch.autograd.grad(form(x), x, dy))
    return timing.Trial(lambda: form(x))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_calls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time, for a busy machine")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        timing.SECONDS = time.process_time
    torch.set_num_threads(1)
    fd.set_num_threads(1)
    rows = []
    for what, (theirs, ours) in FORMS.items():
        forms = {"eager": theirs, "compiled": torch.compile(theirs), "fastdrop.torch": ours}
        for gradient in (False, True):
            for size in SIZES:
                calls = {name: trial(form, size, gradient) for name, form in forms.items()}
                result = timing.alternate(calls, rounds=arguments.rounds)
                times = [str(result.time(name) * (1e9 / size)) for name in calls]
                ratios = [str(result.ratio(name, "fastdrop.torch")) for name in ("eager", "compiled")]
                direction = "forward and backward" if gradient else "forward"
                rows.append([f"{what}, {direction}", sizes.label(size), *times, *ratios])
    columns = ["what", "elements", "eager", "compiled", "fastdrop.torch", "x eager", "x compiled"]
    show_table("ns per element (quartiles), float32, and how many times as fast as PyTorch's", columns, rows)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("torch").items()))


if __name__ == "__main__":
    main()
