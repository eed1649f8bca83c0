"""Time whole training steps in PyTorch, with its own dropout, with ours, and with none.

    python -m benchmarks.torch_steps [--rounds N] [--mode eager|compiled|both] [--cpu-time]

The mode `compiled` uses `torch.compile` with its default backend, which takes minutes before the first step.
"""

from __future__ import annotations

import argparse
import itertools
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

import fastdrop as fd
import fastdrop.torch as ft
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing


def mlp(p: float) -> tuple[nn.Module, torch.Tensor]:
    layers = [part for _ in range(4) for part in (nn.Linear(2048, 2048), nn.ReLU(), nn.Dropout(p))]
    return nn.Sequential(*layers), torch.randn(256, 2048)


def transformer(p: float) -> tuple[nn.Module, torch.Tensor]:
    layer = nn.TransformerEncoderLayer(512, 8, dropout=p, batch_first=True)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), torch.randn(16, 128, 512)


def step(model: nn.Module, x: torch.Tensor, context: Any = nullcontext) -> timing.Trial:
    def call() -> None:
        with context():
            model.zero_grad()
            model(x).square().mean().backward()

    return timing.Trial(call)


def saved_bytes(trial: timing.Trial) -> int:
    """Return the bytes of the tensors that a step saves for its backward pass. Shared memory counts once."""
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
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mode", choices=["eager", "compiled", "both"], default="eager")
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time, for a busy machine")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        timing.SECONDS = time.process_time
    torch.set_num_threads(1)
    fd.set_num_threads(1)
    modes = ["eager", "compiled"] if arguments.mode == "both" else [arguments.mode]
    rows = []
    for build, mode in itertools.product((mlp, transformer), modes):
        calls = trials(build, mode == "compiled")
        result = timing.alternate(calls, rounds=arguments.rounds)
        for name, trial in calls.items():
            ratio = result.ratio(name, "no dropout")
            share = f"{1 - 1 / ratio.median:.1%}"
            memory = f"{saved_bytes(trial) / 2**20:.0f}"
            times = [str(result.time(name) * 1e3), str(ratio)]
            rows.append([f"{build.__name__}, {mode}", name, *times, share, memory])
    columns = ["model", "dropout", "ms per step (quartiles)", "x no dropout", "share", "MiB saved"]
    show_table("Training steps, float32, one thread", columns, rows)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("torch").items()))


if __name__ == "__main__":
    main()
