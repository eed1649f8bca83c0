"""Keras's TensorFlow backend: the NumPy calls on a tensor's memory, and in a graph by `tf.numpy_function`.

That function is a last resort, because each call and each gradient then runs Python code. XLA has no such
function, so Keras does not compile a model with these layers by XLA.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from fastdrop import checks
from fastdrop.keras.calls import Call, compute, differentiate

CAN_BE_COMPILED = False


def takes(x: Any) -> bool:
    return "GPU" not in x.device and checks.is_supported(np.dtype(x.dtype.as_numpy_dtype))


def apply(call: Call, x: Any, seeds: Any) -> Any:
    """Return the result for `x`, differentiable, with the next seed."""
    words = seeds.next()

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def computed(x: Any) -> Any:
        y = on_host(partial(compute, call), x, words)
        saved = (y,) if call.form == "relu_dropout" else ()
        return y, lambda dy: differentiated(call, dy, words, *saved)

    return computed(x)


def differentiated(call: Call, dy: Any, words: Any, *saved: Any) -> Any:
    """Return the gradient of a call, which is linear in `dy`."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def linear(dy: Any) -> Any:
        dx = on_host(partial(differentiate, call), dy, words, *saved)
        return dx, lambda ddx: differentiated(call, ddx, words, *saved)

    return linear(dy)


def on_host(function: Any, x: Any, words: Any, *saved: Any) -> Any:
    """Return what `function` writes for `x`."""

    def on_arrays(x: Any, words: Any, *saved: Any) -> Any:
        out = np.empty_like(x, order="C")
        function(x, words, out, *saved)
        return out

    if tf.executing_eagerly():
        return tf.convert_to_tensor(on_arrays(*(tensor.numpy() for tensor in (x, words, *saved))))
    y = tf.numpy_function(on_arrays, (x, words, *saved), x.dtype, stateful=False)
    y.set_shape(x.shape)
    return y
