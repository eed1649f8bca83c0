"""GaussianNoise: what Gaussian dropout has multiplied an array by, in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdrop import arguments
from fastdrop.mask import as_shape
from fastdrop.stream import POSITIONS, RNG, Stream, Tile, as_stream, lengths

LEAST_KEEP_PROB = 2.0**-126  # below, the noise would leave the range of float32


class GaussianNoise:
    """The noise of one call of `gaussian_dropout`, which a backward call makes again.

    Nothing in it grows with the array: the noise is a pure function of the positions of the
    elements in the stream.

    Parameters
    ----------
    seed : int
        The seed of the stream, ``0 <= seed < 2**128``.
    offset : int
        The position of the first element in it.
    shape : tuple of int
        The shape of the array that the noise belongs to.
    keep_prob : float
        The noise has mean 1 and variance ``(1 - keep_prob) / keep_prob``.
    strides : tuple of int, optional
        How many positions an index on each axis goes on by: those of C order by default, and for a
        block of a larger array (`Tile`) those of the larger one.

    Examples
    --------
    >>> import fastdrop as fd
    >>> y, noise = fd.gaussian_dropout([1.0, 10.0, 100.0], keep_prob=0.5, rng=1)
    >>> noise
    GaussianNoise(seed=1, offset=0, shape=(3,), keep_prob=0.5)
    >>> bool((noise.to_array() * [1.0, 10.0, 100.0] == y).all())
    True
    """

    __slots__ = ("_keep_prob", "_offset", "_seed", "_shape", "_strides")

    def __init__(
        self,
        seed: int,
        offset: int,
        shape: int | tuple[int, ...],
        keep_prob: float,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        stream = Stream(seed, offset)  # which checks them
        self._seed, self._offset = stream.seed, stream.offset
        self._shape = as_shape(shape)
        self._keep_prob = noise_probability(keep_prob)
        self._strides = c_strides(self._shape) if strides is None else lengths("strides", strides)
        if len(self._strides) != len(self._shape):
            raise ValueError(f"strides must have a number for each axis of {self._shape}, got {strides!r}")
        if any(length > 1 and not stride for length, stride in zip(self._shape, self._strides)):
            raise ValueError(f"strides must be at least 1, as elements share no noise, got {strides!r}")
        reach = sum((length - 1) * stride for length, stride in zip(self._shape, self._strides)) + 1
        if math.prod(self._shape) and reach > POSITIONS - self._offset:
            raise ValueError(
                f"offset must leave room for shape {self._shape} before 2**64, got {offset!r}"
            )

    @property
    def seed(self) -> int:
        """The seed of the stream."""
        return self._seed

    @property
    def offset(self) -> int:
        """The position of the first element."""
        return self._offset

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that the noise belongs to."""
        return self._shape

    @property
    def keep_prob(self) -> float:
        """What the variance is told by."""
        return self._keep_prob

    @property
    def strides(self) -> tuple[int, ...]:
        """How many positions an index on each axis goes on by."""
        return self._strides

    @property
    def scale(self) -> float:
        """The standard deviation, before it is rounded to float32."""
        return math.sqrt((1 - self._keep_prob) / self._keep_prob)

    def to_array(self) -> NDArray[np.float32]:
        """The noise itself."""
        from fastdrop.gaussian import gaussian_dropout_backward

        ones = np.ones(self._shape, np.float32)
        return gaussian_dropout_backward(ones, self, out=ones)

    def runs(self) -> Iterator[tuple[slice, int]]:
        """Elements, in C order, whose positions follow each other, and the first of the positions."""
        size = math.prod(self._shape)
        if not size or self._strides == c_strides(self._shape):
            yield slice(0, size), self._offset
            return
        *rows, length = self._shape
        if self._strides[-1] != 1:  # then every element is a run
            rows, length = [*rows, length], 1
        for number, index in enumerate(np.ndindex(*rows)):
            start = sum(i * stride for i, stride in zip(index, self._strides))
            yield slice(number * length, (number + 1) * length), self._offset + start

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GaussianNoise):
            return NotImplemented
        return self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash(self.__getstate__())

    def __getstate__(self) -> tuple[Any, ...]:
        return self._seed, self._offset, self._shape, self._keep_prob, self._strides

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._seed, self._offset, self._shape, self._keep_prob, self._strides = state

    def __repr__(self) -> str:
        strides = "" if self._strides == c_strides(self._shape) else f", strides={self._strides}"
        return (
            f"GaussianNoise(seed={self._seed}, offset={self._offset}, shape={self._shape}, "
            f"keep_prob={self._keep_prob}{strides})"
        )


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many elements an index on each axis goes on by in C order."""
    strides, stride = [], 1
    for length in reversed(shape):
        strides.append(stride)
        stride *= length
    return tuple(reversed(strides))


def drawn_noise(rng: RNG, shape: tuple[int, ...], keep_prob: float) -> GaussianNoise:
    """The noise for an array, at positions that it reserves; `keep_prob` is one that was checked."""
    noise = GaussianNoise.__new__(GaussianNoise)
    if isinstance(rng, Tile):
        offset, strides = rng.place(shape)
        noise.__setstate__((rng.seed, offset, shape, keep_prob, strides))
    else:
        stream = as_stream(rng)
        offset = stream.reserve(math.prod(shape))
        noise.__setstate__((stream.seed, offset, shape, keep_prob, c_strides(shape)))
    return noise


def noise_probability(value: Any) -> float:
    """`value` as a keep probability that Gaussian noise has a variance for."""
    keep_prob = arguments.keep_probability(value)
    if keep_prob < LEAST_KEEP_PROB:
        raise ValueError(
            f"keep_prob must be in [2**-126, 1] for Gaussian noise, got {value!r}: "
            "its variance is (1 - keep_prob) / keep_prob"
        )
    return keep_prob


def noise_for_backward(noise: Any, dy: NDArray[Any]) -> GaussianNoise:
    """`noise`, if it is one for a gradient like `dy`."""
    if not isinstance(noise, GaussianNoise):
        raise TypeError(f"noise must be a GaussianNoise, got {type(noise).__name__}")
    if noise.shape != dy.shape:
        raise ValueError(f"noise must have dy's shape {dy.shape}, got {noise.shape}")
    return noise
