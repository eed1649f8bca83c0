# The types of functional.pyx, whose docstrings document the calls.

from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop.arguments import Axes, Mode
from fastdrop.mask import Mask
from fastdrop.stream import RNG

_Float = TypeVar("_Float", bound=np.generic)  # bfloat16 is no np.floating

# An array's dtype is kept; what else an array can be made of gives one of NumPy's choosing.

@overload
def relu_dropout(
    x: NDArray[_Float],
    keep_prob: float,
    *,
    bias: NDArray[_Float] | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[_Float] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[_Float], Mask]: ...
@overload
def relu_dropout(
    x: NDArray[_Float],
    keep_prob: float,
    *,
    bias: NDArray[_Float] | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[_Float] | None = None,
    return_mask: Literal[False],
) -> tuple[NDArray[_Float], None]: ...
@overload
def relu_dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[Any], Mask]: ...
@overload
def relu_dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]: ...
@overload
def dropout(
    x: NDArray[_Float],
    keep_prob: float,
    *,
    bias: NDArray[_Float] | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[_Float] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[_Float], Mask]: ...
@overload
def dropout(
    x: NDArray[_Float],
    keep_prob: float,
    *,
    bias: NDArray[_Float] | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[_Float] | None = None,
    return_mask: Literal[False],
) -> tuple[NDArray[_Float], None]: ...
@overload
def dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[Any], Mask]: ...
@overload
def dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]: ...
@overload
def dropout_add(
    x: NDArray[_Float],
    residual: NDArray[_Float],
    keep_prob: float,
    *,
    bias: NDArray[_Float] | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[_Float] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[_Float], Mask]: ...
@overload
def dropout_add(
    x: NDArray[_Float],
    residual: NDArray[_Float],
    keep_prob: float,
    *,
    bias: NDArray[_Float] | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[_Float] | None = None,
    return_mask: Literal[False],
) -> tuple[NDArray[_Float], None]: ...
@overload
def dropout_add(
    x: ArrayLike,
    residual: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[Any], Mask]: ...
@overload
def dropout_add(
    x: ArrayLike,
    residual: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]: ...
@overload
def alpha_dropout(
    x: NDArray[_Float],
    keep_prob: float,
    *,
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[_Float] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[_Float], Mask]: ...
@overload
def alpha_dropout(
    x: NDArray[_Float],
    keep_prob: float,
    *,
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[_Float] | None = None,
    return_mask: Literal[False],
) -> tuple[NDArray[_Float], None]: ...
@overload
def alpha_dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[Any], Mask]: ...
@overload
def alpha_dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]: ...
@overload
def relu_dropout_backward(
    dy: NDArray[_Float],
    saved: Mask | NDArray[_Float],
    *,
    keep_prob: float | None = None,
    mode: Mode | None = None,
    bias_grad: Literal[False] = False,
    out: NDArray[_Float] | None = None,
) -> NDArray[_Float]: ...
@overload
def relu_dropout_backward(
    dy: NDArray[_Float],
    saved: Mask | NDArray[_Float],
    *,
    keep_prob: float | None = None,
    mode: Mode | None = None,
    bias_grad: Literal[True],
    out: NDArray[_Float] | None = None,
) -> tuple[NDArray[_Float], NDArray[_Float]]: ...
@overload
def relu_dropout_backward(
    dy: ArrayLike,
    saved: Mask | ArrayLike,
    *,
    keep_prob: float | None = None,
    mode: Mode | None = None,
    bias_grad: Literal[False] = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def relu_dropout_backward(
    dy: ArrayLike,
    saved: Mask | ArrayLike,
    *,
    keep_prob: float | None = None,
    mode: Mode | None = None,
    bias_grad: Literal[True],
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
@overload
def dropout_backward(
    dy: NDArray[_Float],
    mask: Mask,
    *,
    bias_grad: Literal[False] = False,
    out: NDArray[_Float] | None = None,
) -> NDArray[_Float]: ...
@overload
def dropout_backward(
    dy: NDArray[_Float],
    mask: Mask,
    *,
    bias_grad: Literal[True],
    out: NDArray[_Float] | None = None,
) -> tuple[NDArray[_Float], NDArray[_Float]]: ...
@overload
def dropout_backward(
    dy: ArrayLike,
    mask: Mask,
    *,
    bias_grad: Literal[False] = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def dropout_backward(
    dy: ArrayLike,
    mask: Mask,
    *,
    bias_grad: Literal[True],
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
@overload
def dropout_add_backward(
    dy: NDArray[_Float],
    mask: Mask,
    *,
    bias_grad: Literal[False] = False,
    out: NDArray[_Float] | None = None,
) -> NDArray[_Float]: ...
@overload
def dropout_add_backward(
    dy: NDArray[_Float],
    mask: Mask,
    *,
    bias_grad: Literal[True],
    out: NDArray[_Float] | None = None,
) -> tuple[NDArray[_Float], NDArray[_Float]]: ...
@overload
def dropout_add_backward(
    dy: ArrayLike,
    mask: Mask,
    *,
    bias_grad: Literal[False] = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def dropout_add_backward(
    dy: ArrayLike,
    mask: Mask,
    *,
    bias_grad: Literal[True],
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
@overload
def alpha_dropout_backward(
    dy: NDArray[_Float], mask: Mask, *, out: NDArray[_Float] | None = None
) -> NDArray[_Float]: ...
@overload
def alpha_dropout_backward(dy: ArrayLike, mask: Mask, *, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
@overload
def relu_dropout_predict(
    x: NDArray[_Float],
    keep_prob: float,
    *,
    bias: NDArray[_Float] | None = None,
    mode: Mode = "inverted",
    out: NDArray[_Float] | None = None,
) -> NDArray[_Float]: ...
@overload
def relu_dropout_predict(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def dropout_predict(
    x: NDArray[_Float],
    keep_prob: float,
    *,
    bias: NDArray[_Float] | None = None,
    mode: Mode = "inverted",
    out: NDArray[_Float] | None = None,
) -> NDArray[_Float]: ...
@overload
def dropout_predict(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def dropout_add_predict(
    x: NDArray[_Float],
    residual: NDArray[_Float],
    keep_prob: float,
    *,
    bias: NDArray[_Float] | None = None,
    mode: Mode = "inverted",
    out: NDArray[_Float] | None = None,
) -> NDArray[_Float]: ...
@overload
def dropout_add_predict(
    x: ArrayLike,
    residual: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
def keep_mask(
    shape: int | tuple[int, ...], keep_prob: float, *, broadcast_dims: Axes = (), rng: RNG = None
) -> Mask: ...
