"""JAX: the calls under `jit`, `grad` and `vmap`, on the CPU.

The kernels are reached through `jax.pure_callback`: it costs some tens of microseconds a call and
copies of what goes in and out, and binds to no version of XLA's binary interface.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax import numpy as jnp

from fastdrop import checks, functional
from fastdrop.formulas import SEED_WORDS
from fastdrop.mask import Mask
from fastdrop.stream import seed_of_words

__all__ = ["dropout", "relu_dropout"]


def relu_dropout(x: Array, keep_prob: float, key: Array) -> Array:
    """Apply ReLU and then inverted dropout, differentiable in `x`.

    Parameters
    ----------
    x : jax.Array of float32, float16, bfloat16 or (with x64) float64, any shape
    keep_prob : float
        The probability that an element is kept, in [0, 1]; a Python number, not traced.
    key : jax.Array
        A key of `jax.random`, from which the seed of the stream is drawn: equal keys, equal masks.

    Returns
    -------
    y : jax.Array, shape and dtype of `x`

    Raises
    ------
    TypeError, ValueError
        If the dtype of `x` or `keep_prob` is not accepted.

    Examples
    --------
    >>> import jax
    >>> from fastdrop.jax import relu_dropout
    >>> x = jax.numpy.ones(1000)
    >>> sorted(set(jax.jit(relu_dropout, static_argnums=1)(x, 0.5, jax.random.key(0)).tolist()))
    [0.0, 2.0]
    """
    return drop("relu_dropout", x, keep_prob, key)


def dropout(x: Array, keep_prob: float, key: Array) -> Array:
    """Apply inverted dropout, differentiable in `x`. Parameters, result and errors are those of `relu_dropout`."""
    return drop("dropout", x, keep_prob, key)


def drop(form: str, x: Array, keep_prob: float, key: Array) -> Array:
    x = jnp.asarray(x)
    checks.elements("x", np.empty(0, x.dtype))
    words = jax.random.bits(key, (SEED_WORDS,), "uint32")
    return forward(form, checks.keep_probability(keep_prob), x, words)[0]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def forward(form: str, keep_prob: float, x: Array, words: Array) -> tuple[Array, Array]:
    """Return the result and the packed bits."""

    def on_host(x: Any, words: Any) -> tuple[Any, Any]:
        y, mask = getattr(functional, form)(np.asarray(x), keep_prob, rng=seed_of_words(words))
        return y, mask.bits

    bits = jax.ShapeDtypeStruct(((x.size + 7) // 8,), jnp.uint8)
    results = (jax.ShapeDtypeStruct(x.shape, x.dtype), bits)
    y, bits = jax.pure_callback(on_host, results, x, words, vmap_method="sequential")
    return y, bits


def forward_for_gradient(
    form: str, keep_prob: float, x: Array, words: Array
) -> tuple[tuple[Array, Array], tuple[Array, Any]]:
    y, bits = forward(form, keep_prob, x, words)
    return (y, bits), (bits, np.zeros(words.shape, jax.dtypes.float0))


def backward(
    form: str, keep_prob: float, saved: tuple[Array, Any], gradients: tuple[Array, Any]
) -> tuple[Array, Any]:
    bits, no_gradient = saved
    return masked(form, keep_prob, gradients[0], bits), no_gradient


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def masked(form: str, keep_prob: float, dy: Array, bits: Array) -> Array:
    """Return the gradient. It is linear in `dy` and its own transpose, so it has gradients of every order."""

    def on_host(dy: Any, bits: Any) -> Any:
        mask = Mask(np.asarray(bits), dy.shape, keep_prob)
        return getattr(functional, f"{form}_backward")(np.asarray(dy), mask)

    result = jax.ShapeDtypeStruct(dy.shape, dy.dtype)
    return jax.pure_callback(on_host, result, dy, bits, vmap_method="sequential")


def masked_for_gradient(form: str, keep_prob: float, dy: Array, bits: Array) -> tuple[Array, Any]:
    return masked(form, keep_prob, dy, bits), (bits, np.zeros(bits.shape, jax.dtypes.float0))


def masked_backward(form: str, keep_prob: float, saved: tuple[Array, Any], dy: Array) -> tuple[Array, Any]:
    bits, no_gradient = saved
    return masked(form, keep_prob, dy, bits), no_gradient


forward.defvjp(forward_for_gradient, backward)
masked.defvjp(masked_for_gradient, masked_backward)
