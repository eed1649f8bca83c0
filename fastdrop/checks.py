"""What the calls accept, and what they say about anything else.

The compiled calls and the NumPy reference check their arguments here, so each rule and each error
text has one home. A check returns the value in the form that the calls compute with. Nothing here
has a side effect.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from numbers import Real
from operator import index
from typing import Any, TypeAlias

import numpy as np
from numpy.exceptions import AxisError
from numpy.typing import NDArray

from fastdrop.foreign import base_array
from fastdrop.formulas import MASK_MODES, MODES, POSITIONS, SEED_BITS, MaskMode, Mode, packed

Axes: TypeAlias = int | Sequence[int]

DTYPES = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))  # and bfloat16
ACCEPTED = "float32, float64, float16 or bfloat16"
NUMBERS = tuple(dtype.num for dtype in DTYPES)
MOST_AXES = 64  # the most axes that NumPy gives an array, and that a layout has room for
SEEDS = "None, an int, a numpy.random.SeedSequence, a numpy.random.Generator"  # what rng= draws a seed from
MOST_CHILDREN = 2**32  # the key of a child of a stream is one word of 32 bits
LEAST_NOISE_PROBABILITY = 2.0**-126  # below it, the noise and the scale of alpha dropout would leave float32


# --- arrays -----------------------------------------------------------------------------------


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether this is the bfloat16 of ml_dtypes, which the owner of such an array has imported."""
    return dtype.type is getattr(sys.modules.get("ml_dtypes"), "bfloat16", None)


def is_supported(dtype: np.dtype[Any]) -> bool:
    """Whether the calls accept this dtype. Its number decides, because a long double may equal float64."""
    return dtype.num in NUMBERS or is_bfloat16(dtype)


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in native byte order and without metadata."""
    return np.dtype(dtype.type)


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name for an error text. NumPy calls a long double of 8 bytes float64."""
    return "longdouble" if dtype.char == "g" else dtype.name


def elements(name: str, value: Any) -> NDArray[Any]:
    """`value` as an exact ndarray of a supported dtype in any byte order, without a copy where it is one."""
    array = base_array(name, value)
    if not is_supported(array.dtype):
        wrong = f"{name} must have dtype {ACCEPTED}, got {'None' if value is None else dtype_name(array.dtype)}"
        advice = f": pass {name}.astype(np.float32)" if array.dtype.kind in "iu" else ""
        raise TypeError(wrong + advice)
    return array


def alike(name: str, value: Any, like: NDArray[Any], shape: tuple[int, ...], what: str) -> NDArray[Any]:
    """`value` as an array of the given shape with the dtype of the input `like`."""
    array = elements(name, value)
    if array.dtype.type is not like.dtype.type:
        raise TypeError(f"{name} must have the input's dtype {like.dtype.name}, got {array.dtype.name}")
    if array.shape != shape:
        raise ValueError(f"{name} must have {what} {shape}, got {array.shape}")
    return array


def given(name: str, value: Any) -> Any:
    """`value`, which must not be None."""
    if value is None:
        raise TypeError(f"{name} must be an array, got None")
    return value


def bias_for(value: Any, x: NDArray[Any]) -> NDArray[Any]:
    """`value` as a bias for the last axis of `x`."""
    if x.ndim == 0:
        raise ValueError("bias needs an input with at least one axis, got one of shape ()")
    return alike("bias", value, x, x.shape[-1:], "the length of the input's last axis,")


def residual_for(value: Any, x: NDArray[Any]) -> NDArray[Any]:
    """`value` as a residual, which is added to the result for `x`."""
    return alike("residual", value, x, x.shape, "the input's shape")


def columns_of(dy: NDArray[Any]) -> int:
    """The length of the gradient of a bias."""
    if dy.ndim == 0:
        raise ValueError("bias_grad needs a gradient with at least one axis, got one of shape ()")
    return int(dy.shape[-1])


def result(out: Any, like: NDArray[Any]) -> NDArray[Any]:
    """The exact ndarray to write to: a view of `out` if that fits the input `like`, else a new array."""
    if out is None:
        return np.empty(like.shape, native(like.dtype))
    array = base_array("out", ndarray_out(out))
    if array.dtype.type is not like.dtype.type:
        raise TypeError(f"out must have the input's dtype {like.dtype.name}, got {dtype_name(array.dtype)}")
    if array.shape != like.shape:
        raise ValueError(f"out must have the input's shape {like.shape}, got {array.shape}")
    refuse_unwritable(array)
    return array


