"""What every call accepts, and what it says to anything else.

The compiled calls and the NumPy reference check their arguments here, so each
rule and each error text has one home. Nothing in this module has a side effect.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from numbers import Real
from operator import index
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fastdrop.foreign import base_array

Mode = Literal["inverted", "vanilla"]
MODES: tuple[Mode, ...] = get_args(Mode)
MaskMode = Literal["inverted", "vanilla", "alpha"]  # what else a mask can come from
MASK_MODES: tuple[MaskMode, ...] = get_args(MaskMode)

Axes: TypeAlias = "int | Sequence[int]"

DTYPES = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))  # and bfloat16
ACCEPTED = "float32, float64, float16 or bfloat16"
NUMBERS = tuple(dtype.num for dtype in DTYPES)

# What alpha dropout puts in place of a dropped element, before the affine map: the negative limit
# of SELU, -scale * alpha of Klambauer et al. 2017.
ALPHA = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


MOST_AXES = 64  # that an array of NumPy has, and that the kernels' rows are laid out for


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether it is the bfloat16 of ml_dtypes, which whoever has such an array has imported."""
    return dtype.type is getattr(sys.modules.get("ml_dtypes"), "bfloat16", None)


def arithmetic(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What a supported dtype is computed in, before the one rounding to it."""
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)


def is_supported(dtype: np.dtype[Any]) -> bool:
    """Whether the calls take it: told by its number, because long double may equal float64."""
    return dtype.num in NUMBERS or is_bfloat16(dtype)


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in native byte order, and without metadata."""
    return np.dtype(dtype.type)


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Its name in an error; NumPy calls a long double of 8 bytes float64."""
    return "longdouble" if dtype.char == "g" else dtype.name


def elements(name: str, value: Any) -> NDArray[Any]:
    """`value` as an exact ndarray of a supported dtype, in any byte order, not copied if it is one."""
    array = base_array(name, value)
    if not is_supported(array.dtype):
        raise TypeError(f"{name} must have dtype {ACCEPTED}, got {dtype_name(array.dtype)}")
    return array


def alike(name: str, value: Any, like: NDArray[Any], shape: tuple[int, ...], what: str) -> NDArray[Any]:
    """`value` as an array of a certain shape, with the dtype of the input `like`."""
    array = elements(name, value)
    if array.dtype.type is not like.dtype.type:
        raise TypeError(f"{name} must have the input's dtype {like.dtype.name}, got {array.dtype.name}")
    if array.shape != shape:
        raise ValueError(f"{name} must have {what} {shape}, got {array.shape}")
    return array


def given(name: str, value: Any) -> Any:
    """`value`, which may not be None."""
    if value is None:
        raise TypeError(f"{name} must be an array, got None")
    return value


def bias_for(value: Any, x: NDArray[Any]) -> NDArray[Any]:
    """`value` as a bias of the last axis of `x`."""
    if x.ndim == 0:
        raise ValueError("bias needs an input with at least one axis, got one of shape ()")
    return alike("bias", value, x, x.shape[-1:], "the length of the input's last axis,")


def residual_for(value: Any, x: NDArray[Any]) -> NDArray[Any]:
    """`value` as what is added to the result for `x`."""
    return alike("residual", value, x, x.shape, "the input's shape")


def shape_of(name: str, value: Any, most: int = 2**63 - 1) -> tuple[int, ...]:
    """`value` as the shape of an array; an int stands for one axis.

    The lengths that are not 0 have a product of at most `most`, so that no stride of any order
    of the axes is larger.
    """
    shape = lengths(name, value)
    if math.prod(length for length in shape if length) > most:
        at_most = f"2**{(most + 1).bit_length() - 1}{' - 1' if most % 2 else ''}"
        raise ValueError(f"{name} must have at most {at_most} elements where no length is 0, got {value!r}")
    return shape


def lengths(name: str, value: Any) -> tuple[int, ...]:
    """`value` as a number for each axis, none of them negative; an int stands for one axis."""
    try:
        numbers = tuple(islice(value, MOST_AXES + 1))
    except TypeError:
        numbers = (value,)
    if len(numbers) > MOST_AXES:
        raise ValueError(f"{name} must have at most {MOST_AXES} axes, got more")
    numbers = integers(name, numbers)
    if any(number < 0 for number in numbers):
        raise ValueError(f"{name} must have no negative length, got {value!r}")
    return numbers


def integers(name: str, values: Iterable[Any]) -> tuple[int, ...]:
    """Each of `values` as an int."""
    numbers: list[int] = []
    for value in values:
        numbers.append(integer(name, value))
    return tuple(numbers)


def integer(name: str, value: Any) -> int:
    """`value` as a Python int; a bool is none."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an int, got {value!r}")
    try:
        return int(index(value))  # `index` alone keeps a subclass, whose arithmetic may be anybody's
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None


