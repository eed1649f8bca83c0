"""Flax modules `Dropout` and `ReLUDropout`, for nnx and for linen: Flax's arguments, fastdrop's kernels.

They take the place of `flax.nnx.Dropout` and `flax.linen.Dropout`: `rate` is the probability to drop,
`deterministic` turns dropout off, and keys come from the collection of rngs called "dropout". `ReLUDropout`
includes the ReLU, and still computes it where dropout is off. Run this to train a small network with each.

    python examples/flax_modules.py
"""

from __future__ import annotations

import jax
from flax import linen, nnx
from jax import numpy as jnp

from fastdrop.jax import dropout, relu_dropout


class Dropout(nnx.Dropout):
    """`flax.nnx.Dropout`, without `broadcast_dims`."""

    def __init__(self, rate, *, deterministic=False, rng_collection="dropout", rngs=None):
        super().__init__(rate, deterministic=deterministic, rng_collection=rng_collection, rngs=rngs)

    def __call__(self, inputs, *, deterministic=None, rngs=None):
        if self.is_off(deterministic):
            return inputs
        return dropout(inputs, keep_prob=1.0 - self.rate, key=self.key(rngs))

    def is_off(self, deterministic):
        return self.deterministic if deterministic is None else deterministic

    def key(self, rngs):
        """The next key of what is given, or of the module's own rngs."""
        source = self.rngs if rngs is None else rngs
        if source is None:
            name = type(self).__name__
            raise ValueError(f"rngs must be given to {name} or to its call, unless it is deterministic")
        if isinstance(source, nnx.Rngs):
            source = source[self.rng_collection]
        return source if isinstance(source, jax.Array) else source()


class ReLUDropout(Dropout):
    """ReLU and `Dropout` in one pass."""

    def __call__(self, inputs, *, deterministic=None, rngs=None):
        if self.is_off(deterministic):
            return nnx.relu(inputs)
        return relu_dropout(inputs, keep_prob=1.0 - self.rate, key=self.key(rngs))


class LinenDropout(linen.Module):
    """`flax.linen.Dropout`, without `broadcast_dims`."""

    rate: float
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    @linen.compact
    def __call__(self, inputs, deterministic=None, rng=None):
        if linen.merge_param("deterministic", self.deterministic, deterministic):
            return inputs
        key = self.make_rng(self.rng_collection) if rng is None else rng
        return dropout(inputs, keep_prob=1.0 - self.rate, key=key)


class LinenReLUDropout(LinenDropout):
    """ReLU and `LinenDropout` in one pass."""

    @linen.compact
    def __call__(self, inputs, deterministic=None, rng=None):
        if linen.merge_param("deterministic", self.deterministic, deterministic):
            return linen.relu(inputs)
        key = self.make_rng(self.rng_collection) if rng is None else rng
        return relu_dropout(inputs, keep_prob=1.0 - self.rate, key=key)


# --- a network with each ----------------------------------------------------------------------


class Network(nnx.Module):
    """Two layers, for nnx."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(8, 32, rngs=rngs)
        self.dropout = ReLUDropout(0.1, rngs=rngs)
        self.output = nnx.Linear(32, 1, rngs=rngs)

    def __call__(self, x):
        return self.output(self.dropout(self.hidden(x)))[:, 0]


class LinenNetwork(linen.Module):
    """Two layers, for linen."""

    @linen.compact
    def __call__(self, x, train):
        hidden = LinenReLUDropout(0.1)(linen.Dense(32)(x), deterministic=not train)
        return linen.Dense(1)(hidden)[:, 0]


def data():
    x = jax.random.normal(jax.random.key(0), (256, 8))
    return x, jnp.abs(x[:, 0]) + x[:, 1]


def train_nnx(steps):
    """The mean squared errors before and after training."""
    network, (x, y) = Network(nnx.Rngs(0, dropout=1)), data()

    def error(network):
        return ((network(x) - y) ** 2).mean()

    @nnx.jit
    def step(network):
        slope = nnx.grad(error)(network)
        parameters = nnx.state(network, nnx.Param)
        nnx.update(network, jax.tree.map(lambda p, g: p - 0.1 * g, parameters, slope))

    network.eval()
    before = error(network)
    network.train()
    for _ in range(steps):
        step(network)
    network.eval()
    return float(before), float(error(network))


def train_linen(steps):
    """The mean squared errors before and after training."""
    network, (x, y) = LinenNetwork(), data()
    parameters = network.init(jax.random.key(0), x, train=False)

    def error(parameters, **options):
        return ((network.apply(parameters, x, **options) - y) ** 2).mean()

    @jax.jit
    def step(parameters, key):
        slope = jax.grad(lambda p: error(p, train=True, rngs={"dropout": key}))(parameters)
        return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, slope)

    before = error(parameters, train=False)
    for key in jax.random.split(jax.random.key(1), steps):
        parameters = step(parameters, key)
    return float(before), float(error(parameters, train=False))


if __name__ == "__main__":
    for name, train in (("nnx", train_nnx), ("linen", train_linen)):
        before, after = train(200)
        print(f"{name}: mean squared error {before:.2f} before training, {after:.2f} after")
