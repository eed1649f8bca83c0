"""Single calls: `fastdrop.torch` beside PyTorch's own dropout on small and large tensors, on one thread.

    python -m benchmarks.torch_calls [--rounds N] [--cpu-time] [--form NAME]

Each number is a ratio, ours / PyTorch's, so 0.5 is half the time. It is taken within a round of alternating
calls, and the median over rounds is shown. "forward and backward" is each of eight dropouts in a row that
share one backward pass; "alone" is a single one with its own, where the fixed cost of a backward pass counts
on both sides.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

import fastdrop as fd
import fastdrop.torch as ft
from benchmarks import sizes
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing
from fastdrop.torch.attention import attention, torch_attention

P = 0.1
SIZES = (2**6, 2**10, 2**12, 2**14, 2**16, 2**18)
IN_A_ROW = 8

Call = Callable[[Tensor], Tensor]


class Form(NamedTuple):
    """A form of dropout, ours and PyTorch's, and what it is given."""

    ours: Call
    theirs: Call
    spatial: int = 0  # axes of 4 elements behind (N, C), with at most 64 channels
    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format
    attends: bool = False  # to itself: the size is the number of weights


def dropout(dtype: torch.dtype = torch.float32) -> Form:
    return Form(lambda x: ft.dropout(x, P), lambda x: F.dropout(x, P), dtype=dtype)


FORMS = {
    "dropout": dropout(),
    "dropout, float64": dropout(torch.float64),
    "dropout, float16": dropout(torch.float16),
    "dropout, bfloat16": dropout(torch.bfloat16),
    "dropout, channels_last": Form(
        lambda x: ft.dropout(x, P), lambda x: F.dropout(x, P), 2, memory_format=torch.channels_last
    ),
    "relu_dropout": Form(lambda x: ft.relu_dropout(x, P), lambda x: F.dropout(torch.relu(x), P)),
    "dropout_add": Form(lambda x: ft.dropout_add(x, x, P), lambda x: x + F.dropout(x, P)),
    "dropout1d": Form(lambda x: ft.dropout1d(x, P), lambda x: F.dropout1d(x, P), 1),
    "dropout2d": Form(lambda x: ft.dropout2d(x, P), lambda x: F.dropout2d(x, P), 2),
    "dropout3d": Form(lambda x: ft.dropout3d(x, P), lambda x: F.dropout3d(x, P), 3),
    "alpha_dropout": Form(lambda x: ft.alpha_dropout(x, P, True), lambda x: F.alpha_dropout(x, P, True)),
    "feature_alpha_dropout": Form(
        lambda x: ft.feature_alpha_dropout(x, P, True), lambda x: F.feature_alpha_dropout(x, P, True), 2
    ),
    "attention": Form(
        lambda x: attention(x, x, x, None, P), lambda x: torch_attention(x, x, x, None, P), attends=True
    ),
}


def values(form: Form, size: int) -> Tensor:
    if form.attends:
        tokens = min(64, math.isqrt(size))
        return torch.randn(1, size // tokens**2, tokens, 16)
    channels = min(64, size // 4**form.spatial)
    shape = [-1, channels, *[4] * form.spatial] if form.spatial else [size]
    return torch.randn(size).view(shape).to(form.dtype).contiguous(memory_format=form.memory_format)


def forward(call: Call, x: Tensor) -> timing.Trial:
    return timing.Trial(lambda: call(x))


def alone(call: Call, x: Tensor) -> timing.Trial:
    x, dy = x.clone().requires_grad_(), torch.ones_like(x)
    return timing.Trial(lambda: torch.autograd.grad(call(x), x, dy))


def in_a_row(call: Call, x: Tensor) -> timing.Trial:
    def calls(x: Tensor) -> Tensor:
        for _ in range(IN_A_ROW):
            x = call(x)
        return x

    return alone(calls, x)


WAYS = {"forward": forward, "forward and backward": in_a_row, "alone, forward and backward": alone}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_calls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--cpu-time", action="store_true", help="not wall time: for a busy machine")
    parser.add_argument("--form", choices=list(FORMS), help="one form alone")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        timing.SECONDS = time.thread_time
    torch.set_num_threads(1)
    fd.set_num_threads(1)
    forms = {arguments.form: FORMS[arguments.form]} if arguments.form else FORMS
    for way, trial in WAYS.items():
        rows = []
        for name, form in forms.items():
            ratios = []
            for size in SIZES:
                x = values(form, size)
                pair = {"ours": trial(form.ours, x), "theirs": trial(form.theirs, x)}
                ratio = timing.alternate(pair, rounds=arguments.rounds).ratio("ours", "theirs")
                ratios.append(f"{ratio.median:.2f}")
            rows.append([name, *ratios])
        show_table(f"{way}: ours / PyTorch's", ["form", *map(sizes.label, SIZES)], rows)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("torch").items()))


if __name__ == "__main__":
    main()
