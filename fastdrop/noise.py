"""GaussianNoise: what Gaussian dropout has multiplied an array by, in a few numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdrop import arguments
from fastdrop.mask import as_shape
from fastdrop.stream import POSITIONS, Stream

LEAST_KEEP_PROB = 2.0**-126  # below, the noise would leave the range of float32


@dataclass(frozen=True)
class GaussianNoise:
    """The noise of one call of `gaussian_dropout`, which a backward call makes again.

    Nothing in it grows with the array: the noise is a pure function of where its stretch of the
    stream starts.

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

    Examples
    --------
    >>> import fastdrop as fd
    >>> y, noise = fd.gaussian_dropout([1.0, 10.0, 100.0], keep_prob=0.5, rng=1)
    >>> noise
    GaussianNoise(seed=1, offset=0, shape=(3,), keep_prob=0.5)
    >>> bool((noise.to_array() * [1.0, 10.0, 100.0] == y).all())
    True
    """

    seed: int
    offset: int
    shape: tuple[int, ...]
    keep_prob: float

    def __post_init__(self) -> None:
        stream = Stream(self.seed, self.offset)  # which checks them
        shape = as_shape(self.shape)
        if math.prod(shape) > POSITIONS - stream.offset:
            raise ValueError(f"offset must leave room for shape {shape} before 2**64, got {self.offset!r}")
        checked = (stream.seed, stream.offset, shape, noise_probability(self.keep_prob))
        for name, value in zip(("seed", "offset", "shape", "keep_prob"), checked):
            object.__setattr__(self, name, value)

    @property
    def scale(self) -> float:
        """The standard deviation, before it is rounded to float32."""
        return noise_scale(self.keep_prob)

    def to_array(self) -> NDArray[np.float32]:
        """The noise itself."""
        from fastdrop.gaussian import gaussian_dropout_backward

        ones = np.ones(self.shape, np.float32)
        return gaussian_dropout_backward(ones, self, out=ones)


def noise_probability(value: Any) -> float:
    """`value` as a keep probability that Gaussian noise has a variance for."""
    keep_prob = arguments.keep_probability(value)
    if keep_prob < LEAST_KEEP_PROB:
        raise ValueError(
            f"keep_prob must be in [2**-126, 1] for Gaussian noise, got {value!r}: "
            "its variance is (1 - keep_prob) / keep_prob"
        )
    return keep_prob


def noise_scale(keep_prob: float) -> float:
    """The standard deviation of the noise, with which y has the variance of Bernoulli dropout."""
    return math.sqrt((1 - keep_prob) / keep_prob)


def noise_for_backward(noise: Any, dy: NDArray[Any]) -> GaussianNoise:
    """`noise`, if it is one for a gradient like `dy`."""
    if not isinstance(noise, GaussianNoise):
        raise TypeError(f"noise must be a GaussianNoise, got {type(noise).__name__}")
    if noise.shape != dy.shape:
        raise ValueError(f"noise must have dy's shape {dy.shape}, got {noise.shape}")
    return noise
