"""The formulas that the reference and the kernels share: modes, scales, thresholds, decided shapes.

Every argument has been checked (`fastdrop.checks`). Nothing here has a side effect.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

Mode: TypeAlias = Literal["inverted", "vanilla"]
MODES: tuple[Mode, ...] = get_args(Mode)
MaskMode: TypeAlias = Literal["inverted", "vanilla", "alpha"]  # the modes that a mask can come from
MASK_MODES: tuple[MaskMode, ...] = get_args(MaskMode)

SEED_BITS = 128
SEED_WORDS = SEED_BITS // 32
POSITIONS = 2**64  # the positions of a stream

# Alpha dropout replaces a dropped element by this value, before the affine map. It is the negative
# limit of SELU, -scale * alpha of Klambauer et al. 2017.
ALPHA = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


def threshold(keep_prob: float) -> int:
    """floor(keep_prob * 2**64), which is exact: multiplying a float64 by a power of two rounds nothing."""
    return int(math.ldexp(keep_prob, 64))


def training_scale(keep_prob: float, mode: MaskMode) -> float:
    """The factor of a kept element in training; 0 where no element can be kept."""
    if mode == "inverted":
        return 1.0 / keep_prob if keep_prob else 0.0
    return 1.0 if mode == "vanilla" else alpha_affine(keep_prob)[0]


def training_affine(keep_prob: float, mode: MaskMode) -> tuple[float, float, float]:
    """The scale of a kept element, the value of a dropped one, and the shift that is added to both."""
    if mode == "alpha":
        return alpha_affine(keep_prob)
    return training_scale(keep_prob, mode), 0.0, 0.0


def alpha_affine(keep_prob: float) -> tuple[float, float, float]:
    """`training_affine` of alpha dropout, which keeps mean 0 and variance 1."""
    if not keep_prob:
        return 0.0, 0.0, 0.0
    scale = (keep_prob * (1 + (1 - keep_prob) * ALPHA**2)) ** -0.5
    return scale, scale * ALPHA, -scale * (1 - keep_prob) * ALPHA


def prediction_scale(keep_prob: float | None, mode: Mode) -> float:
    """The factor of every element at prediction. Mode "vanilla" alone needs `keep_prob`."""
    return keep_prob if mode == "vanilla" and keep_prob is not None else 1.0


def arithmetic(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that a supported dtype is computed in, before the result is rounded once."""
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)


def decided_shape(shape: tuple[int, ...], shared: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the decisions for an array: at most 1 along the axes that share one decision."""
    decided = list(shape)
    for axis in shared:
        decided[axis] = min(shape[axis], 1)
    return tuple(decided)


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The elements from one index to the next on each axis, in C order."""
    strides, stride = [], 1
    for length in reversed(shape):
        strides.append(stride)
        stride *= length
    return tuple(strides[::-1])


def packed(size: int) -> int:
    """The number of bytes that hold one bit for each of `size` elements."""
    return (size + 7) // 8


def rows_in_strip(columns: int) -> int:
    """The number of rows that one strip sums in order; each strip has sums of its own."""
    return max(64, 2**18 // max(columns, 1))
