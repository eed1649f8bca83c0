"""The calls in plain NumPy: training, gradient and prediction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop import checks, formulas
from fastdrop.checks import Axes
from fastdrop.formulas import MaskMode, Mode, packed
from fastdrop.mask import Mask, mask_of_dropout, saved_for_backward
from fastdrop.reference.arrays import apart, bytes_of, flat, parts, rounded, unpacked
from fastdrop.reference.decisions import decisions
from fastdrop.stream import RNG
from fastdrop.usage import explained


@explained
def relu_dropout(
    x: ArrayLike,
    *,
    keep_prob: float,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> NDArray[Any] | tuple[NDArray[Any], Mask]:
    """``y = scale * relu(x + bias)`` where kept, else +0. The mask is set where kept and passed."""
    mode = checks.dropout_mode(mode)
    return _forward(x, keep_prob, mode, broadcast_dims, rng, out, return_mask, bias=bias, relu=True)


@explained
def dropout(
    x: ArrayLike,
    *,
    keep_prob: float,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> NDArray[Any] | tuple[NDArray[Any], Mask]:
    """``y = scale * (x + bias)`` where kept, else +0."""
    mode = checks.dropout_mode(mode)
    return _forward(x, keep_prob, mode, broadcast_dims, rng, out, return_mask, bias=bias)


@explained
def dropout_add(
    x: ArrayLike,
    residual: ArrayLike,
    *,
    keep_prob: float,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> NDArray[Any] | tuple[NDArray[Any], Mask]:
    """``y = residual + dropout(x + bias)``."""
    mode = checks.dropout_mode(mode)
    return _forward(
        x, keep_prob, mode, broadcast_dims, rng, out, return_mask,
        bias=bias, residual=checks.given("residual", residual),
    )  # fmt: skip


@explained
def alpha_dropout(
    x: ArrayLike,
    *,
    keep_prob: float,
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> NDArray[Any] | tuple[NDArray[Any], Mask]:
    """``y = a * x + b`` where kept, else ``a * alpha + b``. After SELU, this keeps mean and variance."""
    keep_prob = checks.alpha_probability(keep_prob)
    return _forward(x, keep_prob, "alpha", broadcast_dims, rng, out, return_mask)


def _forward(
    x: Any, keep_prob: Any, mode: MaskMode, broadcast_dims: Any, rng: RNG, out: Any, return_mask: bool,
    bias: Any = None, residual: Any = None, relu: bool = False,
) -> NDArray[Any] | tuple[NDArray[Any], Mask]:  # fmt: skip
    x = checks.elements("x", x)
    keep_prob = checks.keep_probability(keep_prob)
    y = checks.result(out, x)
    x, bias, residual = _operands(x, bias, residual, y)
    scale, dropped, shift = formulas.training_affine(keep_prob, mode)
    masked = bool(return_mask)  # which may raise, so it comes before anything is drawn or written
    shared = checks.shared_axes(broadcast_dims, x.ndim)
    bits = decisions(rng, x.shape, shared, keep_prob)
    decided = formulas.decided_shape(x.shape, shared)
    passed_bits = np.empty(packed(x.size), np.uint8) if relu else bits
    for part in parts(x.size):
        passed = unpacked(bits, decided, x.shape, part)
        values = _biased(x, bias, part)
        if relu:
            passed = passed & ~(values <= 0)
            passed_bits[bytes_of(part)] = np.packbits(passed, bitorder="little")
        values = _selected(values, passed, scale, dropped)
        if mode == "alpha":
            with np.errstate(all="ignore"):
                values = values + values.dtype.type(shift)
        flat(y)[part] = rounded(_plus(residual, values, part), y.dtype)
    written = y if out is None else out
    if not masked:
        return written
    return written, Mask(passed_bits, x.shape if relu else decided, keep_prob=keep_prob, mode=mode)


@explained
def relu_dropout_backward(
    dy: ArrayLike,
    saved: Mask | ArrayLike,
    *,
    keep_prob: float | None = None,
    mode: Mode | None = None,
    bias_grad: bool = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """``dx = scale * dy`` where the element passed, else +0. `bias_grad` adds the sums of columns."""
    return _backward(dy, "saved", saved, keep_prob, mode, bias_grad, out)


def _backward(
    dy: Any, name: str, saved: Any, keep_prob: Any, mode: Any, bias_grad: bool, out: Any
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    dy = checks.elements("dy", dy)
    saved, scale = saved_for_backward(name, saved, keep_prob, mode, dy)
    if bias_grad:
        checks.columns_of(dy)
    dx = checks.result(out, dy)
    dy = apart(dy, dx)
    known, decided = _known(saved, dx)
    for part in parts(dy.size):
        from_mask = isinstance(saved, Mask)
        passed = unpacked(known, decided, dy.shape, part) if from_mask else flat(known)[part] != 0
        flat(dx)[part] = rounded(_selected(_biased(dy, None, part), passed, scale), dx.dtype)
    written = dx if out is None else out
    return (written, _column_sums(dx)) if bias_grad else written


@explained
def dropout_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: bool = False, out: NDArray[Any] | None = None
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """``dx = scale * dy`` where kept, else +0."""
    return _backward(dy, "mask", mask_of_dropout(mask), None, None, bias_grad, out)


@explained
def dropout_add_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: bool = False, out: NDArray[Any] | None = None
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """The gradient with respect to `x`. With respect to the residual it is `dy`."""
    return dropout_backward(dy, mask, bias_grad=bias_grad, out=out)


@explained
def alpha_dropout_backward(
    dy: ArrayLike, mask: Mask, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """``dx = a * dy`` where kept, else +0."""
    return _backward(dy, "mask", mask_of_dropout(mask, alpha=True), None, None, False, out)  # type: ignore[return-value]


def _known(saved: Mask | NDArray[Any], dx: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Return the packed decisions of a mask, or an output, and the shape of either."""
    if isinstance(saved, Mask):
        bits, shape, _, _ = Mask._fields(saved)
        return np.frombuffer(bits, np.uint8), shape
    return apart(saved, dx), saved.shape