def shared_axes(broadcast_dims: Any, ndim: int) -> tuple[int, ...]:
    """The axes along which decisions are shared, counted from the first."""
    axes = broadcast_dims if isinstance(broadcast_dims, Iterable) else (broadcast_dims,)
    try:
        numbers = list(map(int, map(index, islice(axes, MOST_AXES + 1))))
    except TypeError:
        raise TypeError(f"broadcast_dims must be an int or ints, got {broadcast_dims!r}") from None
    if len(numbers) > MOST_AXES:
        raise ValueError(f"broadcast_dims must be at most {MOST_AXES} axes, got more")
    if not all(-ndim <= axis < ndim for axis in numbers):
        raise ValueError(
            f"broadcast_dims must be axes of an array with {ndim} dimensions, got {broadcast_dims!r}"
        )
    return tuple(sorted({axis % ndim for axis in numbers}))


def decided_shape(shape: tuple[int, ...], shared: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the decisions on an array: at most 1 along the axes that share one."""
    decided = list(shape)
    for axis in shared:
        decided[axis] = min(shape[axis], 1)
    return tuple(decided)


def keep_probability(value: Any) -> float:
    """`value` as a float in [0, 1]."""
    if type(value) is float and 0.0 <= value <= 1.0:
        return value  # what is nearly always passed, without the cost of asking an abstract class
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"keep_prob must be a real number in [0, 1], got {value!r}")
    try:
        keep_prob = float(value)
    except OverflowError:  # an int or a fraction beyond every float
        keep_prob = math.inf
    if not 0.0 <= keep_prob <= 1.0:
        raise ValueError(
            f"keep_prob must be in [0, 1], got {value!r}: it is the probability that an element "
            "is kept (a dropout rate r is keep_prob = 1 - r)"
        )
    return keep_prob


def dropout_mode(value: Any) -> Mode:
    """`value` if it names a form of dropout."""
    if type(value) is str and value in MODES:
        return value  # type: ignore[return-value]
    return one_of("mode", value, MODES)


def mask_mode(value: Any) -> MaskMode:
    """`value` if it names what a mask can come from."""
    return one_of("mode", value, MASK_MODES)


def one_of(name: str, value: Any, accepted: tuple[Any, ...]) -> Any:
    for known in accepted:  # which is returned, and not a kind of str that says it is equal
        if isinstance(value, str) and value == known:
            return known
    raise ValueError(f"{name} must be {' or '.join(map(repr, accepted))}, got {value!r}")


def threshold(keep_prob: float) -> int:
    """floor(keep_prob * 2**64), exact: a float64 times a power of two is not rounded."""
    return int(math.ldexp(keep_prob, 64))


def training_scale(keep_prob: float, mode: MaskMode) -> float:
    """What a kept element is multiplied by in training; 0 where none can be kept."""
    if mode == "vanilla":
        return 1.0
    if mode == "alpha":
        return alpha_affine(keep_prob)[0]
    return 1.0 / keep_prob if keep_prob else 0.0


def alpha_affine(keep_prob: float) -> tuple[float, float, float]:
    """Of alpha dropout: the scale, what becomes of a dropped element, and what is added to both."""
    if not keep_prob:
        return 0.0, 0.0, 0.0
    scale = (keep_prob * (1 + (1 - keep_prob) * ALPHA**2)) ** -0.5
    return scale, scale * ALPHA, -scale * (1 - keep_prob) * ALPHA


def training_affine(keep_prob: float, mode: MaskMode) -> tuple[float, float, float]:
    """The scale, what becomes of a dropped element, and what is added to both."""
    if mode == "alpha":
        return alpha_affine(keep_prob)
    return training_scale(keep_prob, mode), 0.0, 0.0


def columns_of(dy: NDArray[Any]) -> int:
    """The length of a bias's gradient."""
    if dy.ndim == 0:
        raise ValueError("bias_grad needs a gradient with at least one axis, got one of shape ()")
    return int(dy.shape[-1])


def rows_in_strip(columns: int) -> int:
    """How many rows are added up in order, before the next begin a sum of their own."""
    return max(64, 2**18 // max(columns, 1))


def prediction_scale(keep_prob: float, mode: Mode) -> float:
    """What every element is multiplied by at prediction."""
    return keep_prob if mode == "vanilla" else 1.0


def result(out: Any, like: NDArray[Any]) -> NDArray[Any]:
    """The exact ndarray to write to: a view of `out` if it fits the input `like`, else a new one."""
    if out is None:
        return np.empty(like.shape, native(like.dtype))
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
    array = base_array("out", out)
    if array.dtype.type is not like.dtype.type:
        raise TypeError(f"out must have the input's dtype {like.dtype.name}, got {dtype_name(array.dtype)}")
    if array.shape != like.shape:
        raise ValueError(f"out must have the input's shape {like.shape}, got {array.shape}")
    if not array.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    if overlaps_itself(array):
        raise ValueError(
            f"out must have a place of its own for every element, got strides {array.strides} "
            f"for shape {array.shape}, where elements may share one"
        )
    return array


def overlaps_itself(array: NDArray[Any]) -> bool:
    """Whether two elements may share memory: some axis steps within the reach of shorter steps."""
    reach = array.itemsize
    for stride, length in sorted(zip(map(abs, array.strides), array.shape)):
        if length > 1:
            if stride < reach:
                return array.size > 0
            reach = stride * (length - 1) + reach
    return False
