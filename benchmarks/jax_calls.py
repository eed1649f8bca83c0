"""ReLU and dropout in JAX: `fastdrop.jax` beside JAX's own random bits, and a jitted call that does nothing.

    python -m benchmarks.jax_calls [--rounds N] [--one-cpu]
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import jax
from jax import numpy as jnp

import fastdrop.jax as fjax
from benchmarks import sizes
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing
from fastdrop.jax import paths

KEEP_PROB = 0.9
SIZES = (2**7, 2**10, 2**14, 2**18, 2**22)


def plain(x: Any, key: Any) -> Any:
    """Dropout as Flax writes it."""
    kept = jax.random.bernoulli(key, KEEP_PROB, x.shape)
    return jnp.where(kept, jax.nn.relu(x) / KEEP_PROB, 0)


def ours(x: Any, key: Any) -> Any:
    return fjax.relu_dropout(x, keep_prob=KEEP_PROB, key=key)


def nothing(x: Any, key: Any) -> Any:
    """A jitted call of x and the key, which computes nothing worth the name."""
    return x[:1]


FORMS = {"empty": nothing, "plain": plain, "ours": ours}


def gradient(form: Any) -> Any:
    return jax.grad(lambda x, key: form(x, key).sum())


WAYS = {
    "jit": jax.jit,
    "jit of grad": lambda form: jax.jit(gradient(form)),
    "eager": lambda form: form,
}


def trial(call: Any, size: int) -> timing.Trial:
    x, key = jax.random.normal(jax.random.key(0), (size,)), jax.random.key(1)
    return timing.Trial(lambda: call(x, key).block_until_ready())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jax_calls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--one-cpu", action="store_true", help="use one CPU alone")
    arguments = parser.parse_args()
    if arguments.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = []
    for way, wrapped in WAYS.items():
        for size in SIZES:
            calls = {name: trial(wrapped(form), size) for name, form in FORMS.items()}
            result = timing.alternate(calls, rounds=arguments.rounds)
            times = [str(result.time(name) * 1e6) for name in calls]
            rows.append([way, sizes.label(size), *times, str(result.ratio("ours", "plain"))])
    columns = ["what", "elements", "an empty call", "jax.random", "fastdrop.jax", "x jax.random"]
    show_table("microseconds a call (quartiles), float32, and the share of JAX's own time", columns, rows)
    about = timing.machine("jax") | {"fastdrop.jax": paths.in_words()}
    print("; ".join(f"{name}: {value}" for name, value in about.items()))


if __name__ == "__main__":
    main()
