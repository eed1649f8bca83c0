"""Keras's JAX backend: the JAX adapter, and a callback on XLA's buffers for the calls that it lacks."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax import numpy as jnp

from fastdrop import checks
from fastdrop.jax import functional, paths
from fastdrop.keras.calls import Call, compute, differentiate

CAN_BE_COMPILED = True
PLAIN = ("dropout", "relu_dropout")  # the forms that the handlers have


def takes(x: Array) -> bool:
    return jax.default_backend() == "cpu" and checks.is_supported(x.dtype)


def apply(call: Call, x: Array, seeds: Any) -> Array:
    """Return the result for `x`, differentiable, with the next seed."""
    paths.in_use()  # outside of the trace, which may not register with XLA
    return compiled(call, x, seeds.next())


@partial(jax.jit, static_argnums=0, inline=True)
def compiled(call: Call, x: Array, words: Array) -> Array:
    """Return the result of a whole call. `jit` makes an eager call quick."""
    x = functional.varying_with(x, words)
    if call.form in PLAIN:
        seed = jnp.pad(words[:, None], ((0, 0), (0, 1))).ravel()  # the halves of the words, of 32 bits each
        plain = paths.Call(call.form, call.keep_prob, paths.in_use())
        return functional.forward(plain, x, seed)[0]
    return computed(call, x, words)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def computed(call: Call, x: Array, words: Array) -> Array:
    """Return the result of a call."""
    return on_buffers(partial(compute, call), x, words)


def computed_for_gradient(call: Call, x: Array, words: Array) -> tuple[Array, Array]:
    return computed(call, x, words), words


def backward(call: Call, words: Array, dy: Array) -> tuple[Array, None]:
    return differentiated(call, dy, words), None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def differentiated(call: Call, dy: Array, words: Array) -> Array:
    """Return the gradient of a call, which is linear in `dy`."""
    return on_buffers(partial(differentiate, call), dy, words)


def differentiated_for_gradient(call: Call, dy: Array, words: Array) -> tuple[Array, Array]:
    return differentiated(call, dy, words), words


computed.defvjp(computed_for_gradient, backward)
differentiated.defvjp(differentiated_for_gradient, backward)


def on_buffers(function: Any, x: Array, words: Array) -> Array:
    """Return what `function` writes for `x`. It gets XLA's own buffers, so it never waits for a value."""
    from jax.experimental.buffer_callback import buffer_callback  # JAX 0.6 and later

    def on_host(context: Any, out: Any, *arrays: Any) -> None:
        function(*map(np.asarray, arrays), np.asarray(out))

    result = jax.ShapeDtypeStruct(x.shape, x.dtype)
    y: Array = buffer_callback(on_host, result, vmap_method="sequential")(x, words)
    return functional.vary(y, functional.axes_varied_over(x))
