"""The JAX adapter gives the bits of the calls, also inside JAX's transformations."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is an optional dependency")

from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import fastdrop as fd  # noqa: E402
import fastdrop.jax as fjax  # noqa: E402

FORMS = ["dropout", "relu_dropout"]


def values(*shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(5), shape).astype(dtype)


def seed(key):
    return sum(int(word) << 32 * i for i, word in enumerate(jax.random.bits(key, (4,), "uint32")))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
def test_results_and_gradients_are_those_of_the_calls(form, dtype):
    x, key = values(7, 33, dtype=dtype), jax.random.key(1)
    y, pull = jax.vjp(lambda x: getattr(fjax, form)(x, 0.7, key), x)
    expected, mask = getattr(fd, form)(np.asarray(x), 0.7, rng=seed(key))
    assert y.dtype == x.dtype
    assert np.array_equal(np.asarray(y), expected)
    dx = getattr(fd, f"{form}_backward")(np.asarray(x), mask)
    assert np.array_equal(np.asarray(pull(x)[0]), dx)


@pytest.mark.parametrize("form", FORMS)
def test_jit_and_grad_change_nothing(form):
    x, key, call = values(300), jax.random.key(1), getattr(fjax, form)
    assert np.array_equal(jax.jit(call, static_argnums=1)(x, 0.7, key), call(x, 0.7, key))
    slope = jax.grad(lambda x: call(x, 0.7, key).sum())
    assert np.array_equal(jax.jit(slope)(x), slope(x))


def test_vmap_over_keys_and_examples():
    x, keys = values(4, 200), jax.random.split(jax.random.key(2), 4)
    batch = jax.vmap(lambda x, key: fjax.dropout(x, 0.5, key))(x, keys)
    assert np.array_equal(batch, jnp.stack([fjax.dropout(row, 0.5, key) for row, key in zip(x, keys)]))
    slope = jax.vmap(jax.grad(lambda x, key: fjax.dropout(x, 0.5, key).sum()))(x, keys)
    assert np.array_equal(slope != 0, batch != 0)


def test_float64_under_x64():
    with jax.enable_x64(True):
        x, key = jnp.arange(50.0) - 20, jax.random.key(1)
        assert x.dtype == "float64"
        expected, _ = fd.relu_dropout(np.asarray(x), 0.7, rng=seed(key))
        assert np.array_equal(fjax.relu_dropout(x, 0.7, key), expected)


def test_gradients_of_gradients():
    x, key = values(100), jax.random.key(1)
    slope = jax.grad(lambda x: (fjax.dropout(x, 0.5, key) ** 2).sum())
    kept = fjax.dropout(jnp.ones_like(x), 0.5, key)
    assert np.array_equal(jax.grad(lambda x: slope(x).sum())(x), 2 * kept**2)


@pytest.mark.parametrize("form", FORMS)
def test_jax_finds_the_gradients_right(form):
    x, key = values(40), jax.random.key(1)
    check_grads(lambda x: getattr(fjax, form)(x, 0.7, key), (x,), order=2, modes=["rev"])


def test_equal_keys_give_equal_masks_and_others_do_not():
    x = jnp.ones(500)
    first, second = (fjax.dropout(x, 0.5, jax.random.key(n)) for n in (0, 1))
    assert np.array_equal(first, fjax.dropout(x, 0.5, jax.random.key(0)))
    assert not np.array_equal(first, second)


def test_errors():
    with pytest.raises(ValueError, match="keep_prob must be in"):
        fjax.dropout(jnp.ones(3), 1.5, jax.random.key(0))
    with pytest.raises(TypeError, match="x must have dtype float32"):
        fjax.relu_dropout(jnp.ones(3, int), 0.5, jax.random.key(0))