def _column_sums(dx: NDArray[Any]) -> NDArray[Any]:
    """Sum over all axes but the last, in float64: the rows of a strip in order, then the strips."""
    rows = dx.reshape(math.prod(dx.shape[:-1]), dx.shape[-1])
    strip = formulas.rows_in_strip(rows.shape[1])
    sums = np.zeros(rows.shape[1])
    with np.errstate(all="ignore"):
        for first in range(0, len(rows), strip):
            partial = np.zeros_like(sums)
            for row in rows[first : first + strip]:
                partial += row.astype(np.float64)
            sums += partial
        return rounded(sums, checks.native(dx.dtype))


@explained
def relu_dropout_predict(
    x: ArrayLike,
    *,
    keep_prob: float | None = None,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """``y = relu(x + bias)``, times keep_prob in mode "vanilla"."""
    return _predict(x, keep_prob, mode, out, bias=bias, relu=True)


@explained
def dropout_predict(
    x: ArrayLike,
    *,
    keep_prob: float | None = None,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """``y = x + bias``, times keep_prob in mode "vanilla"."""
    return _predict(x, keep_prob, mode, out, bias=bias)


@explained
def dropout_add_predict(
    x: ArrayLike,
    residual: ArrayLike,
    *,
    keep_prob: float | None = None,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """``y = residual + (x + bias)``; in mode "vanilla" the parentheses are multiplied by keep_prob."""
    return _predict(x, keep_prob, mode, out, bias=bias, residual=checks.given("residual", residual))


def _predict(
    x: Any, keep_prob: Any, mode: Any, out: Any, bias: Any = None, residual: Any = None, relu: bool = False
) -> NDArray[Any]:
    x = checks.elements("x", x)
    mode = checks.dropout_mode(mode)
    keep_prob = checks.prediction_probability(keep_prob, mode)
    y = checks.result(out, x)
    x, bias, residual = _operands(x, bias, residual, y)
    for part in parts(x.size):
        values = _biased(x, bias, part)
        passed = ~(values <= 0) if relu else np.True_
        values = _selected(values, passed, formulas.prediction_scale(keep_prob, mode))
        flat(y)[part] = rounded(_plus(residual, values, part), y.dtype)
    return y if out is None else out


@explained
def keep_mask(
    shape: int | tuple[int, ...], *, keep_prob: float, broadcast_dims: Axes = (), rng: RNG = None
) -> Mask:
    """Draw the decisions alone, which are those that the calls above draw."""
    shape, keep_prob = checks.shape_of("shape", shape), checks.keep_probability(keep_prob)
    shared = checks.shared_axes(broadcast_dims, len(shape))
    bits = decisions(rng, shape, shared, keep_prob)
    return Mask(bits, formulas.decided_shape(shape, shared), keep_prob=keep_prob)


def _operands(x: NDArray[Any], bias: Any, residual: Any, y: NDArray[Any]) -> tuple[Any, Any, Any]:
    """Check the inputs, and copy those that writing the result would change."""
    if bias is not None:
        bias = checks.bias_for(bias, x).astype(formulas.arithmetic(x.dtype))
    if residual is not None:
        residual = apart(checks.residual_for(residual, x), y)
    return apart(x, y), bias, residual


def _biased(x: NDArray[Any], bias: NDArray[Any] | None, part: slice) -> NDArray[Any]:
    """Return ``x + bias`` in the dtype of the arithmetic, which is at least float32."""
    values = flat(x)[part].astype(formulas.arithmetic(x.dtype))
    with np.errstate(all="ignore"):
        return values if bias is None else values + flat(np.broadcast_to(bias, x.shape))[part]


def _selected(values: NDArray[Any], passed: Any, scale: float, dropped: float = 0.0) -> NDArray[Any]:
    """Multiply once, then select: a dropped NaN or infinity leaves no trace."""
    dtype = values.dtype.type
    with np.errstate(all="ignore"):
        return np.where(passed, values * dtype(scale), dtype(dropped))


def _plus(residual: NDArray[Any] | None, values: NDArray[Any], part: slice) -> NDArray[Any]:
    """Add the residual, before the one rounding."""
    if residual is None:
        return values
    with np.errstate(all="ignore"):
        return flat(residual)[part].astype(values.dtype) + values
