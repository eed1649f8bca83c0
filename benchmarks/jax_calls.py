"""Time dropout in JAX: `fastdrop.jax`, JAX's own random bits, and a jitted call that does nothing.

    python -m benchmarks.jax_calls [--rounds N] [--one-cpu] [--only calls|steps]

The first table has calls of ReLU and dropout. The second has whole training steps, jitted, with SGD: of a classifier
with hidden layers of 512 and a batch of 256, and of a transformer block of width 256 for 8 sequences of 128.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from itertools import pairwise
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


# --- training steps ---------------------------------------------------------------------------

WIDTHS = (512, 512, 512, 10)
BATCH, TOKENS, WIDTH, HEADS = 8, 128, 256, 8
HIDDEN = {  # the function after each hidden layer
    "JAX's": plain,
    "fastdrop.jax": ours,
    "no dropout": lambda x, key: jax.nn.relu(x),
}
BRANCH = {  # the function after each branch of a transformer
    "JAX's": lambda x, key: jnp.where(jax.random.bernoulli(key, KEEP_PROB, x.shape), x / KEEP_PROB, 0),
    "fastdrop.jax": lambda x, key: fjax.dropout(x, keep_prob=KEEP_PROB, key=key),
    "no dropout": lambda x, key: x,
}


def weights(*shapes: tuple[int, int]) -> list[Any]:
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) / shape[0] ** 0.5 for key, shape in zip(keys, shapes)]


def classifier(name: str) -> timing.Trial:
    def loss(parameters: Any, x: Any, key: Any) -> Any:
        *hidden, last = parameters
        for number, matrix in enumerate(hidden):
            x = HIDDEN[name](x @ matrix, jax.random.fold_in(key, number))
        return -jax.nn.log_softmax(x @ last)[:, 0].mean()

    return step(loss, weights(*pairwise(WIDTHS)), jax.random.normal(jax.random.key(1), (256, WIDTHS[0])))


def transformer(name: str) -> timing.Trial:
    def loss(parameters: Any, x: Any, key: Any) -> Any:
        first, second, third = jax.random.split(key, 3)
        into, out, up, down = parameters
        heads = (x @ into).reshape(BATCH, TOKENS, 3, HEADS, WIDTH // HEADS)
        attended = jax.nn.dot_product_attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2])
        x = jax.nn.standardize(x + BRANCH[name](attended.reshape(x.shape) @ out, first))
        x = x + BRANCH[name](HIDDEN[name](x @ up, second) @ down, third)
        return (jax.nn.standardize(x) ** 4).mean()

    shapes = (WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)
    return step(loss, weights(*shapes), jax.random.normal(jax.random.key(1), (BATCH, TOKENS, WIDTH)))


def step(loss: Any, parameters: Any, x: Any) -> timing.Trial:
    """Return a trial of a training step, which takes the key of its number."""

    @partial(jax.jit, donate_argnums=0)
    def update(parameters: Any, key: Any) -> tuple[Any, Any]:
        key, now = jax.random.split(key)
        slopes = jax.grad(loss)(parameters, x, now)
        return [one - 0.01 * slope for one, slope in zip(parameters, slopes)], key

    state = [parameters, jax.random.key(2)]

    def run() -> None:
        state[:] = jax.block_until_ready(update(*state))

    return timing.Trial(run)


def show_steps(rounds: int) -> None:
    rows = []
    for model in (classifier, transformer):
        result = timing.alternate({name: model(name) for name in HIDDEN}, rounds=rounds)
        rows += [
            [model.__name__, name, str(result.time(name) * 1e3), str(result.ratio(name, "JAX's"))] for name in HIDDEN
        ]
    show_table("Training steps, float32", ["model", "dropout", "ms per step (quartiles)", "/ JAX's"], rows)


# --- calls ------------------------------------------------------------------------------------


def trial(call: Any, size: int) -> timing.Trial:
    x, key = jax.random.normal(jax.random.key(0), (size,)), jax.random.key(1)
    return timing.Trial(lambda: call(x, key).block_until_ready())


def show_calls(rounds: int) -> None:
    rows = []
    for way, wrapped in WAYS.items():
        for size in SIZES:
            calls = {name: trial(wrapped(form), size) for name, form in FORMS.items()}
            result = timing.alternate(calls, rounds=rounds)
            times = [str(result.time(name) * 1e6) for name in calls]
            rows.append([way, sizes.label(size), *times, str(result.ratio("ours", "plain"))])
    columns = ["what", "elements", "an empty call", "jax.random", "fastdrop.jax", "x jax.random"]
    show_table("microseconds a call (quartiles), float32, and the share of JAX's own time", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jax_calls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--one-cpu", action="store_true", help="use one CPU alone")
    parser.add_argument("--only", choices=("calls", "steps"), default=None, help="make one of the tables")
    arguments = parser.parse_args()
    if arguments.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if arguments.only != "steps":
        show_calls(arguments.rounds)
    if arguments.only != "calls":
        show_steps(arguments.rounds)
    about = timing.machine("jax") | {"fastdrop.jax": paths.in_words()}
    print("; ".join(f"{name}: {value}" for name, value in about.items()))


if __name__ == "__main__":
    main()
