# The types of gaussian.pyx, whose docstrings document the calls.

from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop.noise import GaussianNoise
from fastdrop.stream import RNG

_Float = TypeVar("_Float", bound=np.generic)  # bfloat16 is no np.floating

@overload
def gaussian_dropout(
    x: NDArray[_Float], keep_prob: float, *, rng: RNG = None, out: NDArray[_Float] | None = None
) -> tuple[NDArray[_Float], GaussianNoise]: ...
@overload
def gaussian_dropout(
    x: ArrayLike, keep_prob: float, *, rng: RNG = None, out: NDArray[Any] | None = None
) -> tuple[NDArray[Any], GaussianNoise]: ...
@overload
def gaussian_dropout_backward(
    dy: NDArray[_Float], noise: GaussianNoise, *, out: NDArray[_Float] | None = None
) -> NDArray[_Float]: ...
@overload
def gaussian_dropout_backward(
    dy: ArrayLike, noise: GaussianNoise, *, out: NDArray[Any] | None = None
) -> NDArray[Any]: ...
