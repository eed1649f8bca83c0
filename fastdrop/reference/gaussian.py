"""Gaussian dropout in plain NumPy: every element is multiplied by noise of mean 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop import checks, formulas
from fastdrop.noise import GaussianNoise, drawn_noise, noise_for_backward
from fastdrop.reference.arrays import apart, rounded
from fastdrop.reference.normals import normals
from fastdrop.stream import RNG
from fastdrop.usage import explained


@explained
def gaussian_dropout(
    x: ArrayLike, *, keep_prob: float, rng: RNG = None, out: NDArray[Any] | None = None
) -> tuple[NDArray[Any], GaussianNoise]:
    """``y = x * (1 + sqrt((1 - keep_prob) / keep_prob) * normal)`` (Srivastava et al. 2014, section 10)."""
    x = checks.elements("x", x)
    keep_prob = checks.noise_probability(keep_prob)
    y = checks.result(out, x)
    noise = drawn_noise(rng, x.shape, keep_prob)
    _multiply(x, noise, y)
    return y if out is None else out, noise


@explained
def gaussian_dropout_backward(
    dy: ArrayLike, noise: GaussianNoise, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """``dx = dy * noise``, with the noise of the forward call, which is drawn again."""
    dy = checks.elements("dy", dy)
    noise = noise_for_backward(noise, dy)
    dx = checks.result(out, dy)
    _multiply(dy, noise, dx)
    return dx if out is None else out


def _multiply(x: NDArray[Any], noise: GaussianNoise, y: NDArray[Any]) -> None:
    """Write ``x * noise``, stretch by stretch."""
    x = apart(x, y)
    values = x.ravel().astype(formulas.arithmetic(x.dtype))
    factors = np.empty(x.size, np.float32)
    for part, start in noise.stretches():
        normal = normals(noise.seed, start, part.stop - part.start)
        factors[part] = np.float32(1) + np.float32(noise.scale) * normal
    with np.errstate(all="ignore"):
        y[...] = rounded(values * factors, y.dtype).reshape(y.shape)
