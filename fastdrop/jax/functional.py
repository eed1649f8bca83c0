"""The calls for JAX, differentiable by `custom_vjp`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax import numpy as jnp

from fastdrop import checks
from fastdrop.formulas import SEED_WORDS
from fastdrop.jax import paths
from fastdrop.jax.paths import Call
from fastdrop.usage import explained


@explained
def relu_dropout(x: Array, *, keep_prob: float, key: Array) -> Array:
    """Apply ReLU and then inverted dropout, in one pass over `x`; differentiable in `x`.

    Computes ``relu(x) / keep_prob`` for a kept element and ``+0`` for a dropped one, where
    ``relu(x) = 0 if x <= 0 else x``.

    Parameters
    ----------
    x : jax.Array of float32, float16, bfloat16 or (with x64) float64, any shape
        The input.
    keep_prob : float
        The probability that an element is kept, in [0, 1]. It is compiled into the call, so it must be a
        Python number: under `jax.jit`, pass it as a static argument. Flax's ``rate`` is ``1 - keep_prob``.
    key : jax.Array
        One key of `jax.random`, typed or raw. The seed of the stream is ``jax.random.bits(key, (4,))``,
        least significant word first. Equal keys give equal masks.

    Returns
    -------
    y : jax.Array
        The result, with the shape and dtype of `x`.

    Raises
    ------
    TypeError
        If the dtype of `x` is not accepted, `keep_prob` is not a Python number or `key` is no key.
    ValueError
        If `keep_prob` is outside of [0, 1] or `key` is an array of keys.

    Notes
    -----
    `grad` of every order, `vmap`, `scan`, `checkpoint`, `shard_map` and `pmap` apply; `jvp` does not. Under
    `vmap` each example draws from its own key, or all from the key that they share.

    Examples
    --------
    >>> import jax
    >>> from fastdrop.jax import relu_dropout
    >>> y = relu_dropout(jax.numpy.ones(1000), keep_prob=0.5, key=jax.random.key(0))
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """
    return drop("relu_dropout", x, keep_prob, key)


@explained
def dropout(x: Array, *, keep_prob: float, key: Array) -> Array:
    """Apply inverted dropout, in one pass over `x`; differentiable in `x`.

    Computes ``x / keep_prob`` for a kept element and ``+0`` for a dropped one.

    Parameters
    ----------
    x : jax.Array of float32, float16, bfloat16 or (with x64) float64, any shape
        The input.
    keep_prob : float
        The probability that an element is kept, in [0, 1]. It is compiled into the call, so it must be a
        Python number: under `jax.jit`, pass it as a static argument. Flax's ``rate`` is ``1 - keep_prob``.
    key : jax.Array
        One key of `jax.random`, typed or raw. The seed of the stream is ``jax.random.bits(key, (4,))``,
        least significant word first. Equal keys give equal masks.

    Returns
    -------
    y : jax.Array
        The result, with the shape and dtype of `x`.

    Raises
    ------
    TypeError
        If the dtype of `x` is not accepted, `keep_prob` is not a Python number or `key` is no key.
    ValueError
        If `keep_prob` is outside of [0, 1] or `key` is an array of keys.

    Examples
    --------
    >>> import jax
    >>> from fastdrop.jax import dropout
    >>> y = dropout(jax.numpy.ones((2, 3)), keep_prob=1.0, key=jax.random.key(0))
    >>> y.tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    return drop("dropout", x, keep_prob, key)


def drop(form: str, x: Any, keep_prob: Any, key: Any) -> Array:
    if isinstance(keep_prob, jax.core.Tracer):
        raise TypeError("keep_prob must be a Python number, got a traced value: make it a static argument of jax.jit")
    call = Call(form, checks.keep_probability(keep_prob), paths.in_use())
    if not is_key(key):
        raise TypeError(f"key must be a key of jax.random, got {key!r}")
    return compiled(call, x if isinstance(x, Array) else jnp.asarray(x), key)


@partial(jax.jit, static_argnums=0, inline=True)
def compiled(call: Call, x: Array, key: Array) -> Array:
    """The whole call. `jit` makes an eager call quick, and leaves nothing behind in a trace."""
    checks.elements("x", np.empty(0, x.dtype))
    seed, derive = seed_from(key, call)
    return forward(call._replace(derive=derive), varying_with(x, seed), seed)[0]


