"""What every call accepts, and what it says to anything else.

The compiled calls and the NumPy reference check their arguments here, so each
rule and each error text has one home. Nothing in this module has a side effect.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Mode = Literal["inverted", "vanilla"]
MODES: tuple[Mode, ...] = get_args(Mode)

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def elements(name: str, value: Any) -> NDArray[Any]:
    """`value` as an array of a supported dtype, in any byte order, not copied if it is one."""
    array = np.asarray(value)
    if array.dtype.newbyteorder("=") not in DTYPES:
        accepted = " or ".join(dtype.name for dtype in DTYPES)
        raise TypeError(f"{name} must have dtype {accepted}, got {array.dtype.name}")
    return array


def keep_probability(value: Any) -> float:
    """`value` as a float in [0, 1]."""
    if type(value) is float and 0.0 <= value <= 1.0:
        return value  # what is nearly always passed, without the cost of asking an abstract class
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"keep_prob must be a real number in [0, 1], got {value!r}")
    keep_prob = float(value)
    if not 0.0 <= keep_prob <= 1.0:
        raise ValueError(
            f"keep_prob must be in [0, 1], got {value!r}: it is the probability that an element "
            "is kept (a dropout rate r is keep_prob = 1 - r)"
        )
    return keep_prob


def dropout_mode(value: Any) -> Mode:
    """`value` if it names a form of dropout."""
    if not isinstance(value, str) or value not in MODES:
        raise ValueError(f"mode must be {' or '.join(map(repr, MODES))}, got {value!r}")
    return value  # type: ignore[return-value]


def threshold(keep_prob: float) -> int:
    """floor(keep_prob * 2**64), exact: a float64 times a power of two is not rounded."""
    return int(math.ldexp(keep_prob, 64))


def training_scale(keep_prob: float, mode: Mode) -> float:
    """What a kept element is multiplied by in training; 0 where none can be kept."""
    if mode == "vanilla":
        return 1.0
    return 1.0 / keep_prob if keep_prob else 0.0


def prediction_scale(keep_prob: float, mode: Mode) -> float:
    """What every element is multiplied by at prediction."""
    return keep_prob if mode == "vanilla" else 1.0


def result(out: Any, like: NDArray[Any]) -> NDArray[Any]:
    """The array to write to: `out` if it fits the input `like`, else a new one."""
    dtype = like.dtype.newbyteorder("=")
    if out is None:
        return np.empty(like.shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
    if out.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out must have the input's dtype {dtype.name}, got {out.dtype.name}")
    if out.shape != like.shape:
        raise ValueError(f"out must have the input's shape {like.shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    if overlaps_itself(out):
        raise ValueError(
            f"out must have a place of its own for every element, got strides {out.strides} "
            f"for shape {out.shape}, where elements may share one"
        )
    return out


def overlaps_itself(array: NDArray[Any]) -> bool:
    """Whether two elements may share memory: some axis steps within the reach of shorter steps."""
    reach = array.itemsize
    for stride, length in sorted(zip(map(abs, array.strides), array.shape)):
        if length > 1:
            if stride < reach:
                return array.size > 0
            reach = stride * (length - 1) + reach
    return False