def ndarray_out(out: Any) -> NDArray[Any]:
    """`out` as an ndarray of any kind. Nothing is converted, because the caller reads the result there."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
    return out


def refuse_unwritable(out: NDArray[Any]) -> None:
    """Refuse an `out` that cannot be written element by element."""
    if not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    if overlaps_itself(out):
        raise ValueError(
            f"out must have a place of its own for every element, got strides {out.strides} "
            f"for shape {out.shape}, where elements may share a place"
        )


def overlaps_itself(array: NDArray[Any]) -> bool:
    """Whether two elements may share memory: some axis steps within the reach of the shorter steps."""
    reach = array.itemsize
    for stride, length in sorted(zip(map(abs, array.strides), array.shape)):
        if length > 1:
            if stride < reach:
                return array.size > 0
            reach = stride * (length - 1) + reach
    return False


def packed_bits(bits: Any, size: int) -> bytes:
    """A copy of the packed `bits` of a mask for `size` elements. The copy is what was checked."""
    if not isinstance(bits, np.ndarray):
        raise TypeError(f"bits must be an array of dtype uint8, got {type(bits).__name__}")
    array = base_array("bits", bits)
    if array.dtype != np.uint8:
        raise TypeError(f"bits must be an array of dtype uint8, got {array.dtype}")
    own, shape = array.tobytes(), array.shape
    if shape != (packed(size),) or len(own) != packed(size):
        raise ValueError(f"bits must have shape {(packed(size),)} for {size} elements, got {shape}")
    if size % 8 and own[-1] >> (size % 8):
        raise ValueError(f"bits past the last of {size} elements must be zero, got {own[-1]:#04x} last")
    return own


# --- shapes and axes --------------------------------------------------------------------------


def shape_of(name: str, value: Any, most: int = 2**63 - 1) -> tuple[int, ...]:
    """`value` as the shape of an array; an int stands for one axis.

    The product of the lengths that are not 0 is at most `most`, so that no stride is larger, whatever
    the order of the axes.
    """
    shape = lengths(name, value)
    if math.prod(length for length in shape if length) > most:
        at_most = f"2**{(most + 1).bit_length() - 1}{' - 1' if most % 2 else ''}"
        raise ValueError(f"{name} must have at most {at_most} elements where no length is 0, got {value!r}")
    return shape


def lengths(name: str, value: Any) -> tuple[int, ...]:
    """`value` as one number per axis, none of them negative; an int stands for one axis."""
    try:
        numbers = (value,) if type(value) is int else tuple(islice(value, MOST_AXES + 1))
    except TypeError:
        numbers = (value,)
    if len(numbers) > MOST_AXES:
        raise ValueError(f"{name} must have at most {MOST_AXES} axes, got more")
    numbers = integers(name, numbers)
    if any(number < 0 for number in numbers):
        raise ValueError(f"{name} must have no negative length, got {value!r}")
    return numbers


def shared_axes(broadcast_dims: Any, ndim: int) -> tuple[int, ...]:
    """The axes along which elements share one decision, in order and counted from the first axis."""
    axes = broadcast_dims if isinstance(broadcast_dims, Iterable) else (broadcast_dims,)
    try:
        numbers = integers("broadcast_dims", islice(axes, MOST_AXES + 1))
    except TypeError:
        raise TypeError(f"broadcast_dims must be an int or ints, got {broadcast_dims!r}") from None
    if len(numbers) > MOST_AXES:
        raise ValueError(f"broadcast_dims must be at most {MOST_AXES} axes, got more")
    for axis in numbers:  # numpy.lib.array_utils.normalize_axis_tuple overflows where an int is large
        if not -ndim <= axis < ndim:
            raise AxisError(axis, ndim, "broadcast_dims")
    return tuple(sorted({axis % ndim for axis in numbers}))


# --- numbers and words ------------------------------------------------------------------------


def integers(name: str, values: Iterable[Any]) -> tuple[int, ...]:
    """Each of `values` as an int."""
    numbers: list[int] = []
    for value in values:
        numbers.append(integer(name, value))
    return tuple(numbers)


def integer(name: str, value: Any) -> int:
    """`value` as a Python int; a bool is refused."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an int, got {value!r}")
    try:
        return int(index(value))  # `index` alone keeps a subclass, which may have arithmetic of its own
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None


