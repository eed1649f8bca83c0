"""Time Keras's dropout layers and those of `fastdrop.keras`, forward and in training steps, on one backend.

    KERAS_BACKEND=torch python -m benchmarks.keras_calls [--rounds N] [--cpu-time]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import fastdrop as fd
import fastdrop.keras as fk
from benchmarks import sizes
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing

RATE = 0.1
SIZES = (2**7, 2**14, 2**18, 2**22)
BACKEND = keras.backend.backend()


def layers() -> dict[str, tuple[Any, Any, tuple[int, ...]]]:
    """Return Keras's layer and ours for each kind, and the last axes of its input."""
    relu = keras.Sequential([keras.layers.ReLU(), keras.layers.Dropout(RATE, seed=1)])
    return {
        "Dropout": (keras.layers.Dropout(RATE, seed=1), fk.Dropout(RATE, seed=1), (64,)),
        "ReLU and dropout": (relu, fk.ReLUDropout(RATE, seed=1), (64,)),
        "SpatialDropout1D": (keras.layers.SpatialDropout1D(RATE, 1), fk.SpatialDropout1D(RATE, 1), (16, 4)),
        "GaussianDropout": (keras.layers.GaussianDropout(RATE, 1), fk.GaussianDropout(RATE, 1), (64,)),
        "AlphaDropout": (keras.layers.AlphaDropout(RATE, None, 1), fk.AlphaDropout(RATE, None, 1), (64,)),
    }


def compiled(layer: Any, x: Any) -> Callable[[], Any]:
    """Return the call of a layer in training, as Keras runs it in `fit`: in compiled code, where the backend has it."""
    layer.build(x.shape)
    state = [variable.value for variable in layer.non_trainable_variables]
    if BACKEND == "jax":
        import jax

        call = jax.jit(lambda x, state: layer.stateless_call([], state, x, training=True)[0])
        return lambda: call(x, state).block_until_ready()
    if BACKEND == "tensorflow":
        import tensorflow as tf

        call = tf.function(lambda x: layer(x, training=True))
        return lambda: call(x)
    return lambda: layer(x, training=True)


def step(hidden: Callable[[], list[Any]]) -> timing.Trial:
    """Return a training step of a classifier with 512 inputs, for a batch of 256."""
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((256, 512), dtype=np.float32), rng.integers(0, 10, 256)
    model = keras.Sequential([keras.Input((512,)), *hidden(), *hidden(), keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return timing.Trial(lambda: model.train_on_batch(x, labels))


def steps() -> dict[str, timing.Trial]:
    def dense() -> Any:
        return keras.layers.Dense(512)

    return {
        "Keras's": step(lambda: [dense(), keras.layers.ReLU(), keras.layers.Dropout(RATE, seed=1)]),
        "fastdrop.keras": step(lambda: [dense(), fk.ReLUDropout(RATE, seed=1)]),
        "no dropout": step(lambda: [dense(), keras.layers.ReLU()]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keras_calls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cpu-time", action="store_true", help="not wall time: for a busy machine")
    arguments = parser.parse_args()
    if arguments.cpu_time:  # of all threads, because TensorFlow and JAX compute on threads of their own
        timing.SECONDS = time.process_time
    fd.set_num_threads(1)
    rows = []
    for size in SIZES:
        for what, (theirs, ours, last) in layers().items():
            numbers = np.random.default_rng(0).standard_normal((size // 64, *last), dtype=np.float32)
            x = keras.ops.convert_to_tensor(numbers)
            trials = {"theirs": timing.Trial(compiled(theirs, x)), "ours": timing.Trial(compiled(ours, x))}
            result = timing.alternate(trials, rounds=arguments.rounds)
            times = [str(result.time(name) * 1e6) for name in ("theirs", "ours")]
            rows.append([what, sizes.label(size), *times, str(result.ratio("ours", "theirs"))])
    show_table(f"us per call on {BACKEND}", ["layer", "elements", "Keras", "fastdrop.keras", "/ Keras's"], rows)
    result = timing.alternate(steps(), rounds=arguments.rounds)
    rows = [[name, str(result.time(name) * 1e3), str(result.ratio(name, "Keras's"))] for name in result.names]
    show_table("A training step", ["dropout", "ms", "/ Keras's"], rows)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("keras", BACKEND).items()))


if __name__ == "__main__":
    main()
