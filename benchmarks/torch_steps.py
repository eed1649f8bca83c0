"""Whole training steps in PyTorch, with its own dropout, with ours, and with none.

    python -m benchmarks.torch_steps [--rounds N] [--mode eager|compiled|both] [--cpu-time] [--large]

A step sets gradients to zero, computes a loss and its gradients, and lets SGD update the parameters.
Compiled is by `torch.compile` with its default backend, which takes minutes before the first step.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import nn

import fastdrop as fd
import fastdrop.torch as ft
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing

Built = tuple[nn.Module, torch.Tensor]


def mlp(batch: int, widths: Sequence[int]) -> Callable[[float], Built]:
    """Hidden layers with ReLU and dropout, and a last layer without."""

    def build(p: float) -> Built:
        layers: list[nn.Module] = []
        for one, next_one in pairwise(widths[:-1]):
            layers += [nn.Linear(one, next_one), nn.ReLU(), nn.Dropout(p)]
        return nn.Sequential(*layers, nn.Linear(*widths[-2:])), torch.randn(batch, widths[0])

    return build


def transformer(batch: int, tokens: int, width: int, layers: int) -> Callable[[float], Built]:
    def build(p: float) -> Built:
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=p, batch_first=True)
        model = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        return model, torch.randn(batch, tokens, width)

    return build


SMALL = {
    "mlp 784-256-256-10, batch 32": mlp(32, (784, 256, 256, 10)),
    "mlp 784-256-256-10, batch 64": mlp(64, (784, 256, 256, 10)),
    "mlp 784-256-256-10, batch 256": mlp(256, (784, 256, 256, 10)),
    "transformer 128, 2 layers, 8 x 64": transformer(8, 64, 128, 2),
}
LARGE = {
    "mlp of four 2,048, batch 256": mlp(256, (2048,) * 6),
    "transformer 512, 4 layers, 16 x 128": transformer(16, 128, 512, 4),
}


def step(model: nn.Module, x: torch.Tensor, context: Any = nullcontext) -> timing.Trial:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def call() -> None:
        with context():
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    return timing.Trial(call)


def saved_bytes(trial: timing.Trial) -> int:
    """What the tensors take that a step saves for its backward pass, each memory once."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trial.call()
    return sum(sizes.values())


def trials(build: Any, compiled: bool) -> dict[str, timing.Trial]:
    def model(p: float, prepare: Any = lambda model: None) -> nn.Module:
        built = build(p)[0]
        prepare(built)
        return torch.compile(built) if compiled else built

    x = build(0.0)[1]
    return {
        "no dropout": step(model(0.0), x),
        "PyTorch's": step(model(0.1), x),
        "accelerate": step(model(0.1, ft.accelerate), x),
        "patched": step(model(0.1), x, ft.patched),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_steps", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--large", action="store_true", help="models whose steps take up to seconds")
    parser.add_argument("--mode", choices=["eager", "compiled", "both"], default="eager")
    parser.add_argument("--cpu-time", action="store_true", help="not wall time: for a busy machine")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        timing.SECONDS = time.thread_time
    torch.set_num_threads(1)
    fd.set_num_threads(1)
    modes = ["eager", "compiled"] if arguments.mode == "both" else [arguments.mode]
    rows = []
    for (model, build), mode in itertools.product((LARGE if arguments.large else SMALL).items(), modes):
        calls = trials(build, mode == "compiled")
        result = timing.alternate(calls, rounds=arguments.rounds)
        for name, trial in calls.items():
            to_theirs = result.ratio(name, "PyTorch's")
            to_none = result.ratio(name, "no dropout")
            memory = f"{saved_bytes(trial) / 2**20:.2f}"
            times = [str(result.time(name) * 1e3), f"{to_theirs.median:.2f}", f"{to_none.median:.2f}"]
            rows.append([f"{model}, {mode}", name, *times, memory])
    columns = ["model", "dropout", "ms per step (quartiles)", "/ PyTorch's", "/ none", "MiB saved"]
    show_table("Training steps, float32, one thread", columns, rows)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("torch").items()))


if __name__ == "__main__":
    main()
