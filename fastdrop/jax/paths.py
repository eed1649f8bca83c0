"""The two ways from JAX to the kernels: XLA's foreign functions, and a callback where XLA refuses them.

Both take and return the same arrays, and only their speed differs. A call has a seed of one axis, its words,
and bits of one axis. `vmap` puts axes before those of all arrays alike, and each row is a call of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from jax import Array
from jax import numpy as jnp

from fastdrop import functional
from fastdrop.formulas import packed, training_scale
from fastdrop.jax import handlers
from fastdrop.mask import Mask
from fastdrop.stream import seed_of_words

Path: TypeAlias = Literal["ffi", "callback"]

FORWARD, BACKWARD = "fastdrop_forward_v1", "fastdrop_backward_v1"  # exported programs have these names


class Call(NamedTuple):
    """What is compiled into a call."""

    form: str
    keep_prob: float
    path: Path
    derive: str = "words"  # how the seed comes from what is given as the seed


def forward(call: Call, x: Array, seed: Array) -> tuple[Array, Array]:
    """The result and the packed bits."""
    results = like(x), jax.ShapeDtypeStruct((packed(x.size),), jnp.uint8)
    if call.path == "callback":
        return callback(forward_on_host, call, results)(x, seed)
    foreign = jax.ffi.ffi_call(FORWARD, results, vmap_method="broadcast_all")
    y, bits = foreign(
        x,
        seed,
        keep_prob=np.float64(call.keep_prob),
        scale=np.float64(training_scale(call.keep_prob, "inverted")),
        relu=np.int32(call.form == "relu_dropout"),
        derive=np.int32(handlers.derivations[call.derive]),
    )
    return y, bits


def backward(call: Call, dy: Array, bits: Array) -> Array:
    """The gradient for `x`."""
    if call.path == "callback":
        return callback(backward_on_host, call, like(dy))(dy, bits)
    foreign = jax.ffi.ffi_call(BACKWARD, like(dy), vmap_method="broadcast_all")
    return foreign(dy, bits, scale=np.float64(training_scale(call.keep_prob, "inverted")))


def like(x: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


# --- the callback -----------------------------------------------------------------------------


def callback(on_host: Any, call: Call, results: Any) -> Any:
    """A call of `on_host` on XLA's own buffers, with each row of them.

    `jax.pure_callback` cannot take its place. It hands over arrays of JAX, and waiting for their values
    needs the thread that the callback runs on: on one CPU the wait never ends.
    """
    from jax.experimental.buffer_callback import buffer_callback  # JAX 0.6 and later

    def on_buffers(context: Any, out: Any, *arrays: Any) -> None:
        for row in rows(*map(np.asarray, (*arrays, *jax.tree.leaves(out)))):
            on_host(call, *row)

    return buffer_callback(on_buffers, results, vmap_method="broadcast_all")


def rows(elements: Any, words: Any, *others: Any) -> Iterator[tuple[Any, ...]]:
    """The parts of the arrays that one call has. The second array has one axis after those of vmap."""
    for index in np.ndindex(words.shape[:-1]):
        row = (*index, ...)
        yield tuple(array[row] for array in (elements, words, *others))


def forward_on_host(call: Call, x: Any, seed: Any, y: Any, bits: Any) -> None:
    _, mask = getattr(functional, call.form)(x, keep_prob=call.keep_prob, rng=seed_of_words(seed), out=y)
    bits[...] = mask.bits


def backward_on_host(call: Call, dy: Any, bits: Any, dx: Any) -> None:
    mask = Mask(bits, dy.shape, keep_prob=call.keep_prob)
    getattr(functional, f"{call.form}_backward")(dy, mask, out=dx)


# --- which of them ----------------------------------------------------------------------------

chosen: Path | None = None
choosing = threading.Lock()
refused_because = ""


def in_use() -> Path:
    """The path of the calls in this process. It is chosen once, when it is first asked for."""
    global chosen
    with choosing:
        if chosen is None:
            chosen = choose()
        return chosen


def choose() -> Path:
    """Register the handlers, or say in `refused_because` why there is a callback instead.

    XLA checks the version of a handler once its CPU backend has started. Before that it only queues the
    handlers, and a refusal then breaks whatever JAX does first.
    """
    global refused_because
    jax.devices("cpu")
    try:
        for name, capsule in zip((FORWARD, BACKWARD), handlers.capsules()):
            jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    except RuntimeError as error:
        refused_because = str(error).partition("\n")[0]
        return "callback"
    return "ffi"


def targets() -> tuple[str, ...]:
    """Register the foreign functions with XLA, and return their names.

    The calls register them too. Use this to allow the names in `jax.export`, and in a process that runs an
    exported program without a call of its own.

    Returns
    -------
    names : tuple of str
        The names stay with what they compute: a handler that computes something else gets another name.

    Examples
    --------
    >>> import jax
    >>> from jax import export
    >>> from fastdrop.jax import dropout, targets
    >>> function = jax.jit(lambda x, key: dropout(x, keep_prob=0.9, key=key))
    >>> allowed = [export.DisabledSafetyCheck.custom_call(name) for name in targets()]
    >>> x, key = jax.numpy.ones(100), jax.random.key(0)
    >>> export.export(function, disabled_checks=allowed)(x, key).call(x, key).shape
    (100,)
    """
    in_use()
    return FORWARD, BACKWARD


def in_words() -> str:
    """The path, for people."""
    if in_use() == "callback":
        return f"Python callback, because XLA refuses the handlers: {refused_because}"
    return f"XLA's foreign function interface {handlers.interface_version() or '(version not stated)'}"
