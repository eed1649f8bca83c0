"""Dask: the calls on arrays that are larger than a machine.

Everything is lazy, and the result equals the NumPy call on the whole array, whatever the chunks, the
workers and their order: a block knows where it lies, and draws there what the whole array would. No
mask is made or shipped. Backward reads the decisions off the output, or draws them again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

from fastdrop import arguments, functional
from fastdrop.arguments import Mode
from fastdrop.mask import as_shape
from fastdrop.stream import RNG, Tile, as_stream

__all__ = [
    "Draws", "dropout", "dropout_backward", "dropout_predict", "keep_mask",
    "relu_dropout", "relu_dropout_backward", "relu_dropout_predict",
]  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """The decisions on an array, as what they are drawn from: a few numbers stand for the mask."""

    shape: tuple[int, ...]
    keep_prob: float
    mode: Mode
    seed: int
    offset: int

    @classmethod
    def reserve(cls, shape: tuple[int, ...], keep_prob: float, mode: Mode, rng: RNG) -> Draws:
        keep_prob, mode = arguments.keep_probability(keep_prob), arguments.dropout_mode(mode)
        stream = as_stream(rng)
        return cls(shape, keep_prob, mode, stream.seed, stream.reserve(math.prod(shape)))

    def tile(self, block_info: Any) -> Tile:
        """The randomness of a block."""
        origin = [start for start, _ in block_info["array-location"]]
        return Tile(self.shape, origin, self.seed, self.offset)


def relu_dropout(
    x: da.Array, keep_prob: float, *, mode: Mode = "inverted", rng: RNG = None
) -> tuple[da.Array, Draws]:
    """`fastdrop.relu_dropout` of a Dask array.

    Parameters
    ----------
    x : dask.array.Array of float32, float64, float16 or bfloat16, any shape and chunks
        The sizes of the chunks have to be known.
    keep_prob, mode, rng
        As of `fastdrop.relu_dropout`. A `Stream` moves on when the graph is made.

    Returns
    -------
    y : dask.array.Array, shape, dtype and chunks of `x`
    draws : Draws

    Raises
    ------
    TypeError, ValueError
        As `fastdrop.relu_dropout` does, when the graph is made.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import fastdrop as fd
    >>> import fastdrop.dask
    >>> x = np.ones((4, 6), np.float32)
    >>> y, draws = fastdrop.dask.relu_dropout(da.from_array(x, chunks=(2, 5)), 0.5, rng=7)
    >>> bool((y.compute() == fd.relu_dropout(x, 0.5, rng=7)[0]).all())
    True
    """
    return forward("relu_dropout", x, keep_prob, mode, rng)


def dropout(
    x: da.Array, keep_prob: float, *, mode: Mode = "inverted", rng: RNG = None
) -> tuple[da.Array, Draws]:
    """`fastdrop.dropout` of a Dask array; parameters and results as of `relu_dropout`."""
    return forward("dropout", x, keep_prob, mode, rng)


def relu_dropout_backward(dy: da.Array, y: da.Array, draws: Draws) -> da.Array:
    """The gradient of `relu_dropout`, with the decisions read off its output `y`."""
    y, dy = fitting("y", y, draws), fitting("dy", dy, draws)
    if dy.dtype != y.dtype:
        raise TypeError(f"dy must have y's dtype {y.dtype.name}, got {dy.dtype.name}")
    return da.map_blocks(
        functional.relu_dropout_backward, dy.rechunk(y.chunks), y,
        keep_prob=draws.keep_prob, mode=draws.mode, dtype=dy.dtype, meta=dy._meta,
    )  # fmt: skip


def dropout_backward(dy: da.Array, draws: Draws) -> da.Array:
    """The gradient of `dropout`, with the decisions drawn again."""
    return mapped("dropout", fitting("dy", dy, draws), draws)


def relu_dropout_predict(x: da.Array, keep_prob: float, *, mode: Mode = "inverted") -> da.Array:
    """`fastdrop.relu_dropout_predict` of a Dask array."""
    return predicted("relu_dropout_predict", x, keep_prob, mode)


def dropout_predict(x: da.Array, keep_prob: float, *, mode: Mode = "inverted") -> da.Array:
    """`fastdrop.dropout_predict` of a Dask array."""
    return predicted("dropout_predict", x, keep_prob, mode)


def keep_mask(
    shape: int | Sequence[int], keep_prob: float, *, chunks: Any = "auto", rng: RNG = None
) -> da.Array:
    """`fastdrop.keep_mask(...).to_array()` as a Dask array of bool."""
    draws = Draws.reserve(as_shape(shape), keep_prob, "inverted", rng)
    places = da.empty(draws.shape, chunks=chunks, dtype=bool)
    return da.map_blocks(kept, places, draws=draws, dtype=bool, meta=np.empty((0,) * places.ndim, bool))


# --- a block ----------------------------------------------------------------------------------


def kept(block: Any, draws: Draws, block_info: Any = None) -> Any:
    return functional.keep_mask(block.shape, draws.keep_prob, rng=draws.tile(block_info[0])).to_array()


def dropped(block: Any, form: str, draws: Draws, block_info: Any = None) -> Any:
    call = getattr(functional, form)
    tile = draws.tile(block_info[0])
    return call(block, draws.keep_prob, mode=draws.mode, rng=tile, return_mask=False)[0]


# --- an array ---------------------------------------------------------------------------------


def forward(form: str, x: da.Array, keep_prob: float, mode: Mode, rng: RNG) -> tuple[da.Array, Draws]:
    x = of_floats("x", x)
    draws = Draws.reserve(x.shape, keep_prob, mode, rng)
    return mapped(form, x, draws), draws


def predicted(form: str, x: da.Array, keep_prob: float, mode: Mode) -> da.Array:
    x, call = of_floats("x", x), getattr(functional, form)
    keep_prob, mode = arguments.keep_probability(keep_prob), arguments.dropout_mode(mode)
    return da.map_blocks(call, x, keep_prob=keep_prob, mode=mode, dtype=x.dtype, meta=x._meta)


def mapped(form: str, x: da.Array, draws: Draws) -> da.Array:
    return da.map_blocks(dropped, x, form=form, draws=draws, dtype=x.dtype, meta=x._meta)


def known(name: str, array: Any) -> da.Array:
    """`array`, a Dask array whose blocks have known places."""
    if not isinstance(array, da.Array):
        raise TypeError(f"{name} must be a dask.array.Array, got {type(array).__name__}")
    if any(math.isnan(length) for length in array.shape):
        raise ValueError(
            f"{name} must have chunks of known sizes, got shape {array.shape}: "
            "call compute_chunk_sizes() first"
        )
    return array


def of_floats(name: str, array: Any) -> da.Array:
    """`array`, known and of a dtype that the calls accept."""
    arguments.elements(name, np.empty(0, known(name, array).dtype))
    return array


def fitting(name: str, array: Any, draws: Draws) -> da.Array:
    if of_floats(name, array).shape != draws.shape:
        raise ValueError(f"{name} must have the forward call's shape {draws.shape}, got {array.shape}")
    return array
