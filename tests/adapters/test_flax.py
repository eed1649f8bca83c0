"""Flax: the modules of the example do what Flax's own do, with the masks of the kernels."""

from __future__ import annotations

import runpy

import numpy as np
import pytest

pytest.importorskip("flax", reason="Flax is an optional dependency")

import jax
from flax import nnx
from jax import numpy as jnp

from fastdrop import reference
from support import ROOT

EXAMPLE = ROOT / "examples" / "flax_modules.py"
pytestmark = pytest.mark.skipif(not EXAMPLE.exists(), reason="the example is in a checkout alone")
X = jax.random.normal(jax.random.key(5), (20, 30))


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


def expected(form, key):
    seed = sum(int(word) << 32 * i for i, word in enumerate(jax.random.bits(key, (4,), "uint32")))
    return getattr(reference, form)(np.asarray(X), keep_prob=1.0 - 0.25, rng=seed)[0]


@pytest.mark.parametrize(("name", "form"), [("Dropout", "dropout"), ("ReLUDropout", "relu_dropout")])
def test_nnx_draws_from_its_rngs(example, name, form):
    module, same = example[name](0.25, rngs=nnx.Rngs(dropout=3)), nnx.Dropout(0.25, rngs=nnx.Rngs(dropout=3))
    first, second = module(X), module(X)
    assert np.array_equal(first, expected(form, same.rngs()))
    assert np.array_equal(second, expected(form, same.rngs()))
    key = jax.random.key(9)
    assert np.array_equal(module(X, rngs=key), expected(form, key))
    assert np.array_equal(nnx.jit(lambda module: module(X))(module), expected(form, same.rngs()))


@pytest.mark.parametrize(
    ("name", "form"), [("LinenDropout", "dropout"), ("LinenReLUDropout", "relu_dropout")]
)
def test_linen_draws_from_its_rngs(example, name, form):
    module, key = example[name](0.25), jax.random.key(9)
    assert np.array_equal(module.apply({}, X, deterministic=False, rng=key), expected(form, key))
    first, again, other = (
        module.apply({}, X, deterministic=False, rngs={"dropout": jax.random.key(n)}) for n in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_nothing_is_dropped_where_it_is_deterministic(example):
    module = example["Dropout"](0.25, rngs=nnx.Rngs(0))
    module.eval()
    assert module(X) is X
    assert np.array_equal(example["ReLUDropout"](0.25, deterministic=True)(X), jnp.maximum(X, 0))
    assert example["LinenDropout"](0.25, deterministic=True).apply({}, X) is X
    module = example["LinenReLUDropout"](0.25, deterministic=True)
    assert np.array_equal(module.apply({}, X), jnp.maximum(X, 0))


def test_the_edges_of_the_rate(example):
    for rate, wanted in ((0.0, X), (1.0, jnp.zeros_like(X))):
        assert np.array_equal(example["Dropout"](rate, rngs=nnx.Rngs(0))(X), wanted)
        module = example["LinenDropout"](rate, deterministic=False)
        assert np.array_equal(module.apply({}, X, rngs={"dropout": jax.random.key(0)}), wanted)


def test_without_rngs_it_says_what_is_missing(example):
    with pytest.raises(ValueError, match="rngs must be given to Dropout"):
        example["Dropout"](0.5)(X)


@pytest.mark.parametrize("train", ["train_nnx", "train_linen"])
def test_networks_learn(example, train):
    before, after = example[train](100)
    assert after < before / 4
