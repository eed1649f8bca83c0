"""Dask: the calls on arrays that do not fit one machine.

The calls are lazy. The result equals that of the NumPy call on the whole array, for any chunks and any
number and order of workers, because each block draws at its own place in the whole array. No mask is
stored or sent: backward reads the decisions from the output, or draws them again.

Results are NumPy arrays of native byte order, whatever kind of ndarray the chunks are. A chunk that is
not what the array declares raises an error when it is computed, because it would draw at wrong places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastdrop.optional import require

require("dask")

import dask.array as da
import numpy as np

from fastdrop import checks, formulas, functional
from fastdrop.checks import Axes
from fastdrop.foreign import base_array
from fastdrop.formulas import Mode
from fastdrop.stream import RNG, Stream, Tile, as_stream
from fastdrop.usage import explained

__all__ = [
    "Draws", "dropout", "dropout_backward", "dropout_predict", "keep_mask",
    "relu_dropout", "relu_dropout_backward", "relu_dropout_predict",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Draws:
    """A few numbers that stand for the mask of an array: the decisions can be drawn from them again.

    Attributes
    ----------
    shape : tuple of int
        The shape of the array.
    keep_prob : float
        The probability that an element is kept.
    mode : {"inverted", "vanilla"}
        How kept elements are scaled.
    seed, offset : int
        The seed of the stream, and the position of the first decision.
    shared : tuple of int
        The axes along which elements share one decision.
    relu : bool
        Whether a ReLU came first. Its gradient needs the output too.
    """

    shape: tuple[int, ...]
    keep_prob: float
    mode: Mode
    seed: int
    offset: int
    shared: tuple[int, ...] = ()
    relu: bool = False

    def __post_init__(self) -> None:
        checks.keep_probability(self.keep_prob)
        checks.dropout_mode(self.mode)
        checks.shared_axes(self.shared, len(self.shape))
        Tile(self.shape, (0,) * len(self.shape), self.seed)
        Stream(self.seed, self.offset)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Draws, **vars(self)), ()

    @classmethod
    def reserve(
        cls, shape: tuple[int, ...], keep_prob: float, mode: Mode, rng: RNG, broadcast_dims: Axes = (), *,
        relu: bool = False,
    ) -> Draws:  # fmt: skip
        keep_prob, mode = checks.keep_probability(keep_prob), checks.dropout_mode(mode)
        shared = checks.shared_axes(broadcast_dims, len(shape))
        stream = as_stream(rng)
        offset = stream.reserve(math.prod(formulas.decided_shape(shape, shared)))
        return cls(
            shape=shape, keep_prob=keep_prob, mode=mode, seed=stream.seed, offset=offset, shared=shared, relu=relu
        )

    def tile(self, block_info: Any) -> Tile:
        """Return the randomness of a block."""
        origin = [start for start, _ in block_info["array-location"]]
        return Tile(self.shape, origin, self.seed, self.offset)


@explained
def relu_dropout(
    x: da.Array, *, keep_prob: float, bias: Any = None, mode: Mode = "inverted", broadcast_dims: Axes = (),
    rng: RNG = None,
) -> tuple[da.Array, Draws]:  # fmt: skip
    """Apply ReLU and then dropout to a Dask array, in training.

    Computes ``y = scale * relu(x + bias)`` for a kept element and ``+0`` for a dropped one.

    Parameters
    ----------
    x : dask.array.Array of float32, float64, float16 or bfloat16, any shape and chunks
        The input, in any byte order. The sizes of its chunks must be known. Masked chunks are refused.
    keep_prob : float
        The probability that an element is kept, in [0, 1], exact to ``2**-64``.
    bias : dask.array.Array or array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``"inverted"`` multiplies kept elements by ``scale = 1 / keep_prob``. ``"vanilla"`` has
        ``scale = 1`` and leaves the scaling to prediction.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. A `Stream` advances when the graph is made.

    Returns
    -------
    y : dask.array.Array, shape, dtype and chunks of `x`
        The result, in native byte order.
    draws : Draws
        A few numbers that stand for the mask.

    Raises
    ------
    TypeError, ValueError
        If an argument is not accepted; when the graph is made, not when it is computed. A chunk whose
        shape or dtype differs from what `x` declares raises when it is computed.

    See Also
    --------
    relu_dropout_backward : The gradient.
    relu_dropout_predict : The same layer at prediction.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import fastdrop as fd
    >>> import fastdrop.dask
    >>> x = np.ones((4, 6), np.float32)
    >>> y, draws = fastdrop.dask.relu_dropout(da.from_array(x, chunks=(2, 5)), keep_prob=0.5, rng=7)
    >>> bool((y.compute() == fd.relu_dropout(x, keep_prob=0.5, rng=7)[0]).all())
    True
    """
    return forward("relu_dropout", x, keep_prob, bias, mode, broadcast_dims, rng)


@explained
def dropout(
    x: da.Array, *, keep_prob: float, bias: Any = None, mode: Mode = "inverted", broadcast_dims: Axes = (),
    rng: RNG = None,
) -> tuple[da.Array, Draws]:  # fmt: skip
    """Apply dropout to a Dask array, in training.

    Computes ``y = scale * (x + bias)`` for a kept element and ``+0`` for a dropped one.

    Parameters
    ----------
    x : dask.array.Array of float32, float64, float16 or bfloat16, any shape and chunks
        The input, in any byte order. The sizes of its chunks must be known. Masked chunks are refused.
    keep_prob : float
        The probability that an element is kept, in [0, 1], exact to ``2**-64``.
    bias : dask.array.Array or array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``"inverted"`` multiplies kept elements by ``scale = 1 / keep_prob``. ``"vanilla"`` has
        ``scale = 1`` and leaves the scaling to prediction.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. A `Stream` advances when the graph is made.

    Returns
    -------
    y : dask.array.Array, shape, dtype and chunks of `x`
        The result, in native byte order.
    draws : Draws
        A few numbers that stand for the mask.

    Raises
    ------
    TypeError, ValueError
        If an argument is not accepted; when the graph is made, not when it is computed. A chunk whose
        shape or dtype differs from what `x` declares raises when it is computed.

    See Also
    --------
    dropout_backward : The gradient.
    dropout_predict : The same layer at prediction.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import fastdrop as fd
    >>> import fastdrop.dask
    >>> x = np.ones((4, 6), np.float32)
    >>> y, draws = fastdrop.dask.dropout(da.from_array(x, chunks=(2, 5)), keep_prob=0.5, rng=7)
    >>> bool((y.compute() == fd.dropout(x, keep_prob=0.5, rng=7)[0]).all())
    True
    """
    return forward("dropout", x, keep_prob, bias, mode, broadcast_dims, rng)


@explained
def relu_dropout_backward(dy: da.Array, y: da.Array, draws: Draws) -> da.Array:
    """Compute the gradient of `relu_dropout`, with the decisions read from its output `y`.

    Parameters
    ----------
    dy : dask.array.Array, shape and dtype of `y`, any chunks
        The gradient with respect to `y`.
    y : dask.array.Array of float32, float64, float16 or bfloat16
        The output of the forward call.
    draws : Draws
        What the forward call returned beside `y`.

    Returns
    -------
    dx : dask.array.Array, shape, dtype and chunks of `y`

    Raises
    ------
    TypeError
        If an array is not a Dask array, or the dtypes differ.
    ValueError
        If a shape is not that of the forward call, or `draws` are those of `dropout`.
    """
    y, dy = fitting("y", y, draws), fitting("dy", dy, draws)
    if dy.dtype.type is not y.dtype.type:
        raise TypeError(f"dy must have y's dtype {y.dtype.name}, got {dy.dtype.name}")
    if not draws.relu:
        raise ValueError("draws must come from relu_dropout, got those of dropout: "
                         "pass them to dropout_backward(dy, draws)")  # fmt: skip
    return mapped(gradient, y, dy.rechunk(y.chunks), draws=draws)


@explained
def dropout_backward(dy: da.Array, draws: Draws) -> da.Array:
    """Compute the gradient of `dropout`, with the decisions drawn again.

    Parameters
    ----------
    dy : dask.array.Array of float32, float64, float16 or bfloat16
        The gradient with respect to the output of the forward call.
    draws : Draws
        What the forward call returned beside its output.

    Returns
    -------
    dx : dask.array.Array, shape, dtype and chunks of `dy`

    Raises
    ------
    TypeError
        If `dy` is not a Dask array of an accepted dtype.
    ValueError
        If its shape is not that of the forward call, or `draws` are those of `relu_dropout`.
    """
    dy = fitting("dy", dy, draws)
    if draws.relu:
        raise ValueError("draws must come from dropout, got those of relu_dropout, whose gradient needs y: "
                         "pass them to relu_dropout_backward(dy, y, draws)")  # fmt: skip
    return mapped(dropped, dy, form="dropout", draws=draws)


@explained
def relu_dropout_predict(
    x: da.Array, *, keep_prob: float | None = None, bias: Any = None, mode: Mode = "inverted"
) -> da.Array:
    """Apply a `relu_dropout` layer to a Dask array at prediction, where nothing is dropped.

    Computes ``y = relu(x + bias)``, times `keep_prob` in mode ``"vanilla"``.

    Parameters
    ----------
    x : dask.array.Array of float32, float64, float16 or bfloat16, any shape and chunks
        The input, in any byte order. The sizes of its chunks must be known. Masked chunks are refused.
    keep_prob : float, optional
        The keep probability of training, in [0, 1]. Mode ``"vanilla"`` needs it.
    bias : dask.array.Array or array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        The mode of training.

    Returns
    -------
    y : dask.array.Array, shape, dtype and chunks of `x`
        The result, in native byte order.

    Raises
    ------
    TypeError, ValueError
        If an argument is not accepted; when the graph is made, not when it is computed. A chunk whose
        shape or dtype differs from what `x` declares raises when it is computed.
    """
    return predicted("relu_dropout_predict", x, keep_prob, bias, mode)


@explained
def dropout_predict(
    x: da.Array, *, keep_prob: float | None = None, bias: Any = None, mode: Mode = "inverted"
) -> da.Array:
    """Apply a `dropout` layer to a Dask array at prediction, where nothing is dropped.

    Computes ``y = x + bias``, times `keep_prob` in mode ``"vanilla"``.

    Parameters
    ----------
    x : dask.array.Array of float32, float64, float16 or bfloat16, any shape and chunks
        The input, in any byte order. The sizes of its chunks must be known. Masked chunks are refused.
    keep_prob : float, optional
        The keep probability of training, in [0, 1]. Mode ``"vanilla"`` needs it.
    bias : dask.array.Array or array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        The mode of training.

    Returns
    -------
    y : dask.array.Array, shape, dtype and chunks of `x`
        The result, in native byte order.

    Raises
    ------
    TypeError, ValueError
        If an argument is not accepted; when the graph is made, not when it is computed. A chunk whose
        shape or dtype differs from what `x` declares raises when it is computed.
    """
    return predicted("dropout_predict", x, keep_prob, bias, mode)


@explained
def keep_mask(
    shape: int | Sequence[int], *, keep_prob: float, chunks: Any = "auto", rng: RNG = None
) -> da.Array:
    """Draw the decisions alone, as a Dask array of bool.

    Parameters
    ----------
    shape : int or sequence of int
        The shape of the array that the decisions are for.
    keep_prob : float
        The probability that an element is kept, in [0, 1], exact to ``2**-64``.
    chunks : int, tuple or str, default "auto"
        The chunks of the result, as in `dask.array.empty`.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. A `Stream` advances when the graph is made.

    Returns
    -------
    dask.array.Array of bool, shape `shape`
        What ``fastdrop.keep_mask(...).to_array()`` returns.

    Raises
    ------
    TypeError, ValueError
        If an argument is not accepted.
    """
    shape = checks.shape_of("shape", shape)
    places = da.empty(shape, chunks=chunks_of(shape, chunks), dtype=bool)
    draws = Draws.reserve(shape, keep_prob, "inverted", rng)
    return da.map_blocks(kept, places, draws=draws, dtype=bool, meta=np.empty((0,) * places.ndim, bool))


# --- a block ----------------------------------------------------------------------------------


def chunks_of(shape: tuple[int, ...], chunks: Any) -> Any:
    """Return the chunks that Dask makes of `chunks`."""
    try:
        return da.core.normalize_chunks(chunks, shape, dtype=bool)
    except ValueError as error:
        raise ValueError(f"chunks must fit an array of shape {shape}, got {chunks!r}: {error}") from None


def kept(block: Any, draws: Draws, block_info: Any = None) -> Any:
    return functional.keep_mask(block.shape, keep_prob=draws.keep_prob, rng=draws.tile(block_info[0])).to_array()


def dropped(block: Any, bias: Any = None, *, form: str, draws: Draws, block_info: Any = None) -> Any:
    return getattr(functional, form)(
        block, keep_prob=draws.keep_prob, bias=bias, mode=draws.mode, broadcast_dims=draws.shared,
        rng=draws.tile(block_info[0]), out=result_for(block, block_info), return_mask=False,
    )  # fmt: skip


def gradient(y: Any, dy: Any, *, draws: Draws, block_info: Any = None) -> Any:
    dx = result_for(y, block_info)
    return functional.relu_dropout_backward(dy, y, keep_prob=draws.keep_prob, mode=draws.mode, out=dx)


def at_prediction(
    block: Any, bias: Any = None, *, form: str, keep_prob: float | None, mode: Mode, block_info: Any = None
) -> Any:
    y = result_for(block, block_info)
    return getattr(functional, form)(block, keep_prob=keep_prob, bias=bias, mode=mode, out=y)


def result_for(block: Any, block_info: Any) -> Any:
    """Return an empty array for the result of a block, which must be what its array declares."""
    array = base_array("a chunk", block)
    declared = tuple(stop - start for start, stop in block_info[0]["array-location"])
    dtype = block_info[None]["dtype"]
    if array.shape != declared or array.dtype.type is not dtype.type:
        raise ValueError(
            f"a chunk must have the shape {declared} and the dtype {dtype.name} that its Dask array "
            f"declares, got {array.shape} and {array.dtype.name}: correct the function that made it, or "
            "what map_blocks was told of its result"
        )
    return np.empty(declared, dtype)


# --- an array ---------------------------------------------------------------------------------


def forward(
    form: str, x: da.Array, keep_prob: float, bias: Any, mode: Mode, broadcast_dims: Axes, rng: RNG
) -> tuple[da.Array, Draws]:
    x = of_floats("x", x)
    bias = chunked_like(x, bias)
    draws = Draws.reserve(x.shape, keep_prob, mode, rng, broadcast_dims, relu=form == "relu_dropout")
    return mapped(dropped, x, bias, form=form, draws=draws), draws


def predicted(form: str, x: da.Array, keep_prob: float | None, bias: Any, mode: Mode) -> da.Array:
    x = of_floats("x", x)
    mode = checks.dropout_mode(mode)
    keep_prob = checks.prediction_probability(keep_prob, mode)
    return mapped(at_prediction, x, chunked_like(x, bias), form=form, keep_prob=keep_prob, mode=mode)


def mapped(function: Any, x: da.Array, *others: da.Array | None, **options: Any) -> da.Array:
    """Return the array whose blocks `function` computes, declared as it computes them."""
    dtype = checks.native(x.dtype)
    meta = np.empty((0,) * x.ndim, dtype)
    return da.map_blocks(function, x, *others, dtype=dtype, meta=meta, **options)


def chunked_like(x: da.Array, bias: Any) -> da.Array | None:
    """Return a bias in the chunks of the last axis of `x`, along which it is added."""
    if bias is None:
        return None
    if not isinstance(bias, da.Array):
        bias = da.asarray(checks.elements("bias", bias))
    bias = known("bias", bias)
    checks.bias_for(stand_in(bias), stand_in(x))
    return bias.rechunk(x.chunks[-1:])


def stand_in(array: da.Array) -> Any:
    """Return an array with the shape and dtype of a Dask array, which takes no memory."""
    return np.broadcast_to(np.empty((), array.dtype), array.shape)


def known(name: str, array: Any) -> da.Array:
    """Return `array` if it is a Dask array whose blocks are ndarrays in known places."""
    if not isinstance(array, da.Array):
        raise TypeError(f"{name} must be a dask.array.Array, got {type(array).__name__}")
    if any(math.isnan(length) for length in array.shape):
        raise ValueError(
            f"{name} must have chunks of known sizes, got shape {array.shape}: "
            "call compute_chunk_sizes() first"
        )
    base_array(name, array._meta)
    return array


def of_floats(name: str, array: Any) -> da.Array:
    """Return `array` if it is `known` and has a dtype that the calls accept."""
    checks.elements(name, np.empty(0, known(name, array).dtype))
    return array


def fitting(name: str, array: Any, draws: Draws) -> da.Array:
    if of_floats(name, array).shape != draws.shape:
        raise ValueError(f"{name} must have the forward call's shape {draws.shape}, got {array.shape}")
    return array
