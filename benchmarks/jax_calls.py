"""Time ReLU and dropout under JAX's jit, with `fastdrop.jax` and with JAX's own random bits.

    python -m benchmarks.jax_calls
"""

from __future__ import annotations

from typing import Any

import jax
from jax import numpy as jnp

import fastdrop.jax as fjax
from benchmarks import sizes
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing

KEEP_PROB = 0.9
SIZES = (2**14, 2**18, 2**22)


def plain(x: Any, key: Any) -> Any:
    """ReLU and dropout as Flax writes them."""
    kept = jax.random.bernoulli(key, KEEP_PROB, x.shape)
    return jnp.where(kept, jax.nn.relu(x) / KEEP_PROB, 0)


def ours(x: Any, key: Any) -> Any:
    return fjax.relu_dropout(x, KEEP_PROB, key)


def trial(function: Any, size: int, gradient: bool) -> timing.Trial:
    x, key = jax.random.normal(jax.random.key(0), (size,)), jax.random.key(1)
    call = jax.jit(jax.grad(lambda x, key: function(x, key).sum()) if gradient else function)
    return timing.Trial(lambda: call(x, key).block_until_ready())


def main() -> None:
    rows = []
    for size in SIZES:
        for what, gradient in (("forward", False), ("forward and backward", True)):
            calls = {"plain": trial(plain, size, gradient), "ours": trial(ours, size, gradient)}
            result = timing.alternate(calls, rounds=15)
            times = [str(result.time(name) * (1e9 / size)) for name in calls]
            rows.append([what, sizes.label(size), *times, str(result.ratio("plain", "ours"))])
    show_table("ns per element", ["what", "elements", "jax.random", "fastdrop.jax", "times as fast"], rows)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("jax").items()))


if __name__ == "__main__":
    main()
