"""Time dropout in Thinc, with its own layers and masks and with `fastdrop.thinc`, and training steps.

    python -m benchmarks.thinc_calls
"""

from __future__ import annotations

from typing import Any

import numpy as np
from thinc import api

import fastdrop as fd
import fastdrop.thinc as ft
from benchmarks import sizes
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing

RATE = 0.1
SIZES = (2**14, 2**18, 2**22)


def relu() -> Any:
    """Return a ReLU layer: Thinc has a ReLU only after a Linear."""

    def forward(model: Any, x: Any, is_train: bool) -> Any:
        y = model.ops.relu(x)
        return y, lambda dy: model.ops.backprop_relu(dy, y)

    return api.Model("relu", forward)


def both_ways(model: Any, x: Any) -> timing.Trial:
    def call() -> None:
        y, back = model(x, is_train=True)
        back(y)

    return timing.Trial(call)


def masks(ops: Any, x: Any) -> timing.Trial:
    return timing.Trial(lambda: ops.get_dropout_mask(x.shape, RATE))


def trials(x: Any) -> dict[str, tuple[timing.Trial, timing.Trial]]:
    """Return Thinc's call and ours for each operation."""
    theirs = api.chain(relu(), api.Dropout(RATE))
    return {
        "Dropout, forward and backward": (both_ways(api.Dropout(RATE), x), both_ways(ft.Dropout(RATE), x)),
        "ReLU and dropout, forward and backward": (both_ways(theirs, x), both_ways(ft.ReluDropout(RATE), x)),
        "get_dropout_mask": (masks(api.NumpyOps(), x), masks(ft.FastdropOps(), x)),
    }


def step(*hidden: Any) -> timing.Trial:
    """Return a training step of a classifier with 512 inputs, for a batch of 256."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 512), dtype=np.float32)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, 256)]
    model, optimizer = api.chain(*hidden, api.Softmax(10, 512)), api.Adam(0.001)
    model.initialize(X=x, Y=labels)

    def call() -> None:
        y, back = model.begin_update(x)
        back((y - labels) / len(labels))
        model.finish_update(optimizer)

    return timing.Trial(call)


def steps() -> dict[str, timing.Trial]:
    apart = [part for _ in range(2) for part in (api.Linear(512, 512), relu(), api.Dropout(RATE))]
    fused = [part for _ in range(2) for part in (api.Linear(512, 512), ft.ReluDropout(RATE))]
    none = [part for _ in range(2) for part in (api.Linear(512, 512), relu())]
    return {"Thinc's": step(*apart), "fastdrop.thinc": step(*fused), "no dropout": step(*none)}


def main() -> None:
    fd.set_num_threads(1)
    rows = []
    for size in SIZES:
        x = np.random.default_rng(0).standard_normal((size // 256, 256), dtype=np.float32)
        for what, (theirs, ours) in trials(x).items():
            result = timing.alternate({"theirs": theirs, "ours": ours}, rounds=15)
            times = [str(result.time(name) * (1e9 / size)) for name in ("theirs", "ours")]
            rows.append([what, sizes.label(size), *times, str(result.ratio("theirs", "ours"))])
    show_table("ns per element", ["what", "elements", "Thinc", "fastdrop.thinc", "times as fast"], rows)
    result = timing.alternate(steps(), rounds=25)
    rows = [
        [name, str(result.time(name) * 1e3), str(result.ratio(name, "no dropout"))] for name in result.names
    ]
    show_table("A training step", ["dropout", "ms", "x no dropout"], rows)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("thinc").items()))


if __name__ == "__main__":
    main()