def at_least_one(name: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    return number


def keep_probability(value: Any) -> float:
    """`value` as a float in [0, 1]."""
    if type(value) is float and 0.0 <= value <= 1.0:
        return value  # the usual case, without the cost of asking an abstract class
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"keep_prob must be a real number in [0, 1], got {value!r}")
    try:
        keep_prob = float(value)
    except OverflowError:  # an int or a fraction that is larger than every float
        keep_prob = math.inf
    if not 0.0 <= keep_prob <= 1.0:
        raise ValueError(
            f"keep_prob must be in [0, 1], got {value!r}: it is the probability that an element "
            "is kept (a dropout rate r is keep_prob = 1 - r)"
        )
    return keep_prob


def noise_probability(value: Any) -> float:
    """`value` as a keep probability for which Gaussian noise has a variance."""
    keep_prob = keep_probability(value)
    if keep_prob < LEAST_NOISE_PROBABILITY:
        raise ValueError(
            f"keep_prob must be in [2**-126, 1] for Gaussian noise, got {value!r}: "
            "its variance is (1 - keep_prob) / keep_prob"
        )
    return keep_prob


def alpha_probability(value: Any) -> float:
    """`value` as a keep probability of alpha dropout, whose scale has to be finite."""
    keep_prob = keep_probability(value)
    if 0.0 < keep_prob < LEAST_NOISE_PROBABILITY:
        raise ValueError(f"keep_prob must be 0 or in [2**-126, 1] for alpha dropout, got {value!r}")
    return keep_prob


def prediction_probability(value: Any, mode: Mode) -> float | None:
    """`value` as the keep probability of a prediction, which mode "vanilla" alone needs."""
    if value is not None:
        return keep_probability(value)
    if mode == "vanilla":
        raise TypeError("keep_prob must be given in mode 'vanilla', which multiplies by it at prediction")
    return None


def dropout_mode(value: Any) -> Mode:
    """`value` as the name of a mode of dropout."""
    if type(value) is str and value in MODES:
        return value  # type: ignore[return-value]
    return one_of("mode", value, MODES)


def mask_mode(value: Any) -> MaskMode:
    """`value` as the name of a mode that a mask can come from."""
    return one_of("mode", value, MASK_MODES)


def one_of(name: str, value: Any, accepted: tuple[Any, ...]) -> Any:
    """The accepted word that `value` equals; never `value` itself, which may be a subclass of str."""
    for known in accepted:
        if isinstance(value, str) and value == known:
            return known
    raise ValueError(f"{name} must be {' or '.join(map(repr, accepted))}, got {value!r}")


# --- the fields of a stream -------------------------------------------------------------------


def seed(name: str, value: Any, accepted: str = "an int") -> int:
    """`value` as a seed in [0, 2**128). The error says what else is accepted."""
    try:
        number = integer(name, value)
    except TypeError:
        raise TypeError(f"{name} must be {accepted}, got {value!r}") from None
    if not 0 <= number < 2**SEED_BITS:
        raise ValueError(f"{name} must be in [0, 2**128), got {value!r}")
    return number


def position(value: Any) -> int:
    """`value` as the offset of a stream; 2**64 is the end of it."""
    offset = integer("offset", value)
    if not 0 <= offset <= POSITIONS:
        raise ValueError(f"offset must be in [0, 2**64], got {value!r}")
    return offset


def stream_state(value: Any) -> tuple[int, int, int, tuple[int, ...]]:
    """`value` as the fields of a stream: the seed, the offset, the number of children, and the prefix."""
    names = ("seed", "offset", "children", "prefix")
    if not isinstance(value, dict) or set(value) != set(names):
        raise TypeError(f"state must be a dict of {', '.join(names)}, as Stream.state is, got {value!r}")
    return (
        seed("seed", value["seed"]), position(value["offset"]), children(value["children"]),
        prefix(value["prefix"]),
    )  # fmt: skip


def children(value: Any) -> int:
    """`value` as the number of children that a stream has spawned."""
    count = integer("children", value)
    if not 0 <= count <= MOST_CHILDREN:
        raise ValueError(f"children must be in [0, 2**32], got {value!r}")
    return count


def prefix(value: Any) -> tuple[int, ...]:
    """`value` as the beginning of a key of `spawn`.

    It has a position, as two words of 32 bits, for each call of `mc_predict` that is under way.
    """
    if type(value) is tuple and not value:  # the usual case
        return ()
    words = integers("prefix", value)
    if len(words) % 2 or (words and not 0 <= min(words) <= max(words) < 2**32):
        raise ValueError(f"prefix must be pairs of words of 32 bits, got {value!r}")
    return words