# --- the seed ---------------------------------------------------------------------------------


def seed_from(key: Any, call: Call) -> tuple[Array, str]:
    """What the handler makes a seed of, and how: a threefry key as it is, and the words of any other key."""
    data = jax.random.key_data(key)
    if data.ndim > 1:
        shape = data.shape[:-1]
        raise ValueError(f"key must be one key, got an array of shape {shape}; jax.vmap takes several")
    if str(jax.random.key_impl(key)) != "threefry2x32":
        return words_of_each(key), "words"
    if call.path == "ffi":
        config: Any = jax.config
        return data, "partitionable" if config.jax_threefry_partitionable else "original"
    return words_of(key), "words"


def words_of(key: Any) -> Array:
    return jax.random.bits(key, (SEED_WORDS,), "uint32")


# Under vmap, JAX's other generators draw from the first key alone. So keys are taken one after the other.
words_of_each = jax.custom_batching.sequential_vmap(words_of)


def is_key(key: Any) -> bool:
    """Whether this is a typed key, or the words of one."""
    if not isinstance(key, Array):
        return False
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or (key.dtype == jnp.uint32 and key.ndim > 0)


# --- sharding ---------------------------------------------------------------------------------


def typed_like(array: Array, like: Array) -> Array:
    """`array` with what the type of `like` says about devices: where it varies, and its explicit sharding."""
    sharding: Any = getattr(jax.typeof(like), "sharding", None) if hasattr(jax, "typeof") else None
    explicit = getattr(getattr(sharding, "mesh", None), "explicit_axes", ())
    array = vary(array, axes_varied_over(like))
    return jax.sharding.reshard(array, sharding) if explicit else array


def varying_with(array: Array, other: Array) -> Array:
    """`array`, varying also over the axes of the mesh that `other` varies over.

    Under `shard_map` a result varies wherever an argument does. Where an argument varies over fewer axes than
    the result, its gradient is a sum over devices, which a `custom_vjp` knows nothing of. Making the argument
    vary outside of the `custom_vjp` adds this sum. Integers have no gradient and stay as they are.
    """
    return vary(array, axes_varied_over(array) | axes_varied_over(other))


def axes_varied_over(array: Array) -> frozenset[Any]:
    """The axes of the mesh over which this array's values differ, as far as JAX keeps account of it."""
    if not hasattr(jax, "typeof"):
        return frozenset()
    kind: Any = jax.typeof(array)
    manual = getattr(kind, "manual_axis_type", None)
    return getattr(kind, "vma", frozenset()) if manual is None else manual.varying


def vary(array: Array, axes: frozenset[Any]) -> Array:
    missing = tuple(axes - axes_varied_over(array))
    if not missing:
        return array
    lax: Any = jax.lax
    if hasattr(lax, "pcast"):
        return lax.pcast(array, missing, to="varying")
    return lax.pvary(array, missing)


# --- gradients --------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def forward(call: Call, x: Array, seed: Array) -> tuple[Array, Array]:
    """The result and the packed bits."""
    y, bits = paths.forward(call, x, seed)
    return typed_like(y, x), vary(bits, axes_varied_over(x))


def forward_for_gradient(call: Call, x: Array, seed: Array) -> tuple[tuple[Array, Array], Array]:
    y, bits = forward(call, x, seed)
    return (y, bits), bits


def backward(call: Call, bits: Array, gradients: tuple[Array, Any]) -> tuple[Array, None]:
    return masked(call, varying_with(gradients[0], bits), bits), None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def masked(call: Call, dy: Array, bits: Array) -> Array:
    """The gradient: linear in `dy` and its own transpose, so that it has gradients of every order."""
    return typed_like(paths.backward(call, dy, bits), dy)


def masked_for_gradient(call: Call, dy: Array, bits: Array) -> tuple[Array, Array]:
    return masked(call, dy, bits), bits


def masked_backward(call: Call, bits: Array, dy: Array) -> tuple[Array, None]:
    return masked(call, varying_with(dy, bits), bits), None


forward.defvjp(forward_for_gradient, backward)
masked.defvjp(masked_for_gradient, masked_backward)
